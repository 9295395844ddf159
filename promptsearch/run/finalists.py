"""From a candidate that raced to one that can be deployed: its calibration chosen, its weights fitted, and its worth.

Invariant: nothing here depends on a budget; answers that are not known yet are asked for.
Leaves out: which candidates get that far (:mod:`promptsearch.run.nominating`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from promptsearch.calibration import Weighing
from promptsearch.candidate import Candidate
from promptsearch.evaluation import Evaluator
from promptsearch.lm.base import FloatArray
from promptsearch.prompting import template_of
from promptsearch.scoring import ROWS_A_LABEL, Asked, Judge, Judged
from promptsearch.search.base import Scores

__all__ = ["NO_OTHERS", "Finalist", "Fitter", "Others", "race_calibration", "steadied"]


Others = Mapping[Candidate, Sequence[int]]
NO_OTHERS: Others = MappingProxyType({})


@dataclass(frozen=True)
class Finalist:
    """A candidate with the weighing fitted for it; None for free text.

    Attributes:
        candidate: the candidate, with the calibration that was chosen for it.
        weighing: the fitted weights.
        raced: the candidate as it raced; None for one that did not.
        alone: weights fitted for the prompt alone, without the prior.
        words: what ``weighing`` would be without a readout, by the labels' own words; None where it has none.
        words_alone: the same of ``alone``; None where neither has a readout.
        others: rows beyond those of the race and the confirmation that readouts were fitted on, by the prompt that
            was asked about them.
        single: for an ensemble its first prompt by itself, fitted on the same rows; None for others.
    """

    candidate: Candidate
    weighing: Weighing | None
    raced: Candidate | None = None
    alone: Weighing | None = None
    words: Weighing | None = None
    words_alone: Weighing | None = None
    others: Others = field(default_factory=dict, hash=False)
    single: Finalist | None = None

    @property
    def as_raced(self) -> Candidate:
        """The candidate as it raced, or as it is where it did not."""
        return self.raced or self.candidate


def steadied(judged: Judged) -> FloatArray:
    """Item scores that also move with the right answer's probability: fewer rows tell candidates apart by them."""
    return Scores(judged.scores, judged.confidence).steadied


def race_calibration(candidate: Candidate) -> str:
    """The calibration that a candidate races under."""
    return "none" if template_of(candidate).scores_options else candidate.calibration


