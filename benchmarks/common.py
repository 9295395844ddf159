"""What all benchmarks share: datasets, the machine's description, and results that survive an interruption."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import promptsearch as ps
from promptsearch.errors import UserError
from promptsearch.files import write_whole
from promptsearch.lm.hub import fetch_model
from promptsearch.lm.llamacpp.weights import choose_weights
from promptsearch.lm.resolve import PACKAGED, OpenedModel, packaged_model

PACKAGES = ("llama-cpp-python", "faiss-cpu", "torch", "sentence-transformers", "numpy")

# One sentence each, as a user would write it; the datasets come without.
INSTRUCTIONS = {
    "agnews": "Classify the news article by its topic.",
    "banking77": "Find the intent of the customer's message.",
    "chnsenticorp": "Classify the sentiment of the review.",
    "commonsense_qa": "Answer the question.",
    "rte": "Does the premise entail the hypothesis?",
    "sst2": "Classify the sentiment of the review.",
    "trec": "Classify the question by what it asks for.",
    "webquestions": "Answer the question.",
}


@dataclass(frozen=True)
class Dataset:
    """Rows of a benchmark dataset: columns ``input`` and ``output``.

    An output is a list where several answers are right; ``labels`` is empty where answers are free text.
    """

    name: str
    train: list[dict[str, Any]]
    dev: list[dict[str, Any]]
    test: list[dict[str, Any]]
    labels: list[str]

    def task(self, rows: int | None, test_rows: int | None, seed: int) -> ps.Task:
        """A task with ``rows`` labelled rows (None: all, with the dataset's own validation rows)."""
        test = self.test if test_rows is None else self.test[:test_rows]
        instruction = INSTRUCTIONS.get(self.name)
        columns: dict[str, Any] = {"inputs": "input", "output": "output", "labels": self.labels or False}
        if "rationale" in self.train[0]:
            columns["rationale"] = "rationale"
        if rows is None:
            return ps.Task(self.train, **columns, instruction=instruction, validation=self.dev, test=test)
        rng = np.random.default_rng([seed, 10])
        if self.labels:
            chosen = _stratified(self.train, rows, rng)
        else:
            chosen = [self.train[place] for place in sorted(rng.permutation(len(self.train))[:rows].tolist())]
        return ps.Task(chosen, **columns, instruction=instruction, test=test)


def read_dataset(folder: Path, name: str) -> Dataset:
    """Read one of the folders in ``--data``."""
    meta = json.loads((folder / name / "meta.json").read_text("utf-8"))
    parts = {part: _read_rows(folder / name / f"{part}.jsonl") for part in ("train", "dev", "test")}
    return Dataset(name, parts["train"], parts["dev"], parts["test"], list(meta["labels"] or []))


def _read_rows(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    return [{**row, "output": row["answers"]} if "answers" in row else row for row in rows]


def _stratified(rows: list[dict[str, Any]], count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rows with labels in the proportions of all, each label at least three times."""
    by_label: dict[str, list[int]] = {}
    for place in rng.permutation(len(rows)).tolist():
        by_label.setdefault(rows[place]["output"], []).append(place)
    chosen: list[int] = []
    for places in by_label.values():
        chosen += places[: max(3, round(count * len(places) / len(rows)))]
    return [rows[place] for place in sorted(chosen)]


def mean_with_half_width(values: Sequence[float]) -> dict[str, float]:
    """Mean over seeds, and the half width of its 95 % interval (Student's), which one seed has not: NaN."""
    from scipy.stats import t

    count = len(values)
    half = float(t.ppf(0.975, count - 1) * np.std(values, ddof=1)) / count**0.5 if count > 1 else float("nan")
    return {"mean": float(np.mean(values)), "half": half}


def in_points(value: Mapping[str, float], *, sign: bool = True) -> str:
    """A mean of shares and its half width, in percentage points."""
    spread = f" +- {100 * value['half']:.1f}" if np.isfinite(value["half"]) else ""
    return f"{100 * value['mean']:{'+' if sign else ''}.1f}{spread}"


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "processor": _processor(),
        "instructions": _instructions(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "promptsearch": ps.__version__,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    return _of_processor("model name") or platform.processor() or platform.machine()


def _instructions() -> list[str]:
    """Those of the processor that decide which weights run fast: one name covers several generations."""
    deciding = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimddp", "i8mm", "bf16"}
    return sorted(deciding & set(_of_processor("flags", "Features").split()))


def _of_processor(*names: str) -> str:
    """What Linux says of the first core under one of these names; empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(names)), "")


def _command(arguments: list[str]) -> str:
    """The arguments, with folders and files by their role: where they lay says nothing to others."""
    roles = {"--data": "DIR", "--json": "FILE", "--plots": "FOLDER", "--pages": "FOLDER", "--text": "FILE"}
    before = ["", *arguments]
    shown = [roles.get(option, value) for option, value in zip(before, arguments, strict=False)]
    return " ".join("FILE" if os.sep in value and not value.startswith("hf:") else value for value in shown)


def weights_file(opened: OpenedModel) -> Path:
    """The file whose weights a model runs, so that a rival can open the same one.

    Raises:
        UserError: it is no GGUF file.
        ModelError: the file is gone.
    """
    if not opened.kind:
        raise UserError(
            f"rivals here open the model's file themselves, and {opened.engine.name} is none; "
            "give --model a GGUF file, or leave it out"
        )
    if opened.source == PACKAGED:
        source = packaged_model()
    else:
        source = fetch_model(opened.source) if opened.source.startswith("hf:") else Path(opened.source)
    return choose_weights(source, opened.kind).path


def require_same_settings(path: Path, settings: dict[str, Any]) -> None:
    """Refuse to add to results that were measured otherwise.

    Raises:
        UserError: naming what differs.
    """
    if not path.is_file():
        return
    kept = json.loads(path.read_text("utf-8")).get("settings") or {}
    differing = [name for name in {**kept, **settings} if kept.get(name) != settings.get(name)]
    if differing:
        were = ", ".join(f"{name}: {kept.get(name)} instead of {settings.get(name)}" for name in differing)
        raise UserError(f"{path} holds results of other settings ({were}); give another --json")


def end_on_other_settings(path: Path, settings: dict[str, Any]) -> None:
    """End a benchmark, before it opens a model, that would add to results that were measured otherwise.

    Args:
        path: file of results.
        settings: all that decides what a cell holds and is no part of its key. What only decides which cells there
            are (datasets, seeds) is none of it, so that a file may grow by several commands.

    Raises:
        SystemExit: naming what differs.
    """
    try:
        require_same_settings(path, settings)
    except UserError as error:
        raise SystemExit(str(error)) from error


def model_setting(model: str | None) -> dict[str, str]:
    """The setting that tells results of a ``--model`` from those of the packaged one, which say nothing."""
    if model is None or model.lower() == PACKAGED:
        return {}
    return {"model": model if model.startswith(("hf:", "http://", "https://")) else Path(model).name}


class Results:
    """Measured cells, written after each one; a run started again skips the cells that are there.

    A file may be added to on other machines: it says on which of its ``machines`` each cell was measured, and how the
    model ran there.
    """

    def __init__(self, path: Path, settings: dict[str, Any], model: str = "") -> None:
        self.path = path
        self._model = {"model": model} if model else {}
        self.header = {"command": _command(sys.argv[1:]), "settings": settings}
        kept = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        self.cells: dict[str, Any] = kept.get("cells", {})
        alone = [kept["machine"]] if "machine" in kept else []  # of a file that only one machine could write
        self._machines: list[dict[str, Any]] = kept.get("machines", alone)
        self._measured_on: dict[str, int] = kept.get("measured_on", dict.fromkeys(self.cells, 0) if alone else {})

    def __contains__(self, key: str) -> bool:
        return key in self.cells

    def add(self, key: str, cell: dict[str, Any]) -> None:
        """Keep one cell."""
        here = {**machine(), **self._model}
        if here not in self._machines:
            self._machines.append(here)
        self.cells[key] = cell
        self._measured_on[key] = self._machines.index(here)
        document = {
            **self.header,
            "machines": self._machines,
            "measured_on": self._measured_on,
            "cells": self.cells,
        }
        write_whole(self.path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
