"""What a file of results says about how it was measured, and how it may grow.

Invariant: settings are plain values; :data:`DECIDING` names those that change what a cell holds. All others say only
which cells there are, so that a file may be added to at another number of seeds, say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from benchmarks.common import require_same_settings
from benchmarks.lab.claim import Setting
from benchmarks.lab.reader import quantized
from benchmarks.lab.scales import FULL, QUICK, Scale
from promptsearch.errors import UserError

__all__ = ["DECIDING", "command_of", "continued", "setting_of", "settings_of"]

DECIDING = ("datasets", "switched", "items", "thinking_items", "thinking_tokens", "pieces", "labels", "content")


def settings_of(
    scale: Scale, models: Mapping[str, Any], labels: Mapping[str, int], content: Mapping[str, str]
) -> dict[str, Any]:
    """What a file of results says about how it was measured, as plain values.

    Args:
        scale: how large the experiments are.
        models: facts of each model by name, the first one first.
        labels: how many labels each dataset has.
        content: digests of everything that is asked about, by name.
    """
    values = {**asdict(scale), "labels": dict(labels), "content": dict(content), "models": dict(models)}
    return dict(json.loads(json.dumps(values)))


def setting_of(settings: Mapping[str, Any]) -> Setting:
    """What claims are made from."""
    scale = _scale_of(settings)
    models = tuple(settings["models"])
    return Setting(
        models=models,
        parameters=tuple(int(settings["models"][name]["parameters"]) for name in models),
        quantizations=tuple(quantized(models[0], kind) for kind in scale.quantizations),
        datasets=scale.datasets,
        labels=dict(settings["labels"]),
        tasks=scale.tasks,
        switched=scale.switched,
        shots=scale.shots,
        counts=scale.counts,
        seeds=scale.seeds,
        thinking_seeds=scale.thinking_seeds,
        thinking_shots=scale.thinking_shots,
        thinking_tokens=scale.thinking_tokens,
        orders=scale.orders,
        order_seeds=scale.order_seeds,
        order_datasets=scale.datasets[: scale.order_dataset_count],
        templates=scale.templates,
        channel_datasets=scale.datasets[: scale.channel_dataset_count],
    )


def continued(path: Path, now: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a file of results after more is measured; those of now where there is none.

    Models that are there stay, and further ones may come.

    Raises:
        UserError: what is there was measured otherwise.
    """
    if not path.is_file():
        return dict(now)
    kept = json.loads(path.read_text("utf-8"))["settings"]
    known, asked = kept["models"], now["models"]
    for name in known.keys() & asked.keys():
        if known[name] != asked[name]:
            raise UserError(f"{path} holds results of another file called {name}; give another --json")
    first = next(iter(known))
    if first != next(iter(asked)):
        raise UserError(f"{path} holds results whose first model is {first}; give it as --model, or another --json")
    require_same_settings(path, {**kept, **{name: now[name] for name in DECIDING}})
    return {**now, "models": {**known, **asked}}


def _scale_of(settings: Mapping[str, Any]) -> Scale:
    """The scale that settings hold."""
    values = {each.name: settings[each.name] for each in fields(Scale)}
    tuples: dict[str, Any] = {name: tuple(each) for name, each in values.items() if isinstance(each, list)}
    return Scale(**{**values, **tuples})


def command_of(settings: Mapping[str, Any]) -> str:
    """A command that measures at these settings; files and folders by their role."""
    scale = _scale_of(settings)
    wanted = asdict(scale)
    nearest = min((QUICK, FULL), key=lambda one: sum(wanted[name] != value for name, value in asdict(one).items()))
    words = ["python -m benchmarks.lab --data DIR"]
    words += ["--quick"] if nearest == QUICK else []
    words += ["--models FILES"] if len(settings["models"]) > 1 else []
    for name, value in wanted.items():
        if value != asdict(nearest)[name]:
            shown = ",".join(map(str, value)) if isinstance(value, (tuple, list)) else value
            words.append(f"--{name.replace('_', '-')} {shown}")
    return " ".join(words)
