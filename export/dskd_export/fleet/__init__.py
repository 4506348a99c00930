"""A command of this tool on another machine, over the system's own ssh and rsync.

address.py   `ssh://user@host:port` or `local`
ssh.py       one connection: run a script, send and fetch files
job.py       a command there that outlives the connection and not its client for long
run.py       the way through: send the bundle, run the command, bring the results back
"""

from __future__ import annotations

from dskd_export.fleet.address import Address, parse_address
from dskd_export.fleet.run import RemoteCommand, run_remotely

__all__ = ["Address", "RemoteCommand", "parse_address", "run_remotely"]
