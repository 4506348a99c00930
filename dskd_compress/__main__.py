"""The program: `dskd-compress`, or `python -m dskd_compress`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading

from dskd_compress.interrupt import ctrl_c_came, describe_interrupt, make_resume_command, watch_for_ctrl_c

LONGEST_END_S = 20.0


def start() -> int:
    """Run the command line of this process; Ctrl-C also counts while it is imported.

    Returns:
        The exit code.
    """
    watch_for_ctrl_c()
    try:
        from dskd_compress.cli import main

        code = main()
        _end_soon(code)
        return code
    except BaseException as error:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # a Ctrl-C that still waits is answered here
        # Before or after what `main` sees; a module that was interrupted may fail in its own way.
        if not isinstance(error, KeyboardInterrupt) and not ctrl_c_came():
            raise
        sys.stderr.write(f"{describe_interrupt(make_resume_command(sys.argv[1:]))}\n")
        return 130


def _end_soon(code: int) -> None:
    """Bound the end of the process: Python waits for child processes, which may hang."""
    timer = threading.Timer(LONGEST_END_S, os._exit, (code,))
    timer.daemon = True
    with contextlib.suppress(RuntimeError):  # no thread can be started either
        timer.start()


if __name__ == "__main__":
    sys.exit(start())
