"""One node as a program: `python -m boards --config node.toml`."""

import sys

from boards.program import main

if __name__ == "__main__":
    sys.exit(main())
