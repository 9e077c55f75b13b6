"""The command line: one file a command; parse, wire, print.

Here belongs what turns words of a terminal into calls of the other rooms and their results into text or
JSON: options, the user's settings (``config_file``), progress, engines, messages and exit codes. A command
is loaded when it is used.
Never: physics, array arithmetic, anything that a script could not have without a terminal: that belongs to
the room it is about.
May import: every room; typer, rich, pydantic.
"""
