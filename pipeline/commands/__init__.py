"""A folder for each command: `options.py`, what it can be told, and `command.py`, its `run(options)`."""
