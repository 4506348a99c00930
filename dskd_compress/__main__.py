"""`python -m dskd_compress`."""

from __future__ import annotations

import sys

from dskd_compress.cli import main

if __name__ == "__main__":
    sys.exit(main())
