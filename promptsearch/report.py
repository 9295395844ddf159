"""Shows a result to people: a table for a terminal, and a page (HTML) to keep or pass on.

Invariant: texts of the user and of the model are data. The page escapes them, holds no script and asks no
network for anything; the table is ASCII, apart from names that are not.
Leaves out: what the numbers are, which :mod:`promptsearch.result` holds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptsearch.calibration import Weighing
from promptsearch.candidate import Candidate
from promptsearch.errors import PromptsearchError
from promptsearch.files import write_whole
from promptsearch.measurement import Difference, Measurement
from promptsearch.result import BASELINE_NAMES, Result, Trial

if TYPE_CHECKING:
    from promptsearch.prompt import Prompt

__all__ = ["text_table", "write_report"]

_WIDTH = 100
_NAME_WIDTH = 34
_FOUND = "found by the search"
_ALONE = "  the prompt alone"


# -- words that table and page share ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """A way to answer, with what it reached on the test rows."""

    name: str
    measured: Measurement
    gain: Difference | None = None
    is_winner: bool = False


def _rows(result: Result) -> list[_Row]:
    """The winner, and the baselines in the order of their usual list."""
    rows = [_Row(_FOUND, result.test, is_winner=True)]
    if result.prompt.parts.uses_prior:
        rows.append(_Row(_ALONE, result.test_without_prior, result.gain_of_prior))
    known = [name for name in BASELINE_NAMES if name in result.baselines]
    others = [name for name in result.baselines if name not in BASELINE_NAMES]
    for name in (*known, *others):
        against, shown = result.against, BASELINE_NAMES.get(name, name)
        if name.endswith("_alone"):
            beside = result.baselines.get(name.removesuffix("_alone"))
            if not result.prompt.parts.uses_prior and result.baselines[name] == beside:
                continue
            if beside is None:  # the prompt alone has a readout, and with its prior it has none
                shown = f"{_ALONE}, by words"
            against = result.against_without_prior
        rows.append(_Row(shown, result.baselines[name], against.get(name)))
    return rows


def _raced_by(result: Result) -> str:
    """What scores on search rows are called where they are not the metric's values; empty where they are."""
    metric = result.prompt.task.metric
    return "" if metric is None else metric.mean_name


def _on_search_rows(result: Result, items: int) -> str:
    return " ".join(filter(None, (_raced_by(result), f"on {items} search rows")))


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _interval(measured: Measurement | Difference, sign: str = "") -> str:
    return f"[{100 * measured.low:{sign}.1f}, {100 * measured.high:{sign}.1f}]"


def _p_value(gain: Difference) -> str:
    return "< 0.001" if gain.p_value < 0.001 else f"{gain.p_value:.3f}"


def _points(gain: Difference) -> str:
    return f"{100 * gain.value:+.1f}"


def _what_is_shown(prompt: Prompt) -> str:
    """What the winner shows the model, and how its answer is weighed."""
    candidate, weighing = prompt.candidate, prompt.weighing
    count = _count(candidate.shots)
    if candidate.shots == 0:
        shown = count
    elif candidate.mode == "retrieved":
        shown = f"{count} found for each query ({_retrieval(candidate)})"
    elif candidate.mode == "routed":
        shown = f"{len(candidate.routes)} clusters of queries, {count} for each at most"
    else:
        shown = f"{count}, the same for every query"
    parts = [shown, *_wording(candidate)]
    if candidate.ensemble:
        others = "; ".join(f"{_count(each.shots)}, {', '.join(_wording(each))}" for each in candidate.ensemble)
        more = "prompt" if len(candidate.ensemble) == 1 else "prompts"
        parts.append(f"read together with {len(candidate.ensemble)} more {more} ({others})")
    if candidate.reasons:
        kinds = {"cue": "step by step", "gold": "as written examples do", "self": "as it wrote itself"}
        votes = f", {candidate.samples} samples vote" if candidate.samples > 1 else ""
        parts.append(f"reasons {kinds[candidate.reasoning]}, {candidate.thinking_tokens} tokens at most{votes}")
    if weighing is not None:
        parts.append(f"calibration {weighing.calibration}{_readout(weighing)}")
        prior = prompt.parts.prior
        if prior is not None and prompt.parts.uses_prior:
            parts.append(f"prior ({prior.description}) with weight {weighing.prior_weight:.2g}")
    return "; ".join(parts)


