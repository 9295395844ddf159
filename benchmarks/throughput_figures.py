"""The arithmetic of ``benchmarks.throughput``: trees, medians, ratios, targets, and the table that shows them.

Invariant: pure. Token counts and seconds in, figures and text out. The size of the prefix tree is counted here from
the tokens alone, with nothing of the planner that it judges.
Leaves out: how anything is measured.
"""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "TARGETS",
    "Spread",
    "Target",
    "Tree",
    "agreement",
    "label_of",
    "prefix_tree",
    "ratios",
    "spread",
    "summary",
    "table",
    "verdicts",
    "whole_seconds",
]

Tokens = Sequence[int]


@dataclass(frozen=True)
class Target:
    """What a figure of a case must reach.

    Attributes:
        case: key of the case.
        figure: name of the figure; ``{main}`` stands for the weight type that the library chose.
        relation: ``">="``, ``"<="`` or ``"<"``.
        threshold: the number on the right of it.
    """

    case: str
    figure: str
    relation: str
    threshold: float


TARGETS = (
    Target("a", "ours {main} over dspy as-is", ">=", 20.0),
    Target("a", "ours {main} over completion as-is", ">=", 4.0),
    Target("a", "ours {main} over completion {main}", ">=", 2.2),
    Target("a", "share of raw prefill", ">=", 0.90),
    Target("a", "Python's share", "<=", 0.05),
    Target("b", "ours {main} over completion as-is", ">=", 4.0),
    Target("c", "ours {main} over completion as-is", ">=", 4.0),
    Target("d", "ours {main} over labels one by one as-is", ">=", 4.0),
    Target("d", "ours {main} over labels one by one {main}", ">=", 4.0),
    Target("e", "ours {main} over completion as-is", ">=", 5.0),
    Target("e", "ours {main} over completion {main}", ">=", 5.0),
    *(Target(case, "tokens beyond the tree", "<=", 0.0) for case in "abcde"),
    *(Target(case, "tokens restored while measured", "<=", 0.0) for case in "abcde"),
    Target("first", "seconds of python -c", "<", 0.5),
    Target("first", "seconds of promptsearch predict", "<", 0.5),
)

_RELATIONS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


# -- what must be decoded -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tree:
    """The tokens that prompts and labels cannot do without.

    Attributes:
        prompts: distinct prefixes of the prompts.
        tail: distinct proper prefixes of the labels below every distinct prompt, all together.
        shared: tokens that all prompts begin with.
        depth: mean position of the tree's tokens.
    """

    prompts: int
    tail: int
    shared: int
    depth: float

    @property
    def size(self) -> int:
        """Tokens to decode where none is decoded twice."""
        return self.prompts + self.tail

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "size": self.size}


def prefix_tree(prompts: Sequence[Tokens], labels: Sequence[Tokens] = ()) -> Tree:
    """Count the prefixes of some prompts, and of the labels that are scored after each of them.

    A label's last token is predicted and never decoded, so that only its proper prefixes count.

    Args:
        prompts: tokens of each, none empty; equal ones count once.
        labels: tokens of each, none empty.
    """
    distinct = {tuple(prompt) for prompt in prompts}
    nodes, depths = _count(distinct)
    tail, tail_depths = _count({tuple(label[:-1]) for label in labels})
    depths += sum(len(prompt) * tail + tail_depths for prompt in distinct)
    size = nodes + tail * len(distinct)
    return Tree(nodes, tail * len(distinct), _shared(distinct), depths / size if size else 0.0)


def _count(paths: set[tuple[int, ...]]) -> tuple[int, int]:
    """Nodes of the tree that paths form, and the sum of their depths (0 for a first token)."""
    nodes: dict[tuple[int, int], int] = {}
    depths = 0
    for path in paths:
        node = 0
        for depth, token in enumerate(path):
            known = len(nodes)
            node = nodes.setdefault((node, token), known + 1)
            depths += depth if len(nodes) > known else 0
    return len(nodes), depths


def _shared(paths: set[tuple[int, ...]]) -> int:
    """Length of what all paths begin with: that of the first and the last in order."""
    if not paths:
        return 0
    first, last = min(paths), max(paths)
    differing = (at for at, (left, right) in enumerate(zip(first, last, strict=False)) if left != right)
    return next(differing, min(len(first), len(last)))


# -- what was measured --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """The middle of some measured values, and how far they lie apart."""

    median: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain values, ready for JSON."""
        return asdict(self)


def spread(values: Sequence[float]) -> Spread:
    """Median, least and greatest of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """How many times longer one takes, round by round, so that what slows a whole round cancels out."""
    return spread([left / right for left, right in zip(slow, fast, strict=True)])


def whole_seconds(measured: Sequence[Sequence[float]], groups: int, each: int) -> float:
    """Seconds of a whole case from a part of it.

    Prompts of one group share their beginning, which the first one of a group pays for, so that the first
    ones and the others are extrapolated each by their own mean.

    Args:
        measured: seconds of each prompt of each measured group, none empty.
        groups: groups of the whole case.
        each: prompts of a group of the whole case.
    """
    firsts = [group[0] for group in measured]
    others = [seconds for group in measured for seconds in group[1:]]
    one_group = statistics.fmean(firsts) + (each - 1) * statistics.fmean(others or firsts)
    return groups * one_group


