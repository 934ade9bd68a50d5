"""``lethe train`` for those who like a script: python scripts/train.py stream=split_mnist strategy=ewc."""

import sys

from cl.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