def _count(shots: int) -> str:
    return f"{shots} demonstration{'' if shots == 1 else 's'}" if shots else "no demonstrations"


def _wording(candidate: Candidate) -> list[str]:
    """Template and names."""
    names = [name for name in (candidate.input_name, candidate.output_name) if name]
    named = [f"with the names {' and '.join(map(repr, names))}"] if names else []
    return [f"template {candidate.template}", *named]


def _readout(weighing: Weighing) -> str:
    """What a readout reads; empty without one."""
    readout = weighing.readout
    if readout is None:
        return ""
    return f" (labels told by {len(readout.tokens)} next tokens, fitted on {readout.rows:,} rows)"


def _retrieval(candidate: Candidate) -> str:
    """How demonstrations are found and stand."""
    parts = [f"by {candidate.retriever}", candidate.order.replace("-", " ")]
    if candidate.among:
        parts.insert(1, f"among {len(candidate.among)} that did well")
    if candidate.reranker != "none":
        parts.insert(1, f"chosen by the model ({candidate.reranker})")
    return ", ".join(parts)


def _alone(result: Result) -> str:
    """What the prompt gains by itself; empty where there is no prior."""
    if not result.prompt.parts.uses_prior:
        return ""
    return f"{result.improvement_without_prior} over zero-shot, for the prompt alone, without the prior"


def _finalists(result: Result) -> str:
    """What the winner was chosen over, and by how much; empty where nothing else was confirmed."""
    others = result.insights.runners_up
    if not others:
        return ""
    numbers = {trial.candidate: trial.number for trial in result.trials}
    winner = result.prompt.candidate.reading
    found = next((f"#{trial.number}: " for trial in result.trials if trial.candidate.reading == winner), "")
    shown = found + "; ".join(
        f"{_points(other.lead)} points {_interval(other.lead, '+')} over {_finalist(other.candidate, numbers)} at "
        f"{other.tokens:,.0f} tokens a query"
        for other in others
    )
    scored = (
        "" if result.prompt.task.labels is None else ", halfway between accuracy and the right label's probability"
    )
    return f"{shown} (on all {others[0].lead.n:,} search and confirmation rows{scored})"


def _chosen(result: Result) -> str:
    """The same as a sentence of the page."""
    shown = _finalists(result)
    return f"The prompt's lead over the other finalists: {shown}" if shown else ""


def _finalist(candidate: Candidate, numbers: Mapping[Candidate, int]) -> str:
    if candidate.ensemble:
        return f"{len(candidate.members)} prompts together"
    number = numbers.get(candidate)
    name = "" if number is None else f"#{number}, "
    return f"{name}{candidate.mode}, {_count(candidate.shots)}, template {candidate.template}"


def _order(result: Result) -> str:
    """How much order alone moves the score of the winning set; empty where it was tried in too few other orders."""
    effect, own = result.insights.order, result.insights.winner_order
    if effect is None:
        return ""
    winner = "" if own is None else f"; the winner's own order, chosen by these rows, scores {100 * own:.1f} %"
    return f"beside the orders that the search chose, {effect}, {_on_search_rows(result, effect.items)}{winner}"


def _front(result: Result) -> str:
    """The prompts that are worth their tokens."""
    points = [f"{point.tokens:,.0f} tokens {_percent(point.value.value)}" for point in result.front]
    return f"{', '.join(points)} ({_on_search_rows(result, result.insights.front_items)}, too high for the best)"


def _reasoning(result: Result) -> str:
    """Whether the prompt reasons, what that gained and cost, and what became of reasoning that the model wrote."""
    effect, fates = result.insights.reasoning, result.facts.get("rationales", {})
    parts = []
    if result.prompt.candidate.reasons and "without_reasoning" in result.against:
        parts.append(f"on: {result.against['without_reasoning']} over the same prompt without, on the test rows")
    elif effect is not None:
        parts.append("on" if result.prompt.candidate.reasons else "off")
    if effect is not None:
        name = _raced_by(result)
        parts.append(f"in {name}, {effect}" if name else str(effect))
    if fates:
        parts.append("written by the model: " + ", ".join(f"{count} {fate}" for fate, count in fates.items()))
    return "; ".join(parts)


def _predictors(result: Result) -> str:
    """What predicted measured scores, and whether it was let decide what to try."""
    found = [str(each) for each in (result.insights.surrogate, result.insights.datamodel) if each is not None]
    return "; ".join(found)


