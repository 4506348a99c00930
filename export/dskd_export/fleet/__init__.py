"""Run this tool on several devices, over the system's own ssh and rsync.

address.py   `ssh://user@host:port` or `local`
ssh.py       one connection: run a script, send and fetch files
job.py       a command there that survives a dropped connection
run.py       send the bundle, run the command, fetch the results
devices.py   one benchmark on every device, side by side
"""
