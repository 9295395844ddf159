"""The program: its commands, how it runs, and how it fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from promptsearch.cli.models import models
from promptsearch.cli.optimizing import demo, optimize
from promptsearch.cli.printing import print_json
from promptsearch.cli.using import evaluate, predict, show
from promptsearch.errors import PromptsearchError, UserError
from promptsearch.version import __version__

__all__ = ["app", "main"]

_USAGE_ERROR = typer.BadParameter.__mro__[1]  # the base of everything that parsing refuses
_INTERRUPTED = 130

app = typer.Typer(
    name="promptsearch",
    help="Finds the best prompt for a model by searching demonstrations; offline, on this machine.",
    epilog="Start with: promptsearch demo",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (optimize, demo, predict, evaluate, show, models):
    app.command()(_command)


def _version(asked: bool) -> None:
    if asked:
        print(f"promptsearch {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of the program itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: what follows the program's name; None for those of this process.

    Returns:
        The exit code: 0 done, 2 what was given is wrong, 1 anything else, 130 for Ctrl-C.
    """
    given, debug = _without_debug(sys.argv[1:] if arguments is None else arguments)
    given = given or ["--help"]
    try:
        code = typer.main.get_command(app)(given, prog_name="promptsearch", standalone_mode=False)
        sys.stdout.flush()
    except Exception as error:
        if debug and not isinstance(error, _USAGE_ERROR):
            import traceback

            traceback.print_exc()
        return _failed(error, as_json="--json" in given)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        recorded = any(argument.split("=")[0] == "--run" for argument in given)
        print(f"promptsearch: stopped{'; the same command goes on from there' * recorded}", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without ``--debug``, which is taken wherever it stands before a ``--``."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument != "--debug"]
    return [*kept, *arguments[end:]], len(kept) < end


def _failed(error: Exception, *, as_json: bool) -> int:
    """Tell of an error in one line, and as an object where one was asked for."""
    if isinstance(error, BrokenPipeError):
        # Python flushes once more at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, typer.Abort):
        print("promptsearch: stopped", file=sys.stderr)
        return _INTERRUPTED
    code, text = _diagnosis(error)
    line = " ".join(text.split())
    print(f"promptsearch: {line}", file=sys.stderr)
    if as_json:
        print_json({"error": line, "exit_code": code})
    return code


def _diagnosis(error: Exception) -> tuple[int, str]:
    """Exit code and message of an error."""
    if isinstance(error, UserError):
        return 2, str(error)
    if isinstance(error, _USAGE_ERROR):
        context = getattr(error, "ctx", None)
        command = "promptsearch" if context is None else context.command_path
        message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        return 2, f"{message}; see {command} --help"
    if isinstance(error, PromptsearchError):
        return 1, str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return 1, f"{str(error.filename)!r} cannot be used ({error.strerror}); check that place and its permissions"
    return 1, f"{type(error).__name__}: {error} (unexpected; run it again with --debug to see where)"
