"""`python -m rawuring`: the probe, which says what io_uring can do here, and if not, why."""

import sys

from .probe import main

if __name__ == "__main__":
    sys.exit(main())
