"""``python -m skysub``: the command line."""

import sys

from skysub.cli import main

if __name__ == "__main__":
    sys.exit(main())
