"""The command line: the first word is the command, the rest fills that command's dataclass.

    pipeline COMMAND [--config NAME_OR_PATH] [--flag value ...]

A stage, and with it torch, is imported only when its command runs, so that help and mistyped flags answer at once; and
nothing at all before it is known that our own packages are not hidden by others of their names.
Exit codes: 0 all that was asked was done; 1 something failed, and what was finished stays; 2 the call was wrong.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.options.packaged import check_not_hidden

if TYPE_CHECKING:
    from pipeline.commands.table import Command


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the console script `pipeline`."""
    try:
        code = _main(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `pipeline describe … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _main(words: list[str]) -> int:
    try:
        check_not_hidden()
    except ValueError as error:
        return _fail(str(error), code=2)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("tal-pipeline"))
        return 0
    return _call(words)


def _call(words: list[str]) -> int:
    from pipeline.commands.table import COMMANDS
    from pipeline.options.flags import parse

    if words[0] not in COMMANDS:
        return _fail(f"there is no command {words[0]!r}; the commands are {', '.join(COMMANDS)}", code=2)
    command = COMMANDS[words[0]]
    try:
        parsed: Any = parse(words[0], command.options, words[1:], positional=command.positional)
    except (ValueError, OSError) as error:
        return _fail(f"{error}\n(pipeline {words[0]} --help lists the flags)", code=2)
    return _run(command, parsed)


def _overview() -> str:
    from pipeline.commands.table import COMMANDS
    from pipeline.options.parser import first_line

    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {first_line(command.options)}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: pipeline COMMAND [--config NAME_OR_PATH] [--flag value ...]",
            "",
            "From raw video to localized actions.",
            "",
            *lines,
            "",
            "pipeline COMMAND --help lists a command's flags. PIPELINE_DEBUG=1 shows the traceback of an error.",
        ]
    )


def _run(command: Command, parsed: Any) -> int:
    try:
        return 1 if command.run(parsed).failed else 0
    except KeyboardInterrupt:
        return _fail("interrupted; what was finished stays, and the same command goes on from there", code=130)
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        if os.environ.get("PIPELINE_DEBUG"):
            raise
        return _fail(str(error), code=1)


def _fail(message: str, *, code: int) -> int:
    print(f"pipeline: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
