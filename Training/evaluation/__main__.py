"""``python -m Training.evaluation``: the bundled weights on phantoms."""

import sys

from Training.evaluation.measure import main

if __name__ == "__main__":
    sys.exit(main())
