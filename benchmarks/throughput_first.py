"""How long the first answer of a fresh process takes, for ``benchmarks.throughput``.

Leaves out: everything that a process does once it runs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import promptsearch as ps
from benchmarks.common import read_dataset
from benchmarks.throughput_cases import CASES, SHOTS, balanced_rows
from benchmarks.throughput_figures import spread
from benchmarks.throughput_processes import ContenderError, policy_set
from benchmarks.throughput_rounds import Setting
from promptsearch.lm.resolve import open_engine

__all__ = ["first_answers"]

_SCRIPT = "import sys, promptsearch as ps; print(ps.load(sys.argv[1])(sys.argv[2]).output)"


def first_answers(setting: Setting) -> dict[str, Any]:
    """Wall seconds of fresh processes, in turn, after one of each that is not counted.

    Targets are about prompts saved with what the model computed for their demonstrations; without it, each process
    computes that anew.
    """
    data = read_dataset(setting.data, "sst2")
    text = data.test[0]["input"]
    with tempfile.TemporaryDirectory() as folder:
        saved = _saved_prompts(Path(folder), setting)
        program = Path(sys.executable).with_name("promptsearch")
        predict = [str(program)] if program.is_file() else [sys.executable, "-m", "promptsearch"]
        ways = {"python -c": [sys.executable, "-c", _SCRIPT], "promptsearch predict": [*predict, "predict"]}
        commands = {
            f"{way}{kept}": [*command, str(path), text]
            for kept, path in saved.items()
            for way, command in ways.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(setting.repeats + 1):
            first = number % len(commands)
            names = list(commands)[first:] + list(commands)[:first]
            for name in names:
                spent = _seconds_of(commands[name], setting.our_policy)
                if number:
                    seconds[name].append(spent)
    return {
        "title": CASES["first"],
        "prompts": 1,
        "notes": ["run as a module, not by its script"] * (not program.is_file()),
        "rounds": seconds,
        "figures": {f"seconds of {name}": spread(values).to_dict() for name, values in seconds.items()},
    }


def _saved_prompts(folder: Path, setting: Setting) -> dict[str, Path]:
    """A prompt made by hand, as a user would, saved with its prefix state and without, by what names say of that."""
    data = read_dataset(setting.data, "sst2")
    task = data.task(200, 100, 0)
    opened = open_engine(setting.model, setting.main)
    try:
        prompt = ps.Prompt(task, balanced_rows(data.train, data.labels, SHOTS), opened)
        return {
            "": prompt.save(folder / "prompt.json", prefix_state=True),
            " without prefix state": prompt.save(folder / "bare.json"),
        }
    finally:
        opened.engine.close()


def _seconds_of(command: list[str], policy: str | None) -> float:
    with policy_set(policy):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
    if done.returncode != 0 or not done.stdout.strip():
        said = " ".join(done.stderr.split())[-300:]
        raise ContenderError(f"{command[0]} ended with {done.returncode} and {done.stdout!r}: {said}")
    return seconds
