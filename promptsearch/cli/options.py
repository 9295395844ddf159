"""Options that several commands have, and the checks of what they name.

Invariant: a file that cannot be written, or that would replace what is read, is refused before any work.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from promptsearch.errors import UserError
from promptsearch.files import would_replace

__all__ = [
    "BudgetOption",
    "EncoderOption",
    "JsonOption",
    "ModelOption",
    "PrefixStateOption",
    "PromptArgument",
    "QuietOption",
    "ReportOption",
    "RunOption",
    "SaveOption",
    "SavedWeightsOption",
    "SeedOption",
    "WeightsOption",
    "check_targets",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A name, a GGUF file, hf:owner/repo:quant or a server's URL. Without it the packaged model "
        "(predict, evaluate, show: the prompt's own).",
    ),
]
WeightsOption = Annotated[
    str,
    typer.Option(
        "--weights",
        help="Weight type of a GGUF model: auto (the fastest here that answers as the file's own), as-is, BF16, F16 "
        "or Q8_0.",
    ),
]
SavedWeightsOption = Annotated[
    str | None,
    typer.Option("--weights", help="Weight type, as for optimize. Without it the prompt's own, or auto for --model."),
]
EncoderOption = Annotated[
    str | None,
    typer.Option("--encoder", help="A sentence-transformers name. Without it the packaged one."),
]
BudgetOption = Annotated[
    str, typer.Option("--budget", "-b", help="A time (90s, 2m), '500k tokens' or '4000 evaluations'.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")]
RunOption = Annotated[
    Path | None,
    typer.Option("--run", help="Folder to record in; the same call goes on from there."),
]
SaveOption = Annotated[Path | None, typer.Option("--save", help="Write the prompt found (JSON).")]
PrefixStateOption = Annotated[
    bool,
    typer.Option("--prefix-state", help="With --save: keep what the model computed for the demonstrations, too."),
]
ReportOption = Annotated[Path | None, typer.Option("--report", help="Write a page that shows the result (HTML).")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]
PromptArgument = Annotated[Path, typer.Argument(metavar="PROMPT", help="A saved prompt.")]


def check_targets(targets: Mapping[str, Path | None], *sources: str | Path | None) -> None:
    """Refuse files that cannot be written, or that would replace what is read or each other, before the work.

    Args:
        targets: what is to be written, by option.
        sources: what is read; names and addresses among them are no files here.
    """
    taken = [Path(source) for source in sources if source is not None]
    for option, target in targets.items():
        if target is None:
            continue
        if target.is_dir():
            raise UserError(f"{str(target)!r} is a folder; give the path of a file to write")
        folder = next(parent for parent in target.absolute().parents if parent.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise UserError(f"{str(target)!r} cannot be written in {str(folder)!r}; choose another place")
        if any(would_replace(target, kept) for kept in taken):
            raise UserError(f"{option} {str(target)!r} would replace what is read or written; give another file")
        taken.append(target)
