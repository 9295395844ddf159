"""Numbers with their uncertainty: intervals, paired differences, p-values.

Statistics come from scipy; this module only chooses which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from promptsearch.errors import DataError
from promptsearch.lm.base import FloatArray

__all__ = ["Difference", "Measurement", "measure", "measure_statistic", "paired_difference"]

_RESAMPLES = 4000


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
        p_value: two-sided, exact McNemar for right-or-wrong scores, else Wilcoxon's signed ranks.
        n: items.
        interval: name of the interval.
    """

    value: float
    low: float
    high: float
    p_value: float
    n: int
    interval: str = "paired bootstrap"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{100 * self.value:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}], p = {self.p_value:.2g}"
        )


def measure(scores: Sequence[float] | FloatArray, failures: Mapping[str, int] | None = None) -> Measurement:
    """Mean of item scores with a 95 % interval.

    Scores that are all 0 or 1 get Wilson's interval, others a bootstrap interval of the mean.

    Raises:
        DataError: no scores.
    """
    values = _scores(scores)
    counted = tuple(sorted((failures or {}).items()))
    if np.isin(values, (0.0, 1.0)).all():
        from scipy.stats import binomtest

        interval = binomtest(int(values.sum()), len(values)).proportion_ci(method="wilson")
        low, high, name = float(interval.low), float(interval.high), "Wilson 95 %"
    else:
        low, high = _bootstrap_means(values)
        name = "bootstrap 95 %"
    return Measurement(float(values.mean()), low, high, len(values), name, counted)


def measure_statistic(
    value: float, resampled: Sequence[float], n: int, failures: Mapping[str, int] | None = None
) -> Measurement:
    """A statistic of a whole set (such as macro F1) with its percentile interval over resamples."""
    low, high = np.percentile(np.asarray(resampled), [2.5, 97.5])
    counted = tuple(sorted((failures or {}).items()))
    return Measurement(value, float(low), float(high), n, "bootstrap 95 %", counted)


def paired_difference(scores: Sequence[float] | FloatArray, others: Sequence[float] | FloatArray) -> Difference:
    """Mean of ``scores - others`` over the same items, with interval and p-value.

    Raises:
        DataError: no scores, or not as many of one as of the other.
    """
    ours, theirs = _scores(scores), _scores(others)
    if len(ours) != len(theirs):
        raise DataError(f"{len(ours)} and {len(theirs)} scores cannot be paired; score the same items")
    differences = ours - theirs
    low, high = _bootstrap_means(differences)
    return Difference(float(differences.mean()), low, high, _paired_p_value(differences), len(differences))


def _scores(scores: Sequence[float] | FloatArray) -> FloatArray:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise DataError("a measurement needs at least one scored item; give some")
    return values


def _bootstrap_means(values: FloatArray) -> tuple[float, float]:
    """Percentile interval of the mean; the resamples' seed is fixed, so the same scores give the same interval."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=_RESAMPLES)
    low, high = np.percentile(counts @ values / len(values), [2.5, 97.5])
    return float(low), float(high)


def _paired_p_value(differences: FloatArray) -> float:
    from scipy.stats import binomtest, wilcoxon

    changed = differences[differences != 0]
    if len(changed) == 0:
        return 1.0
    if np.isin(changed, (-1.0, 1.0)).all():
        return float(binomtest(int((changed > 0).sum()), len(changed)).pvalue)
    return float(wilcoxon(changed).pvalue)
