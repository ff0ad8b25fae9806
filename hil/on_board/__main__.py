"""`python -m hil.on_board`."""

import sys

from hil.on_board.program import main

if __name__ == "__main__":
    sys.exit(main())