def _failures(measured: Measurement) -> str:
    """Items that count as wrong because there was no answer; empty where there are none."""
    if not measured.failures:
        return ""
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in measured.failures)
    total = sum(count for _, count in measured.failures)
    return f"{total:,} test rows without an answer count as wrong ({reasons})"


def _stopped_by(result: Result) -> str:
    """What ended the search, after "stopped"."""
    reasons = {"strategy": "when the strategy had no more to try that it could pay for", "interrupt": "by Ctrl-C"}
    for unit in ("seconds", "tokens", "evaluations"):
        reasons[unit] = f"when its share of the budget in {unit} was spent"
    return reasons.get(result.stopped_by, result.stopped_by)


def _rows_used(result: Result) -> str:
    """How the rows were divided, and how many were left out because they stand elsewhere too."""
    rows, removed = result.facts.get("rows", {}), result.facts.get("duplicates_removed", {})
    if not rows:
        return ""
    names = {"pool": "to show", "search": "to search", "confirm": "to confirm", "test": "to test"}
    read = {"confirm": result.validation.n, "test": result.facts.get("test_rows_measured", rows["test"])}
    shown = ", ".join(
        f"{rows[name]:,} {words}" + (f" ({read[name]:,} read)" if read.get(name, rows[name]) < rows[name] else "")
        for name, words in names.items()
    )
    further, left_out = result.facts.get("further_rows", 0), sum(removed.values())
    shown += f", {further:,} whose characters alone the prior learns from" if further else ""
    return shown + (f"; {left_out:,} left out as repeated or nearly so" if left_out else "")


def _cost(result: Result) -> str:
    cost = result.cost
    return (
        f"{cost.tokens:,} tokens, {cost.evaluations:,} evaluations, {cost.calls:,} model calls, "
        f"{cost.total_seconds:,.0f} s"
    )


def _phases(result: Result) -> str:
    return ", ".join(f"{phase} {seconds:,.1f}" for phase, seconds in result.cost.seconds.items())


# -- the table ----------------------------------------------------------------------------------------------


def text_table(result: Result) -> str:
    """What ``print(result)`` shows: plain text, at most 100 characters wide."""
    test = result.test
    metric = result.prompt.task.metric_name
    parts = [
        _wrapped(f"{metric} {_percent(test.value)} {_interval(test)}, {test.interval}, on {test.n:,} test rows"),
        "",
        *_aligned(_cells(result)),
        "",
        *_facts_lines(result),
    ]
    if result.notes:
        parts += ["", *(_wrapped(f"! {note}", indent="  ") for note in result.notes)]
    return "\n".join(parts)


def _cells(result: Result) -> list[Sequence[str]]:
    cells: list[Sequence[str]] = [("prompt", "test", "95 % interval", "gain over it", "95 % interval", "p")]
    for row in _rows(result):
        gain = row.gain
        more = ("", "", "") if gain is None else (_points(gain), _interval(gain, "+"), _p_value(gain))
        cells.append((row.name[:_NAME_WIDTH], _percent(row.measured.value), _interval(row.measured), *more))
    return cells


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Columns under their heads, the first one to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = []
    for row in cells:
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([first, *rest]).rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _facts_lines(result: Result) -> list[str]:
    """One line a fact, the fact's name in a column of its own."""
    tried = len(result.trials)
    facts = {
        "improvement": f"{result.improvement} over zero-shot",
        "alone": _alone(result),
        "validation": f"{result.validation} (chosen by it and by search rows: not a result)",
        "failures": _failures(result.test),
        "rows": _rows_used(result),
        "prompt": _what_is_shown(result.prompt),
        "model": str(result.facts.get("model", result.prompt.model)),
        "chosen": _finalists(result),
        "reasoning": _reasoning(result),
        "order": _order(result),
        "front": _front(result),
        "predictors": _predictors(result),
        "tried": f"{tried:,} candidate{'s' * (tried != 1)}; the search stopped {_stopped_by(result)}",
        "cost": f"{_cost(result)} ({_phases(result)})",
    }
    width = max(map(len, facts)) + 2
    return [_wrapped(f"{name:<{width}}{text}", indent=" " * width) for name, text in facts.items() if text]


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False)


# -- the page -----------------------------------------------------------------------------------------------


def write_report(result: Result, path: str | Path) -> Path:
    """Write one self-contained page.

    Args:
        result: what to show.
        path: the file; missing folders are made.

    Returns:
        The file's path.
    """
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = _percent
    source = files("promptsearch").joinpath("report.html.jinja").read_text("utf-8")
    target = Path(path)
    write_whole(target, environment.from_string(source).render(_page(result)) + "\n")
    return target


