"""`python -m postier.console`: the same as `postier`."""

import sys

from postier.console.main import main

if __name__ == "__main__":
    sys.exit(main())
