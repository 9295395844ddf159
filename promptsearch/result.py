"""What a search found, with the numbers that say how good it is and what it cost.

Invariant: ``Result.test`` was measured on rows that no choice saw; every baseline was measured on the same rows.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptsearch.budget import Cost
from promptsearch.candidate import Candidate
from promptsearch.measurement import Difference, Measurement
from promptsearch.prompt import Prompt
from promptsearch.search.front import FrontPoint
from promptsearch.search.insights import Insights

if TYPE_CHECKING:
    import pandas

__all__ = ["BASELINE_NAMES", "Result", "Trial", "Trials"]

BASELINE_NAMES = {
    "without_readout": "the same by labels' own words",
    "without_readout_alone": "  the prompt alone",
    "single": "the first of its prompts",
    "single_alone": "  the prompt alone",
    "zero_shot": "zero-shot",
    "zero_shot_calibrated": "zero-shot, calibrated",
    "without_reasoning": "the same without reasoning",
    "without_reasoning_calibrated": "the same, calibrated",
    "random": "random demonstrations",
    "random_calibrated": "random demonstrations, calibrated",
    "nearest": "nearest demonstrations",
    "nearest_calibrated": "nearest demonstrations, calibrated",
    "zero_shot_options": "zero-shot, texts of options",
    "random_options": "random, texts of options",
    "label_vote": "label vote of neighbours, no model",
    "prior_only": "prior alone, no model",
}


@dataclass(frozen=True)
class Trial:
    """A candidate that was tried.

    Attributes:
        number: order of appearance, from 0.
        candidate: what was tried.
        items: search items that it was scored on.
        value: mean score on them, which is accuracy where the metric is macro F1; too high for a winner, since
            winners are chosen by it.
        confidence: mean probability of the right answer on them.
        prompt_tokens: expected tokens before the query.
    """

    number: int
    candidate: Candidate
    items: int
    value: float
    confidence: float
    prompt_tokens: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values in one flat row."""
        values = self.candidate.to_dict()
        values["demonstrations"] = _spaced(self.candidate.demonstrations)
        values["routes"] = " | ".join(map(_spaced, self.candidate.routes))
        values["among"] = _spaced(self.candidate.among)
        return {
            "number": self.number,
            "items": self.items,
            "value": self.value,
            "confidence": self.confidence,
            "prompt_tokens": self.prompt_tokens,
            **values,
        }


def _spaced(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))


class Trials(list[Trial]):
    """All trials, in order of appearance."""

    def to_pandas(self) -> pandas.DataFrame:
        """A table of one row a trial."""
        import pandas

        return pandas.DataFrame([trial.to_dict() for trial in self])


@dataclass(frozen=True, repr=False)
class Result:
    """What :func:`promptsearch.optimize` returns.

    Attributes:
        prompt: the prompt to deploy.
        test: its value on the test rows.
        test_without_prior: the prompt alone, without the prior; equal to ``test`` where that has no weight.
        validation: its value on the confirmation rows, by which it was chosen; not a result.
        baselines: other ways to answer, measured on the same test rows; see :data:`BASELINE_NAMES`.
        improvement: paired difference to zero-shot on the test rows.
        against: paired difference to each baseline on the test rows. Where a readout tells the labels, one of them is
            ``"without_readout"``, the same prompt by its labels' own words; ``"without_readout_alone"`` is that
            without the prior.
        improvement_without_prior: the same as ``improvement`` for the prompt alone.
        against_without_prior: the same as ``against`` for the prompt alone.
        gain_of_prior: paired difference between the prompt with the prior and alone.
        trials: everything that was tried.
        insights: the front of accuracy against prompt tokens, how much order matters, what predicted what, and which
            finalists the prompt was chosen over.
        cost: tokens, calls, and seconds by phase.
        stopped_by: what ended the search: "seconds", "tokens", "evaluations", "interrupt" or "strategy".
        facts: model, weights, encoder, splits, duplicates removed, plan, seed: what a report should say.
        notes: what a person must know before trusting the prompt.
    """

    prompt: Prompt
    test: Measurement
    test_without_prior: Measurement
    validation: Measurement
    baselines: Mapping[str, Measurement]
    improvement: Difference
    against: Mapping[str, Difference]
    improvement_without_prior: Difference
    against_without_prior: Mapping[str, Difference]
    gain_of_prior: Difference
    trials: Trials
    insights: Insights
    cost: Cost
    stopped_by: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what ``promptsearch optimize --json`` prints."""
        candidate = self.prompt.candidate
        return {
            "test": self.test.to_dict(),
            "test_without_prior": self.test_without_prior.to_dict(),
            "validation": self.validation.to_dict(),
            "baselines": {name: value.to_dict() for name, value in self.baselines.items()},
            "improvement": self.improvement.to_dict(),
            "against": {name: difference.to_dict() for name, difference in self.against.items()},
            "improvement_without_prior": self.improvement_without_prior.to_dict(),
            "against_without_prior": {
                name: difference.to_dict() for name, difference in self.against_without_prior.items()
            },
            "gain_of_prior": self.gain_of_prior.to_dict(),
            "demonstrations": [
                {"inputs": dict(shown.inputs), "output": shown.output}
                | ({"rationale": shown.rationale} if candidate.reasons else {})
                for shown in self.prompt.demonstrations
            ],
            "mode": candidate.mode,
            "shots": candidate.shots,
            "insights": self.insights.to_dict(),
            "cost": self.cost.to_dict(),
            "stopped_by": self.stopped_by,
            "facts": dict(self.facts),
            "notes": list(self.notes),
            "prompt": None,
        }

    @property
    def front(self) -> tuple[FrontPoint, ...]:
        """Prompts that no other beats in both accuracy and prompt tokens, cheapest first.

        ``index`` is a trial's number. Measured on search rows, so that the best values are too high.
        """
        return self.insights.front

    def report(self, path: str | Path) -> Path:
        """Write a page (HTML) that shows the result; it needs no network and runs no script."""
        from promptsearch.report import write_report

        return write_report(self, Path(path))

    def __repr__(self) -> str:
        return f"<Result {self.test} on test rows, {self.prompt!r}>"

    def _repr_html_(self) -> str:
        """What notebooks show."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def __str__(self) -> str:
        from promptsearch.report import text_table

        return text_table(self)
