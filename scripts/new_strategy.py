"""``lethe new strategy`` for those who like a script: python scripts/new_strategy.py my_method."""

import sys

from cl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["new", "strategy", *sys.argv[1:]]))
