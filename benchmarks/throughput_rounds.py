"""Who takes part in a case of ``benchmarks.throughput``, and the rounds in which each is measured once.

Invariant: no two contenders run at once, and every round measures all of them, in an order that moves on by one.
Leaves out: what a contender does, and what its measurements mean.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.throughput_cases import Case, Sizes
from benchmarks.throughput_figures import Tree, prefix_tree
from benchmarks.throughput_processes import ContenderError, Spec, Worker
from promptsearch.lm.llamacpp.weights import AS_IS

__all__ = ["Contender", "Rounds", "Setting", "run_rounds", "worker_spec"]

_MAKERS = {
    "ours": "benchmarks.throughput_engine:Ours",
    "raw": "benchmarks.throughput_engine:Raw",
    "profile": "benchmarks.throughput_engine:Profile",
    "completion": "benchmarks.throughput_rivals:Completion",
    "labels one by one": "benchmarks.throughput_rivals:LabelsOneByOne",
    "server": "benchmarks.throughput_rivals:Server",
    "dspy": "benchmarks.throughput_rivals:DspyPredict",
}
_RIVALS = {
    "a": ("completion", "server", "dspy"),
    "b": ("completion",),
    "c": ("completion",),
    "d": ("labels one by one",),
    "e": ("completion",),
}
_AS_IS_ONLY = ("server", "dspy")
_OUR_SIDE = ("ours", "raw", "profile")
_ROOM = 256  # contexts are made in steps of so many tokens
_MARGIN = 8  # tokens that a rival may add to a prompt, such as one that begins the text
_RAW_BATCH = 512


@dataclass(frozen=True)
class Setting:
    """What holds for the whole run.

    Attributes:
        model: the model as it was named.
        files: file of each weight type that runs, by type.
        kinds: weight types that ours runs with; the last one is what targets are about.
        sizes: how many prompts.
        repeats: rounds.
        data: folder of datasets.
        our_policy: how our threads wait; None for what the environment says.
        their_policy: how the rivals' wait.
    """

    model: str | None
    files: dict[str, Path]
    kinds: tuple[str, ...]
    sizes: Sizes
    repeats: int
    data: Path
    our_policy: str | None
    their_policy: str | None = None

    @property
    def main(self) -> str:
        """The weight type that targets are about."""
        return self.kinds[-1]

    @property
    def rival_kinds(self) -> tuple[str, ...]:
        """Weight types that rivals run with: the file's own and the equal ones."""
        return (AS_IS,) if self.main == AS_IS else (AS_IS, self.main)


@dataclass
class Contender:
    """Who is asked what in every round, and what came of it.

    Attributes:
        kind: a key of ``_MAKERS``.
        weights: weight type that it runs.
        part: what it answers of the case.
        worker: the process that runs it.
        method: what is called in every round, with ``arguments``.
        rounds: what was returned, round by round.
    """

    kind: str
    weights: str
    part: Case
    worker: Worker
    method: str
    arguments: tuple[Any, ...]
    rounds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the results call it."""
        return f"{self.kind} {self.weights}"


@dataclass(frozen=True)
class Rounds:
    """All that was measured of a case.

    Attributes:
        case: the whole case.
        tree: its prefix tree.
        depth: tokens of a sequence behind which raw rates were taken.
        contenders: those that got through every round, by name.
        trees: prefix tree of what each of ours answered, by name.
        skipped: why others did not, by name.
    """

    case: Case
    tree: Tree
    depth: int
    contenders: dict[str, Contender]
    trees: dict[str, Tree]
    skipped: dict[str, str]


def run_rounds(case: Case, setting: Setting) -> Rounds:
    """Measure everyone in turn.

    Raises:
        ContenderError: ours with the main weights cannot run.
    """
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Worker(worker_spec("ours", setting, setting.main, 0), setting.our_policy))
        paths, labels = ours.call("tokens", case)
        tree = prefix_tree(paths, labels)
        depth = tree.shared if len(case.groups) == 1 else round(tree.depth)
        longest = max(map(len, paths)) + max(map(len, labels), default=0) + case.max_tokens
        room = _ROOM * (1 + (longest + _MARGIN) // _ROOM)
        contenders, skipped = _start(case, setting, stack, ours, room)
        trees = {
            each.name: prefix_tree(*ours.call("tokens", each.part)) for each in contenders if each.kind == "ours"
        }
        raw = list(islice(cycle(chain.from_iterable(paths)), depth + _RAW_BATCH))
        for each in contenders:
            if each.kind == "raw":
                each.method, each.arguments = "rates", (raw, depth)
        for number in range(setting.repeats):
            _run_round(contenders, number, skipped)
            print(f"{case.key}: round {number + 1} of {setting.repeats}", file=sys.stderr, flush=True)
    kept = {each.name: each for each in contenders if each.name not in skipped}
    return Rounds(case, tree, depth, kept, trees, skipped)


def worker_spec(kind: str, setting: Setting, weights: str, context_tokens: int) -> Spec:
    """What the worker of a contender is to be."""
    return Spec(_MAKERS[kind], setting.model, weights, str(setting.files[weights]), context_tokens)


def _start(
    case: Case, setting: Setting, stack: contextlib.ExitStack, ours: Worker, room: int
) -> tuple[list[Contender], dict[str, str]]:
    """Everyone who can take part, and why others cannot."""
    started: list[Contender] = []
    skipped: dict[str, str] = {}
    for kind, weights in _wanted(case, setting):
        is_main = (kind, weights) == ("ours", setting.main)
        policy = setting.our_policy if kind in _OUR_SIDE else setting.their_policy
        try:
            spec = worker_spec(kind, setting, weights, room)
            worker = ours if is_main else stack.enter_context(Worker(spec, policy))
        except ContenderError as error:
            skipped[f"{kind} {weights}"] = str(error)
            continue
        part = case if is_main else _part(kind, weights, case, setting.sizes)
        started.append(Contender(kind, weights, part, worker, "measure", (part,)))
    return started, skipped


def _wanted(case: Case, setting: Setting) -> list[tuple[str, str]]:
    """Kinds of contenders with their weights, in the order of the table."""
    wanted = [("ours", kind) for kind in setting.kinds]
    for rival in _RIVALS[case.key]:
        wanted += [(rival, kind) for kind in setting.rival_kinds if kind == AS_IS or rival not in _AS_IS_ONLY]
    wanted.append(("raw", setting.main))
    return wanted + [("profile", setting.main)] * (case.key == "a")


def _part(kind: str, weights: str, case: Case, sizes: Sizes) -> Case:
    """What a contender answers; only ours answers another part with other weights."""
    return sizes.part_of(f"{kind} {weights}" if kind == "ours" else kind, case)


def _run_round(contenders: Sequence[Contender], number: int, skipped: dict[str, str]) -> None:
    first = number % len(contenders)
    for contender in [*contenders[first:], *contenders[:first]]:
        if contender.name in skipped:
            continue
        try:
            contender.rounds.append(contender.worker.call(contender.method, *contender.arguments))
        except ContenderError as error:
            skipped[contender.name] = str(error)
