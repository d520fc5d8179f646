"""``python -m tests.torture``: see ``long_form``, which the processes it starts can import."""

import sys

from tests.torture.long_form import main

if __name__ == "__main__":
    sys.exit(main())
