"""Who stays in a race: paired elimination on one shared item order.

As in irace (López-Ibáñez et al. 2016), each candidate is tested against the best of its rivals on the items that
both have seen, not before some dozens of items, and without correction for many tests: a wrong elimination costs a
little of the final score, never the truth of a reported number.
Invariant: elitist. A candidate falls only to a rival that was seen on at least as many items, so a survivor of long
looks never falls to the luck of a short one.
Leaves out: who is scored next, and on what; the mean of all is compared, never a mean of different items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.errors import DataError
from promptsearch.lm.base import FloatArray
from promptsearch.search.base import Scores

__all__ = ["FIRST_TEST", "falls_to", "paired_p_value", "survivors"]

FIRST_TEST = 40
_FEW_DISCORDANT = 25  # below this the normal approximation behind a t-test of rights and wrongs is too rough


def survivors(
    scores: Mapping[Candidate, Scores], *, first_test: int = FIRST_TEST, alpha: float = 0.05
) -> list[Candidate]:
    """Candidates that no rival has beaten, in the order given.

    Args:
        scores: item scores on prefixes of one shared order.
        first_test: items that a candidate must have been seen on before it can fall, at least 2.
        alpha: chance that a test takes an equal for worse.
    """
    return [each for each in scores if falls_to(each, scores, scores, first_test=first_test, alpha=alpha) is None]


def falls_to(
    candidate: Candidate,
    rivals: Iterable[Candidate],
    scores: Mapping[Candidate, Scores],
    *,
    first_test: int = FIRST_TEST,
    alpha: float = 0.05,
) -> Candidate | None:
    """The rival that a candidate falls to, None while it stays.

    The rival is the best by mean score on the candidate's own items, equal ones by content hash.

    Args:
        candidate: who may fall.
        rivals: who it may fall to; the candidate itself and those seen on fewer items are passed over.
        scores: item scores of all of them on prefixes of one shared order.
        first_test: items that a candidate must have been seen on before it can fall, at least 2.
        alpha: chance that the test takes an equal for worse; two-sided.

    Raises:
        DataError: a first test after fewer than two items, or an alpha that is no chance.
    """
    if first_test < 2:
        raise DataError(f"first_test={first_test!r} leaves nothing to test on; give at least 2")
    if not 0 < alpha < 1:
        raise DataError(f"alpha={alpha!r} is no chance; give a number between 0 and 1, such as 0.05")
    own = scores[candidate]
    if own.items < first_test:
        return None
    usable = [rival for rival in rivals if rival != candidate and scores[rival].items >= own.items]
    if not usable:
        return None
    totals = {rival: round(float(scores[rival].values[: own.items].sum()), 9) for rival in usable}
    best = min(usable, key=lambda rival: (-totals[rival], rival.key))
    if totals[best] <= round(float(own.values.sum()), 9):
        return None
    p_value = paired_p_value(scores[best].values[: own.items], own.values)
    return best if p_value < alpha else None


def paired_p_value(ours: FloatArray, theirs: FloatArray) -> float:
    """Two-sided p-value of equal means of two sets of scores of the same items.

    McNemar's exact test where all scores are right or wrong and fewer than 25 items differ, else the paired t-test.

    Args:
        ours: item scores, shape (items,).
        theirs: scores of the same items.

    Raises:
        DataError: not as many of one as of the other, or fewer than two.
    """
    if ours.shape != theirs.shape or ours.ndim != 1 or len(ours) < 2:
        raise DataError(f"{len(ours)} and {len(theirs)} scores cannot be tested; give two or more, of the same items")
    differences = ours - theirs
    discordant = int(np.count_nonzero(differences))
    if discordant == 0:
        return 1.0
    if discordant < _FEW_DISCORDANT and np.isin(differences, (-1.0, 0.0, 1.0)).all():
        from scipy.stats import binomtest

        return float(binomtest(int((differences > 0).sum()), discordant).pvalue)
    return _t_test(differences)


def _t_test(differences: FloatArray) -> float:
    """P-value of a mean of 0; 0 where all differences are the same number other than 0."""
    from scipy.stats import t

    count = len(differences)
    error = float(differences.std(ddof=1)) / np.sqrt(count)
    mean = float(differences.mean())
    if error <= 1e-12 * abs(mean):
        return 0.0
    return float(2 * t.sf(abs(mean) / error, count - 1))
