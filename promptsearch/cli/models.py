"""``promptsearch models``: what can run on this machine, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from promptsearch.cli.options import JsonOption
from promptsearch.cli.printing import print_json

if TYPE_CHECKING:
    from promptsearch.inventory import KnownModel
    from promptsearch.lm.llamacpp.weights import WeightTable, WeightType

__all__ = ["models"]


def models(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Only this one.")] = None,
    bench: Annotated[
        bool, typer.Option("--bench", help="Measure and compare all weight types now, and keep what is found.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List what can run on this machine, and how fast."""
    from promptsearch.inventory import known_models, model_named, packaged_encoder

    found = known_models() if model is None else [model_named(model)]
    if bench:
        found = [each if each.path is None and model is None else _benched(each) for each in found]
    if as_json:
        print_json({"models": [each.to_dict() for each in found], "encoder": packaged_encoder()})
        return
    for each in found:
        print(_model_lines(each))
    if model is None:
        encoder = packaged_encoder()
        print(f"encoder {encoder['name']}: {encoder['install'] or 'installed'}")


def _benched(model: KnownModel) -> KnownModel:
    """A model with its weight types measured now, and on a terminal a display of how far that is."""
    from promptsearch.events import Progress
    from promptsearch.inventory import bench_model
    from promptsearch.terminal import progress_display

    with progress_display() as listen:
        return bench_model(model, lambda done: listen(Progress("weights", done)))


def _model_lines(model: KnownModel) -> str:
    """Name, size and place of a model, and below it what was measured of its weight types."""
    if model.path is None:
        return f"{model.name}\n  not installed: {model.install}"
    lines = [model.name, f"  file    {model.path} ({model.path.stat().st_size / 1e6:,.0f} MB)"]
    if model.error:
        return "\n".join([*lines, f"  error   {model.error}"])
    if model.table is None:
        return "\n".join([*lines, "  speed   not measured yet; add --bench to measure it"])
    return "\n".join([*lines, f"  runs    {model.table.chosen}", "", *_type_lines(model.table), ""])


def _type_lines(table: WeightTable) -> list[str]:
    """A line for each weight type: size, speeds, agreement, and why it does not run."""
    head = ["weights", "MB", "prefill 32", "128", "512", "generation", "same label", ""]
    rows = [head, *(_type_cells(each, each.kind == table.chosen) for each in table.types)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    lines = []
    for row in rows:
        first, *numbers = (cell.rjust(width) for cell, width in zip(row, widths, strict=False))
        lines.append(f"  {first.strip():<{widths[0]}}  {'  '.join(numbers)}  {row[-1]}".rstrip())
    aside = next((each.agreement for each in table.types if each.agreement is not None), None)
    note = "  prefill and generation in tokens/s"
    if aside is not None:
        own = "the file's weights in F32" if aside.reference == "F32" else "the file as it is"
        note += f"; same label as {own}, {aside.ties} near ties aside"
    return [*lines, note]


def _type_cells(of: WeightType, chosen: bool) -> list[str]:
    prefill = of.speed.prefill if of.speed is not None else {}
    generation = of.speed.generation if of.speed is not None else None
    return [
        of.kind,
        "-" if of.bytes is None else f"{of.bytes / 1e6:,.0f}",
        *(f"{prefill[tokens]:,.0f}" if tokens in prefill else "-" for tokens in (32, 128, 512)),
        "-" if generation is None else f"{generation:,.0f}",
        "-" if of.agreement is None else f"{of.agreement.agreed}/{of.agreement.items}",
        "runs" if chosen else of.reason,
    ]
