"""The rows of a program's optimization: which make demonstrations, which are searched on, which confirm.

Invariant: no row both makes demonstrations and is asked about; the order is drawn by seed.
Leaves out: what the rows hold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptsearch.data.splits import carve, in_turns
from promptsearch.data.text import normalised
from promptsearch.dspy.fields import written
from promptsearch.errors import DataError

__all__ = ["Rows", "digest", "plain_values", "split_rows"]

_CONFIRMED_SHARE = 0.3  # of the validation rows
_CONFIRMED = 20  # rows, where they are no more than half of the validation rows: fewer say next to nothing
_FEWEST_CONFIRMED = 6
_FEWEST_ROWS = 4
_HELD_OUT_SHARE = 0.5  # of the training rows, where no validation rows are given


@dataclass(frozen=True)
class Rows:
    """Which rows serve for what.

    Attributes:
        training: rows that demonstrations are made of.
        validation: rows that are asked about, in the order of the search, in which labels take turns; the last ones
            confirm, and have each label's share.
        search: how many of them the search sees.
    """

    training: list[Any]
    validation: list[Any]
    search: int

    @property
    def confirmed_apart(self) -> bool:
        """Whether any rows are left to confirm on."""
        return self.search < len(self.validation)

    @property
    def search_items(self) -> list[int]:
        """Numbers of the search rows."""
        return list(range(self.search))

    @property
    def confirm_items(self) -> list[int]:
        """Numbers of the rows that confirm; the search rows again where there are too few."""
        return list(range(self.search, len(self.validation))) or self.search_items


def split_rows(trainset: Sequence[Any], valset: Sequence[Any] | None, seed: int) -> Rows:
    """Training and validation rows in the order of the search.

    Rows with the same inputs are in one part, so that no row is searched on and confirms.

    Args:
        trainset: examples with marked inputs.
        valset: likewise; none, or the training rows themselves, hold out half of those. A row in both is asked about,
            unless hardly a training row would be left.
        seed: of their division and order.

    Raises:
        DataError: no rows, or too few to hold some out.
    """
    rng = np.random.default_rng([seed, 1])
    training, validation = list(trainset or ()), list(valset or ())
    if not training:
        raise DataError("the trainset has no rows; give examples that demonstrations can be made of")
    if validation:
        others, apart = _without(training, validation), _without(validation, training)
        if len(others) >= max(2, len(training) // 10):
            training = others
        elif len(apart) >= max(2, len(validation) // 10):
            validation = apart
        else:
            validation = []  # the rows are the same: half of them must be held out
    if not validation:
        groups = _groups(training)
        if len(groups) < _FEWEST_ROWS:
            raise DataError(
                f"the trainset has {len(groups)} rows with inputs of their own; give at least {_FEWEST_ROWS}, or a "
                "valset"
            )
        validation, training = _divided(training, max(2, int(_HELD_OUT_SHARE * len(groups))), seed)
    training = [training[at] for at in rng.permutation(len(training))]
    validation = [validation[at] for at in rng.permutation(len(validation))]
    groups = _groups(validation)
    size = max(int(_CONFIRMED_SHARE * len(groups)), min(_CONFIRMED, len(groups) // 2))
    confirm, search = _divided(validation, size, seed) if size >= _FEWEST_CONFIRMED else ([], validation)
    turns = in_turns(range(len(search)), _labels(search))
    return Rows(training, [*(search[at] for at in turns), *confirm], len(search))


def plain_values(row: Any) -> Any:
    """A row or the fields of a demonstration as JSON can hold them."""
    values = row.toDict() if hasattr(row, "toDict") else dict(row)
    return json.loads(json.dumps(values, default=written, ensure_ascii=False))


def digest(value: Any) -> str:
    """A hash of plain values, 32 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _without(rows: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    """The rows whose inputs no other row has."""
    known = {_inputs(row) for row in others}
    return [row for row in rows if _inputs(row) not in known]


def _groups(rows: Sequence[Any]) -> list[list[Any]]:
    """Rows with the same inputs together."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(_inputs(row), []).append(row)
    return list(groups.values())


def _divided(rows: Sequence[Any], size: int, seed: int) -> tuple[list[Any], list[Any]]:
    """The rows of so many different inputs, with each label's share, and the other rows."""
    groups = _groups(rows)
    labels = _labels([group[0] for group in groups])
    drawn, rest = carve(tuple(range(len(groups))), size, labels, seed)
    return [row for at in drawn for row in groups[at]], [row for at in rest for row in groups[at]]


def _labels(rows: Sequence[Any]) -> list[str]:
    """What tells a row's answers from another's; fields that no two rows have alike tell nothing."""
    told = [plain_values(row.labels()) for row in rows]
    names = {name for values in told for name in values}
    alike = {name for name in names if len({digest(values.get(name)) for values in told}) < len(rows)}
    return [digest({name: value for name, value in values.items() if name in alike}) for values in told]


def _inputs(row: Any) -> str:
    """What tells a row's inputs from another's."""
    values = row.inputs().toDict()
    return normalised(" ".join(written(values[name]) for name in sorted(values)))
