"""The program: `dskd-compress`, or `python -m dskd_compress`."""

from __future__ import annotations

import sys

from dskd_compress.interrupt import ctrl_c_came, watch_for_ctrl_c


def start() -> int:
    """Run the command line of this process; importing it takes a moment in which Ctrl-C counts as well.

    Returns:
        The exit code.
    """
    watch_for_ctrl_c()
    try:
        from dskd_compress.cli import main

        return main()
    except BaseException as error:
        # Before or after what `main` sees; a module that was interrupted may fail in its own way.
        if not isinstance(error, KeyboardInterrupt) and not ctrl_c_came():
            raise
        sys.stderr.write("error: Interrupted.\n")
        return 130


if __name__ == "__main__":
    sys.exit(start())
