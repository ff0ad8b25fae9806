"""The ground segment as a program: `python -m ground --config ground.toml`."""

import sys

from ground.program import main

if __name__ == "__main__":
    sys.exit(main())
