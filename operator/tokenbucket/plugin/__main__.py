"""``python -m tokenbucket.plugin``."""

import sys

from tokenbucket.plugin.main import main

if __name__ == "__main__":
    sys.exit(main())
