"""How often the library's 95 % intervals hold the truth, and how often its p-values cry wolf, where truth is known.

    python -m benchmarks.coverage --repeats 4000 --searches 200 --json FILE

Kinds of cells: ``accuracy`` and ``scores`` (intervals of ``measure``), ``pairs`` and ``score pairs`` (intervals and
p-values of ``paired_difference``), ``macro F1`` (a statistic of a whole set), and ``protocol``: whole calls of
``optimize`` on a synthetic world (:mod:`benchmarks.synthetic`), whose prompts are then measured on thousands of fresh
rows. A cell fails where its share of hits lies further below 95 % than binomial error explains; what an interval
is allowed beyond that is in :data:`LEAST`. No model and no clock: the same seed gives the same numbers.
Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Results, end_on_other_settings, in_points, mean_with_half_width
from benchmarks.outside import best_search_value
from benchmarks.synthetic import World, search
from promptsearch.evaluation import Answers
from promptsearch.measurement import Difference, Measurement, measure, paired_difference
from promptsearch.metrics import METRICS
from promptsearch.scoring import Judge
from promptsearch.task import Example

NOMINAL = 0.95
# What each kind covers at least, on as few items as a search measures. Wilson's interval and Bonett and Price's move
# in the steps of whole numbers; a bootstrap of few skewed scores has not seen the rare ones.
LEAST = {"accuracy": 0.92, "scores": 0.9, "pairs": 0.935, "score pairs": 0.9, "macro F1": 0.88, "protocol": NOMINAL}
ITEMS = (30, 60, 120, 300, 1000)
ACCURACIES = (0.5, 0.7, 0.9, 0.98)
CHANGES = ((0.0, 0.0), (0.01, 0.01), (0.05, 0.0), (0.05, 0.05), (0.1, 0.02), (0.2, 0.05), (0.2, 0.2), (0.3, 0.1))
WORLDS = {"prompts differ": World(), "prompts are equal": World(help=0.0)}
_THREE = ("a", "b", "c")
_MANY = 100_000  # items that settle a value
Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def _mixed(zero: float, one: float) -> Draw:
    """Scores like those of F1: some 0, some 1, the others in between."""

    def draw(rng: np.random.Generator, items: int) -> NDArray[np.float64]:
        kind = rng.random(items)
        return np.where(kind < zero, 0.0, np.where(kind < zero + one, 1.0, rng.beta(2, 1, items)))

    return draw


SCORES: dict[str, tuple[Draw, float]] = {
    "even": (lambda rng, items: rng.random(items), 0.5),
    "towards both ends": (lambda rng, items: rng.beta(0.2, 2.0, items), 1 / 11),
    "two in three wrong": (_mixed(0.65, 0.2), 0.3),
    "nine in ten wrong": (_mixed(0.9, 0.05), 0.05 + 0.05 * 2 / 3),
}
_PAIRED: dict[str, tuple[Draw, float]] = {
    "equally good": (lambda rng, items: rng.random(items) - rng.random(items), 0.0),
    "few differ, even": (_mixed(0.9, 0.03), 0.0),
    "few differ, better": (_mixed(0.9, 0.03), (0.03 + 0.07 * 2 / 3) * 0.6),
}


def main() -> None:
    """Count every cell that is not there yet, then print the table."""
    options = _options()
    settings = {"repeats": options.repeats, "seed": options.seed}
    end_on_other_settings(Path(options.json), settings)
    results = Results(Path(options.json), settings)
    for key, cell in cells(options.repeats, options.seed):
        if key not in results:
            results.add(key, cell())
    for name, world in WORLDS.items():
        for number in range(options.searches):
            key = f"search|{name}|{number}"
            if key not in results:
                results.add(key, one_search(world, options.seed + number, fresh=4000))
    print(table({**results.cells, **protocol_cells(results.cells)}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4000, help="drawn samples for each cell")
    parser.add_argument("--searches", type=int, default=200, help="searches in each synthetic world")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", required=True, help="file of results")
    return parser.parse_args()


def cells(repeats: int, seed: int) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """All cells but the searches: name, and what counts it."""
    for items in ITEMS:
        for share in ACCURACIES:
            yield f"accuracy|{share}|{items}", _later(accuracies, repeats, seed, share, items)
        for name in SCORES:
            yield f"scores|{name}|{items}", _later(scores, max(1, repeats // 4), seed, name, items)
        for better, worse in CHANGES:
            yield f"pairs|{better}, {worse}|{items}", _later(pairs, repeats, seed, better, worse, items)
        for name in _PAIRED:
            yield f"score pairs|{name}|{items}", _later(score_pairs, repeats, seed, name, items)
        if items <= 300:
            yield f"macro F1|three labels|{items}", _later(macro_f1, max(1, repeats // 40), seed, items)


def _later(
    counted: Callable[..., dict[str, Any]], repeats: int, seed: int, *values: Any
) -> Callable[[], dict[str, Any]]:
    return lambda: counted(repeats, np.random.default_rng([seed, 20]), *values)


# -- counting ---------------------------------------------------------------------------------------------------


def fewest_hits(repeats: int, nominal: float = NOMINAL, doubt: float = 1e-4) -> int:
    """Fewer hits than these come from a share of ``nominal`` with a probability under ``doubt``."""
    from scipy.stats import binom

    return int(binom.ppf(doubt, repeats, nominal))


def most_small(repeats: int, level: float = 0.05, doubt: float = 1e-4) -> int:
    """More p-values under ``level`` than these come from a true null with a probability under ``doubt``."""
    from scipy.stats import binom

    return int(binom.ppf(1 - doubt, repeats, level))


def counted(found: Sequence[Measurement | Difference], truths: float | Sequence[float]) -> dict[str, Any]:
    """Hits of intervals on the truth, one for all or one for each; sizes of p-values where all truths are 0."""
    truth = np.broadcast_to(np.asarray(truths, dtype=np.float64), len(found))
    above = np.array([each.low for each in found]) > truth + 1e-9
    below = np.array([each.high for each in found]) < truth - 1e-9
    values: dict[str, Any] = {
        "repeats": len(found),
        "hits": int((~above & ~below).sum()),
        "above": int(above.sum()),
        "below": int(below.sum()),
        "width": float(np.mean([each.high - each.low for each in found])),
        "interval": found[0].interval,
    }
    p_values = [each.p_value for each in found if isinstance(each, Difference)]
    if p_values and not truth.any():
        values["small"] = {str(level): int(np.sum(np.array(p_values) < level)) for level in (0.01, 0.05, 0.1)}
    return values


def passes(kind: str, cell: dict[str, Any]) -> bool:
    """Whether a cell covers as it should, and its p-values are not too often small."""
    enough = cell["hits"] >= fewest_hits(cell["repeats"], LEAST[kind])
    sizes = cell.get("small", {}).items()
    return enough and all(count <= most_small(cell["repeats"], float(level)) for level, count in sizes)


# -- what is drawn ----------------------------------------------------------------------------------------------


def accuracies(repeats: int, rng: np.random.Generator, share: float, items: int) -> dict[str, Any]:
    """Accuracies of items that are right with probability ``share``."""
    known: dict[int, Measurement] = {}
    for right in range(items + 1):
        known[right] = measure([1.0] * right + [0.0] * (items - right))
    return counted([known[right] for right in rng.binomial(items, share, size=repeats).tolist()], share)


def scores(repeats: int, rng: np.random.Generator, name: str, items: int) -> dict[str, Any]:
    """Means of scores between 0 and 1."""
    draw, truth = SCORES[name]
    return counted([measure(draw(rng, items)) for _ in range(repeats)], truth)


def pairs(repeats: int, rng: np.random.Generator, better: float, worse: float, items: int) -> dict[str, Any]:
    """Differences of accuracies where an item gets better, or worse, with a given probability."""
    known: dict[tuple[int, int], Difference] = {}
    found = []
    for up, down, same in rng.multinomial(items, [better, worse, 1 - better - worse], size=repeats).tolist():
        if (up, down) not in known:
            known[up, down] = paired_difference(
                [1.0] * (up + same) + [0.0] * down, [0.0] * up + [1.0] * (same + down)
            )
        found.append(known[up, down])
    return counted(found, better - worse)


def score_pairs(repeats: int, rng: np.random.Generator, name: str, items: int) -> dict[str, Any]:
    """Differences of scores between 0 and 1."""
    draw, truth = _PAIRED[name]
    up = {"equally good": 1.0, "few differ, even": 0.5, "few differ, better": 0.8}[name]
    found = []
    for _ in range(repeats):
        signs = np.where(rng.random(items) < up, 1.0, -1.0)
        changes = draw(rng, items) * signs
        ours = np.maximum(changes, 0.0)
        found.append(paired_difference(ours, ours - changes))
    return counted(found, truth)


def macro_f1(repeats: int, rng: np.random.Generator, items: int) -> dict[str, Any]:
    """Macro F1 of a classifier of three uneven labels, right three times in four."""
    metric = METRICS["macro_f1"]

    def draw(count: int) -> tuple[list[str], NDArray[np.int64]]:
        golds = rng.choice(3, size=count, p=(0.6, 0.3, 0.1))
        said = np.where(rng.random(count) < 0.75, golds, rng.integers(3, size=count))
        return [_THREE[gold] for gold in golds], said

    golds, said = draw(_MANY)
    truth = metric.aggregate([0.0] * _MANY, golds, [_THREE[each] for each in said])
    found = []
    for _ in range(repeats):
        golds, said = draw(items)
        examples = [Example(number, (("text", "x"),), gold, gold) for number, gold in enumerate(golds)]
        judge = Judge(examples, _THREE, metric, {})
        answers = Answers(np.where(np.eye(3)[said] > 0, -0.1, -3.0), (), np.ones(items, dtype=bool))
        found.append(judge.measure(range(items), judge.judge(range(items), answers, judge.plain(3))))
    return counted(found, truth)


# -- whole searches ---------------------------------------------------------------------------------------------


def one_search(world: World, seed: int, *, fresh: int, budget: str = "1500 evaluations") -> dict[str, Any]:
    """What a search reports, and what is true of its prompt."""
    found = search(world, seed, budget=budget, fresh=fresh)
    return {
        "value": found.value,
        "gain": found.gain,
        "test": found.result.test.to_dict(),
        "improvement": found.result.improvement.to_dict(),
        "validation": found.result.validation.value,
        "best_search": best_search_value(found.result),
    }


def protocol_cells(measured: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Coverage of what searches report, by world, and how far each score lies above the truth on average."""
    found: dict[str, dict[str, Any]] = {}
    for name in WORLDS:
        runs = [cell for key, cell in measured.items() if key.startswith(f"search|{name}|")]
        if not runs:
            continue
        tests = [Measurement.from_dict(run["test"]) for run in runs]
        gains = [Difference(**run["improvement"]) for run in runs]
        values = [run["value"] for run in runs]
        test = counted(tests, values)
        gain = counted(gains, [run["gain"] for run in runs])
        if name == "prompts are equal":
            gain = counted(gains, 0.0)
        above = {"test": [each.value for each in tests]}
        above |= {score: [run[score] for run in runs] for score in ("validation", "best_search")}
        test["optimism"] = {
            score: mean_with_half_width(np.subtract(seen, values).tolist()) for score, seen in above.items()
        }
        found |= {f"protocol|{name}, test|{tests[0].n}": test, f"protocol|{name}, improvement|{tests[0].n}": gain}
    return found


# -- showing ----------------------------------------------------------------------------------------------------


def table(found: dict[str, dict[str, Any]]) -> str:
    """One line a cell, with a mark where it fails."""
    lines = [f"{'':44} {'items':>5} {'covers':>7} {'width':>6}  p < 0.05"]
    for key, cell in found.items():
        kind, name, items = key.split("|")
        if kind == "search":
            continue
        size = f"{cell['small']['0.05'] / cell['repeats']:.3f}" if "small" in cell else ""
        mark = "" if passes(kind, cell) else "   FAILS"
        share = cell["hits"] / cell["repeats"]
        lines.append(f"{kind + ': ' + name:44} {items:>5} {share:7.3f} {cell['width']:6.3f}  {size}{mark}")
        for score, above in cell.get("optimism", {}).items():
            lines.append(f"    {score} above the truth: {in_points(above)} points")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
