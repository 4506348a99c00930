"""Run this tool on several devices, over the system's own ssh and rsync.

address.py   `ssh://user@host:port` or `local`
ssh.py       one connection: run a script, send and fetch files
job.py       a command there that survives a dropped connection
run.py       send the bundle, run the command, fetch the results
devices.py   one benchmark on every device, side by side
"""

from __future__ import annotations

from dskd_export.fleet.address import Address, parse_address
from dskd_export.fleet.devices import FleetOptions, benchmark_devices, name_devices, require_all_devices
from dskd_export.fleet.run import RemoteCommand, run_remotely

__all__ = [
    "Address",
    "FleetOptions",
    "RemoteCommand",
    "benchmark_devices",
    "name_devices",
    "parse_address",
    "require_all_devices",
    "run_remotely",
]
