"""``lethe bench`` for those who like a script."""

import sys

from cl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