class Fitter:
    """Fits and judges candidates.

    Args:
        evaluator: asks the model.
        judge: scores answers, the prior included where it may be used.
        calibrations: those of the space.

    Attributes:
        judge: scores answers as they are when deployed.
        alone: scores those of the prompt alone, without the prior.
    """

    def __init__(self, evaluator: Evaluator, judge: Judge, calibrations: Sequence[str]) -> None:
        self._evaluator = evaluator
        self.judge = judge
        self.alone = judge.without_prior()
        self._calibrations = tuple(calibrations)

    def fit(self, candidate: Candidate, items: Sequence[int], others: Others = NO_OTHERS) -> Finalist:
        """Choose the calibration and fit the weights.

        Args:
            candidate: what raced.
            items: labelled rows.
            others: further rows, for readouts alone, by the prompt that was asked about them.
        """
        if self.judge.labels is None:
            return Finalist(candidate, None, candidate)
        usable = self.usable_calibrations(candidate, items)
        weighing, words = self._best_fits(self.judge, usable, candidate, items, others)
        alone, words_alone = weighing, words
        if weighing.prior_weight > 0 or words.prior_weight > 0:  # what was fitted beside a prior leans on it
            best, by_words = self._best_fits(self.alone, usable, candidate, items, others)
            alone = best if weighing.prior_weight > 0 else weighing
            words_alone = by_words if words.prior_weight > 0 else words
        if weighing.prior_weight == 0:  # a prompt that goes without a prior does so by words as well
            words = words_alone
        chosen = replace(candidate, calibration=weighing.calibration)
        finalist = Finalist(chosen, weighing, candidate, alone, others=others)
        if weighing.readout is None and alone.readout is None:
            return finalist
        return replace(finalist, words=words, words_alone=words_alone)

    def _best_fits(
        self,
        judge: Judge,
        calibrations: Sequence[str],
        candidate: Candidate,
        items: Sequence[int],
        others: Others,
    ) -> tuple[Weighing, Weighing]:
        """Weights under the calibration that makes right labels of rows likeliest that it was not fitted on.

        A readout is taken unless another one is better by more than a standard error: it sees all that the others
        see, and few rows put others ahead by chance.

        Returns:
            The best, and the best of those that go by labels' words.
        """
        by_words = [each for each in calibrations if each != "readout"] or ["batch"]
        tried = dict.fromkeys([*calibrations, *by_words])
        asked = self._asked(candidate, items, others, tried)
        likelihoods = {each: judge.likelihoods(each, asked[each]) for each in tried}
        best = max(by_words, key=lambda each: float(likelihoods[each].mean()))
        words = judge.fit(best, asked[best])
        if "readout" not in calibrations:
            return words, words
        gains = likelihoods[best] - likelihoods["readout"]
        is_better = best in calibrations and gains.mean() > gains.std() / len(gains) ** 0.5
        return (words if is_better else judge.fit("readout", asked["readout"])), words

    def _asked(
        self, candidate: Candidate, items: Sequence[int], others: Others, calibrations: Iterable[str]
    ) -> dict[str, Asked]:
        """All that each calibration is fitted on; readouts alone are fitted on other rows too."""
        plain = Asked(items, self._evaluator.answers(candidate, items))
        found = dict.fromkeys(calibrations, plain)
        if "contextual" in found:
            found["contextual"] = replace(plain, content_free=self._evaluator.content_free(candidate))
        if "readout" in found:
            found["readout"] = self._read_by(candidate, plain, others)
        return found

    def _read_by(self, candidate: Candidate, plain: Asked, others: Others) -> Asked:
        """What a readout is fitted on: of an ensemble what was asked of each prompt."""
        if candidate.ensemble:
            members = candidate.reading.members
            parts = [Asked(plain.items, self._evaluator.answers(member, plain.items)) for member in members]
            read = [self._read_by(member, part, others) for member, part in zip(members, parts, strict=True)]
            return replace(plain, members=tuple(read))
        rows = others.get(candidate.reading, ())
        return replace(plain, others=Asked(rows, self._evaluator.answers(candidate, rows))) if rows else plain

    def judged(self, finalist: Finalist, items: Sequence[int]) -> Judged:
        """A finalist's predictions on items, asked where they are not known yet."""
        answers = self._evaluator.answers(finalist.candidate, items)
        return self.judge.judge(items, answers, finalist.weighing)

    def judged_alone(self, finalist: Finalist, items: Sequence[int]) -> Judged:
        """The same for the prompt alone, without the prior."""
        answers = self._evaluator.answers(finalist.candidate, items)
        return self.alone.judge(items, answers, finalist.alone)

    def held_out(self, finalist: Finalist, items: Sequence[int]) -> list[FloatArray]:
        """Steadied scores on rows that it was fitted on, as deployed and alone, by fits that left each out."""
        if finalist.weighing is None or finalist.alone is None:
            return [steadied(self.judged(finalist, items))]
        both = (self.judge, finalist.weighing.calibration), (self.alone, finalist.alone.calibration)
        asked = self._asked(finalist.candidate, items, finalist.others, [calibration for _, calibration in both])
        return [steadied(judge.cross_fitted(calibration, asked[calibration])) for judge, calibration in both]

    def worth(self, candidate: Candidate, rows: Sequence[int]) -> float:
        """What a prompt alone is worth on rows that it raced on, by its labels' words or by a readout."""
        answers, weights = self._evaluator.answers(candidate, rows), self.alone.weights(rows)
        scores = self.alone.scores_for_race(rows, answers, race_calibration(candidate))
        worth = float(np.average(scores.steadied, weights=weights))
        if not self.can_be_read(candidate, rows):
            return worth
        read = steadied(self.alone.cross_fitted("readout", Asked(rows, answers)))
        return max(worth, float(np.average(read, weights=weights)))

    def usable_calibrations(self, candidate: Candidate, items: Sequence[int]) -> list[str]:
        """The space's calibrations that this candidate's answers on these rows can be corrected by.

        It is ``"none"`` where options are scored: what stands first in one item's list stands elsewhere in another's.
        """
        if template_of(candidate).scores_options:
            return ["none"]
        usable = list(self._calibrations)
        is_one = candidate.mode == "static" and not candidate.ensemble and not candidate.reasons
        if not is_one and "contextual" in usable:
            usable.remove("contextual")  # inputs without content have no neighbours, and nothing to reason about
        labels = len(self.judge.labels or ())
        for each in ("matrix", "fitted"):
            is_idle = each == "matrix" and labels == 2
            if len(usable) > 1 and each in usable and (is_idle or len(items) < ROWS_A_LABEL * labels):
                usable.remove(each)
        if "readout" in usable and not self.can_be_read(candidate, items):
            usable.remove("readout")
        return usable or ["batch"]

    def may_be_read(self, candidate: Candidate) -> bool:
        """Whether a candidate is a fixed prompt that a readout could read, however few rows it was asked about."""
        if "readout" not in self._calibrations or candidate.mode != "static" or candidate.reasons:
            return False
        return not template_of(candidate).scores_options and self._evaluator.asker.reads

    def can_be_read(self, candidate: Candidate, items: Sequence[int]) -> bool:
        """Whether there is a readout; none of routed candidates, each of whose prompts leans in its own way."""
        if candidate.mode == "routed":
            return False
        asked = Asked(items, self._evaluator.answers(candidate, items))
        return self.judge.read(self._read_by(candidate, asked, NO_OTHERS)) is not None
