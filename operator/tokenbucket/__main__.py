"""``python -m tokenbucket``."""

import sys

from tokenbucket.cli import main

if __name__ == "__main__":
    sys.exit(main())
