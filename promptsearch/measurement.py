"""Numbers with their uncertainty: intervals, paired differences, p-values.

Statistics come from scipy where it has them; this module chooses which, by how often they cover on as few as thirty
items (``benchmarks/coverage.py``). The interval of a paired right-or-wrong difference is Bonett and Price's
adjusted Wald interval (J. Educ. Behav. Stat. 37, 2012): one more item that got better and one that got worse, so
that few changed items are no certainty, as a resampling interval takes them for.
Invariant: the value lies within its interval; the same scores give the same interval. Scores of a scale that reaches
beyond -1 to 1 are measured as parts of the range that they take, which has 0 and 1 in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from promptsearch.errors import DataError
from promptsearch.lm.base import FloatArray

__all__ = ["Difference", "Measurement", "measure", "measure_alike", "measure_statistic", "paired_difference"]

_LEVEL = 0.95
_NORMAL = 1.959963984540054  # the standard normal distribution's 97.5 % point
_RESAMPLES = 4000
_DRAWN_A_TIME = 2**20  # resampled scores in memory together


@dataclass(frozen=True)
class Measurement:
    """A value measured on items.

    Attributes:
        value: the value, 0 to 1 for every built-in metric.
        low: lower end of the 95 % interval.
        high: upper end.
        n: items measured.
        interval: name of the interval.
        failures: items that were wrong because they could not be parsed or did not fit, by reason.
    """

    value: float
    low: float
    high: float
    n: int
    interval: str
    failures: tuple[tuple[str, int], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The five numbers, and the failures where there are some."""
        values = asdict(self)
        failures = values.pop("failures")
        return {**values, "failures": dict(failures)} if failures else values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measurement:
        """The reverse of :meth:`to_dict`."""
        known = dict(values)
        known["failures"] = tuple((str(k), int(v)) for k, v in known.get("failures", {}).items())
        return cls(**known)

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}], n = {self.n}"


@dataclass(frozen=True)
class Difference:
    """A paired difference between two prompts on the same items.

    Attributes:
        value: mean difference.
        low: lower end of the 95 % interval.
        high: upper end.
        p_value: two-sided, McNemar's mid-p for right-or-wrong scores, else of Student's paired test.
        n: items.
        interval: name of the interval.
    """

    value: float
    low: float
    high: float
    p_value: float
    n: int
    interval: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{100 * self.value:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}], p = {self.p_value:.2g}"
        )


def measure(scores: Sequence[float] | FloatArray, failures: Mapping[str, int] | None = None) -> Measurement:
    """Mean of item scores with a 95 % interval.

    Scores that are all 0 or 1 get Wilson's interval, others a bias-corrected and accelerated bootstrap interval.

    Raises:
        DataError: no scores.
    """
    given = _scores(scores)
    least, range_ = _scale(given)
    values = (given - least) / range_
    counted = tuple(sorted((failures or {}).items()))
    if np.isin(values, (0.0, 1.0)).all():
        from scipy.stats import binomtest

        interval = binomtest(int(values.sum()), len(values)).proportion_ci(method="wilson")
        low, high, name = float(interval.low), float(interval.high), "Wilson 95 %"
    else:
        low, high, name = _bootstrap_interval(values)
    value, low, high = (least + range_ * number for number in (float(values.mean()), low, high))
    return Measurement(value, low, high, len(values), name, counted)


def measure_statistic(
    value: float, resampled: Sequence[float] | FloatArray, n: int, failures: Mapping[str, int] | None = None
) -> Measurement:
    """A statistic of a whole set (such as macro F1) with its percentile interval over resamples."""
    low, high = np.percentile(np.asarray(resampled), [2.5, 97.5])
    counted = tuple(sorted((failures or {}).items()))
    return Measurement(value, min(value, float(low)), max(value, float(high)), n, "bootstrap 95 %", counted)


def measure_alike(
    right: bool, rows_by_label: Sequence[int], failures: Mapping[str, int] | None = None
) -> Measurement:
    """Macro F1 where every row is right, or every one wrong, of which all resamples are alike.

    The interval is Wilson's, out of as many rows as would give one share the variance that the mean over labels of
    their shares has: ``labels^2 / sum(1 / rows)``, which is the number of rows where all labels have equally many.

    Args:
        right: whether they are right.
        rows_by_label: rows of each label that has any.
        failures: rows without an answer, by reason.
    """
    each = np.asarray(rows_by_label, dtype=np.float64)
    effective = len(each) ** 2 / float((1 / each).sum())
    room = _NORMAL**2 / (effective + _NORMAL**2)
    low, high = (1.0 - room, 1.0) if right else (0.0, room)
    counted = tuple(sorted((failures or {}).items()))
    return Measurement(float(right), low, high, int(each.sum()), "Wilson 95 %", counted)