def label_of(text: str, labels: Sequence[str]) -> int | None:
    """The label that a generated text names: that very label, or the only one that begins with it."""
    word = text.strip()
    if word in labels:
        return list(labels).index(word)
    begun = [number for number, label in enumerate(labels) if label.startswith(word)]
    return begun[0] if word and len(begun) == 1 else None


def agreement(
    ours: Sequence[Sequence[Any]], theirs: Sequence[Sequence[Any]], comparable: Callable[[Any], bool]
) -> dict[str, int]:
    """How many of their answers are ours, of those that can be compared, both by group."""
    pairs = [
        (left, right)
        for our_group, their_group in zip(ours, theirs, strict=False)
        for left, right in zip(our_group, their_group, strict=False)
    ]
    kept = [(left, right) for left, right in pairs if comparable(right)]
    same = sum(left == right for left, right in kept)
    return {"same": same, "comparable": len(kept), "asked": len(pairs)}


# -- what it is worth ---------------------------------------------------------------------------------------


def verdicts(
    case: str,
    figures: Mapping[str, Mapping[str, float]],
    main: str,
    bounds: Mapping[str, Mapping[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Each target of a case beside its figure; a figure that lacks was not measured.

    A median is what is judged: least and greatest only show how sure it is.

    Args:
        case: key of the case.
        figures: what was measured, by name.
        main: the weight type that targets are about.
        bounds: by the same names, the most that the hardware allows of some.
    """
    judged: dict[str, dict[str, Any]] = {}
    for target in TARGETS:
        if target.case != case:
            continue
        name = target.figure.format(main=main)
        figure = figures.get(name)
        reached = figure is not None and _RELATIONS[target.relation](figure["median"], target.threshold)
        verdict = "not measured" if figure is None else "pass" if reached else "FAIL"
        wanted = f"{target.relation} {target.threshold:g}"
        most = (bounds or {}).get(name)
        judged[f"{name} {wanted}"] = {
            "figure": name,
            "value": figure,
            "wanted": wanted,
            "verdict": verdict,
            "most": most,
        }
    return list(judged.values())


def table(key: str, cell: Mapping[str, Any]) -> str:
    """All of a case, for a terminal."""
    lines = [f"\n{key}  {cell['title']}"]
    if "tree" in cell:
        tree = cell["tree"]
        lines.append(
            f"prefix tree {tree['size']:,} tokens ({tree['tail']:,} of labels), {tree['shared']:,} shared by all"
        )
    lines += cell.get("notes", ())
    if cell.get("contenders"):
        lines.append(f"{'contender':<30}{'measured':>11}{'seconds of the whole':>30}{'a prompt':>12}{'tokens/s':>10}")
    for name, measured in cell.get("contenders", {}).items():
        lines.append(_contender_line(name, measured, cell["prompts"]))
    lines += [f"{name:<30}  skipped: {reason}" for name, reason in cell.get("skipped", {}).items()]
    for name, found in cell.get("agreement", {}).items():
        same, comparable, asked = (found[part] for part in ("same", "comparable", "asked"))
        lines.append(f"same answers, {name}: {same:,} of {comparable:,} that can be compared ({asked:,} asked)")
    judged = {verdict["figure"] for verdict in cell["verdicts"]}
    for name, value in cell["figures"].items():
        if name not in judged:
            lines.append(f"{name:<46}{_shown(value):>36}")
    lines += [line for verdict in cell["verdicts"] for line in _verdict_lines(verdict)]
    return "\n   ".join(lines)


def summary(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """Every target beside what was measured, for a terminal."""
    lines = [f"   {'figure':<46}{'median (least to greatest)':>36}{'wanted':>9}  verdict"]
    for key, cell in cells.items():
        lines.append(f"{key}  {cell['title']}")
        lines += [f"   {line}" for verdict in cell["verdicts"] for line in _verdict_lines(verdict)]
    return "\n".join(lines)


def _verdict_lines(verdict: Mapping[str, Any]) -> list[str]:
    """The target, and below it what the hardware allows, so that one out of reach explains itself."""
    shown = "-" if verdict["value"] is None else _shown(verdict["value"])
    lines = [f"{verdict['figure']:<46}{shown:>36}{verdict['wanted']:>9}  {verdict['verdict']}"]
    if verdict["most"] is not None:
        lines.append(f"{'  most that raw prefill allows':<46}{_shown(verdict['most']):>36}")
    return lines


def _contender_line(name: str, measured: Mapping[str, Any], prompts: int) -> str:
    seconds = measured["seconds"]
    part = f"{measured['measured_prompts']:,}/{prompts:,}"
    per_prompt = 1000 * seconds["median"] / prompts
    speed = measured.get("tokens_per_second")
    shown = "-" if speed is None else f"{speed['median']:,.0f}"
    return f"{name:<30}{part:>11}{_shown(seconds):>30}{per_prompt:>9,.1f} ms{shown:>10}"


def _shown(value: Mapping[str, float]) -> str:
    middle, low, high = (_number(value[name]) for name in ("median", "low", "high"))
    return f"{middle} ({low} to {high})"


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"
