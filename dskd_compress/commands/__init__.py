"""One thin file a command: parse, load, call the core, write, print.

A command module imports typer and the standard library only, so that `--help` answers at once.
"""