def paired_difference(scores: Sequence[float] | FloatArray, others: Sequence[float] | FloatArray) -> Difference:
    """Mean of ``scores - others`` over the same items, with interval and p-value.

    Raises:
        DataError: no scores, or not as many of one as of the other.
    """
    ours, theirs = _scores(scores), _scores(others)
    if len(ours) != len(theirs):
        raise DataError(f"{len(ours)} and {len(theirs)} scores cannot be paired; score the same items")
    _, range_ = _scale(np.concatenate([ours, theirs]))
    differences = (ours - theirs) / range_
    if np.isin(differences, (-1.0, 0.0, 1.0)).all():
        low, high, name = _bonett_price(differences)
    else:
        low, high, name = _t_interval(differences)
    value, low, high = (range_ * number for number in (float(differences.mean()), low, high))
    return Difference(value, low, high, _paired_p_value(differences), len(differences), name)


def _scores(scores: Sequence[float] | FloatArray) -> FloatArray:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise DataError("a measurement needs at least one scored item; give some")
    return values


def _scale(scores: FloatArray) -> tuple[float, float]:
    """The least that scores can be, and the range from there to the most, as far as these tell.

    Scores within -1 to 1 may be differences themselves, and are taken as they are.
    """
    least, most = min(0.0, float(scores.min())), max(1.0, float(scores.max()))
    return (0.0, 1.0) if least >= -1.0 and most <= 1.0 else (least, most - least)


def _bonett_price(differences: FloatArray) -> tuple[float, float, str]:
    """Wald's interval with a gain and a loss added, within -1 to 1."""
    count = len(differences) + 2
    better = int((differences > 0).sum()) + 1
    worse = int((differences < 0).sum()) + 1
    middle = (better - worse) / count
    half = _NORMAL * math.sqrt(((better + worse) / count - middle**2) / count)
    return max(-1.0, middle - half), min(1.0, middle + half), "Bonett-Price 95 %"


def _t_interval(differences: FloatArray) -> tuple[float, float, str]:
    """Student's interval of the mean, within -1 to 1."""
    if _one_value(differences):
        return _interval_of_one_value(float(differences[0]), len(differences), -1.0)
    from scipy.stats import ttest_1samp

    found = ttest_1samp(differences, 0.0).confidence_interval(_LEVEL)
    return max(-1.0, float(found.low)), min(1.0, float(found.high)), "paired t 95 %"


def _bootstrap_interval(values: FloatArray) -> tuple[float, float, str]:
    """BCa interval of the mean; the resamples' seed is fixed, so the same scores give the same interval."""
    if _one_value(values):
        return _interval_of_one_value(float(values[0]), len(values), 0.0)
    from scipy.stats import bootstrap

    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=max(1, _DRAWN_A_TIME // len(values)),
        confidence_level=_LEVEL,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    mean = float(values.mean())
    return min(mean, float(found.low)), max(mean, float(found.high)), "bootstrap 95 %"


def _one_value(values: FloatArray) -> bool:
    return bool(np.ptp(values) < 1e-12)


def _interval_of_one_value(value: float, count: int, least: float) -> tuple[float, float, str]:
    """Interval of a mean, from ``least`` to 1, where every item seen has the same value.

    Items with another value may be as many as Clopper and Pearson's interval of none in ``count`` allows, and may
    have any value.
    """
    from scipy.stats import binomtest

    others = float(binomtest(0, count).proportion_ci(_LEVEL, method="exact").high)
    return value - others * (value - least), value + others * (1.0 - value), "Clopper-Pearson 95 %"


def _paired_p_value(differences: FloatArray) -> float:
    """McNemar's mid-p (Fagerland, Lydersen and Laake 2013, eq. 5), whose exact form is too cautious; or Student's.

    Half of the outcome's own probability counts in each tail, so that the test agrees with the interval beside it.
    Races, in which an error costs a candidate, keep to the exact test (:mod:`promptsearch.search.elimination`).
    """
    from scipy.stats import binom, ttest_1samp

    changed = differences[differences != 0]
    if len(changed) == 0:
        return 1.0
    if np.isin(changed, (-1.0, 1.0)).all() or _one_value(differences):
        better = int((changed > 0).sum())
        rarer = min(better, len(changed) - better)
        p_value = 2 * binom.cdf(rarer, len(changed), 0.5) - binom.pmf(rarer, len(changed), 0.5)
        return min(1.0, float(p_value))
    return float(ttest_1samp(differences, 0.0).pvalue)
