"""The commands as Python functions, made from their dataclasses; `pipeline/__init__.py` is where they are found."""