def _page(result: Result) -> dict[str, Any]:
    """Everything that the template shows; it only lays out."""
    query, text = _one_prompt(result.prompt)
    return {
        "result": result,
        "task": result.prompt.task,
        "bars": [_bar(row) for row in _rows(result)],
        "interval": _interval,
        "what_is_shown": _what_is_shown(result.prompt),
        "failures": _failures(result.test),
        "insights": [
            text
            for text in (
                _chosen(result),
                _reasoning(result),
                _order(result),
                _front(result),
                _predictors(result),
            )
            if text
        ],
        "stopped_by": _stopped_by(result),
        "query": query,
        "prompt_text": text,
        "demonstrations": result.prompt.demonstrations,
        "reasons": result.prompt.candidate.reasoning in ("gold", "self"),
        "scatter": _scatter(result),
        "raced_by": _raced_by(result),
        "cost": _cost(result),
        "facts": list(_flat(result.facts)),
    }


def _one_prompt(prompt: Prompt) -> tuple[Mapping[str, str], str]:
    """An item that the prompt cannot show as a demonstration, and the exact prompt for it."""
    shown = prompt.parts.examples
    found = next((example for example in reversed(prompt.task.examples) if example.id not in shown), None)
    query = {column: f"<{column}>" for column in prompt.task.inputs} if found is None else found.fields
    try:
        return query, prompt.render(query)
    except PromptsearchError as error:
        return query, f"It cannot be shown: {error}"


def _bar(row: _Row) -> dict[str, Any]:
    """A row with the places of its interval on an axis from 0 to 100."""
    measured, gain = row.measured, row.gain
    low, value, high = (round(100 * each, 2) for each in (measured.low, measured.value, measured.high))
    return {
        "name": row.name.strip(),
        "is_winner": row.is_winner,
        "measured": measured,
        "low": low,
        "value": value,
        "width": round(max(0.0, high - low), 2),
        "gain": "" if gain is None else f"{_points(gain)} {_interval(gain, '+')}",
        "p": "" if gain is None else _p_value(gain),
    }


_PLOT_WIDTH, _PLOT_HEIGHT = 640.0, 260.0


def _scatter(result: Result) -> dict[str, Any]:
    """Trials as places in a plot of value against tokens before the query."""
    trials = result.trials
    most = max((trial.prompt_tokens for trial in trials), default=0.0)
    right = _round_up(most)
    winner = result.prompt.candidate
    return {
        "points": [_point(trial, right, winner.reading == trial.candidate.reading) for trial in trials],
        "tokens": [(round(_PLOT_WIDTH * step / 4, 1), f"{right * step / 4:,.0f}") for step in range(5)],
        "values": [(round(_PLOT_HEIGHT * (1 - step / 4), 1), f"{25 * step} %") for step in range(5)],
    }


def _point(trial: Trial, right: float, is_winner: bool) -> dict[str, Any]:
    items = f"{trial.items:,} row{'' if trial.items == 1 else 's'}"
    return {
        "x": round(_PLOT_WIDTH * trial.prompt_tokens / right, 1),
        "y": round(_PLOT_HEIGHT * (1 - min(1.0, max(0.0, trial.value))), 1),
        "radius": round(2.0 + min(3.0, trial.items / 40), 1),
        "kind": "winner" if is_winner else trial.candidate.mode,
        "title": (
            f"#{trial.number} {trial.candidate.mode}, {trial.candidate.shots} shown, "
            f"{'reasoning, ' if trial.candidate.reasons else ''}template {trial.candidate.template}: "
            f"{_percent(trial.value)} on {items}; "
            f"{trial.prompt_tokens:,.0f} tokens"
        ),
    }


def _round_up(value: float) -> float:
    """The next number of the kind 4, 8, 20, 40, 80, 200 …, which four steps divide evenly."""
    step = 4.0
    while True:
        for factor in (1, 2, 5):
            if step * factor >= value:
                return step * factor
        step *= 10


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _flat(facts: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    """Facts as pairs of words, nested ones with their parent's name before them."""
    for name, value in facts.items():
        words = f"{before}{str(name).replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{words}: ")
        else:
            is_count = isinstance(value, int) and name != "seed"
            yield words, f"{value:,}" if is_count else _figure(value) if isinstance(value, float) else str(value)
