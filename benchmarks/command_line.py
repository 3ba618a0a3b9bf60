"""The scripts' own command lines, and the pipeline's commands called with flags that a script was given for them.

What a script imports, and so measures, lies where Python finds it: in the checkout that is installed
(`pip install -e .`), or in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from pipeline.commands.table import COMMANDS
from pipeline.options.flags import parse
from pipeline.options.packaged import ROOT


def script_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring. ImportError if the script would measure another checkout."""
    own = Path(sys.argv[0]).resolve().parents[1]
    if own != ROOT:
        raise ImportError(f"this would measure {ROOT}: `pip install -e {own}`, or set PYTHONPATH={own}")
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def run_command(name: str, flags: str, **options: object) -> Any:
    """What a command returns, called with these options and, overriding them, flags as on its command line."""
    words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    command = COMMANDS[name]
    return command.run(parse(name, command.options, [*words, *shlex.split(flags)]))
