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

    Args:
        trainset: examples with marked inputs.
        valset: likewise; none, or the training rows themselves, hold out half of those.
        seed: of their division and order.

    Raises:
        DataError: no rows, too few to hold some out, or rows that mark no inputs, or some that they do not have.
    """
    rng = np.random.default_rng([seed, 1])
    training, validation = list(trainset or ()), list(valset or ())
    for name, rows in (("trainset", training), ("valset", validation)):
        for number, row in enumerate(rows):
            if not hasattr(row, "inputs") or getattr(row, "_input_keys", None) is None:
                raise DataError(
                    f"{name} row {number} marks no inputs; make it with dspy.Example(...).with_inputs(<their names>)"
                )
            if not row.inputs().toDict():
                raise DataError(
                    f"{name} row {number} marks the inputs {', '.join(sorted(row._input_keys)) or '(none)'}, and has "
                    f"{', '.join(row.toDict())}; name some of these in .with_inputs(...)"
                )
    if not training:
        raise DataError("the trainset has no rows; give examples that demonstrations can be made of")
    if validation:
        asked = {_inputs(row) for row in validation}
        others = [row for row in training if _inputs(row) not in asked]
        if len(others) < max(2, len(training) // 10):
            validation = []  # the rows are the same: half of them must be held out
        else:
            training = others
    if not validation:
        training, validation = _held_out(training, seed)
    training = [training[at] for at in rng.permutation(len(training))]
    validation = [validation[at] for at in rng.permutation(len(validation))]
    labels = _labels(validation)
    search: tuple[int, ...] = tuple(range(len(validation)))
    confirm: tuple[int, ...] = ()
    size = max(int(_CONFIRMED_SHARE * len(validation)), min(_CONFIRMED, len(validation) // 2))
    if size >= _FEWEST_CONFIRMED:
        confirm, search = carve(search, size, labels, seed)
    order = [*in_turns(search, labels), *confirm]
    return Rows(training, [validation[at] for at in order], len(search))


def plain_values(row: Any) -> Any:
    """A row or the fields of a demonstration as JSON can hold them."""
    values = row.toDict() if hasattr(row, "toDict") else dict(row)
    return json.loads(json.dumps(values, default=written, ensure_ascii=False))


def digest(value: Any) -> str:
    """A hash of plain values, 32 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _held_out(rows: Sequence[Any], seed: int) -> tuple[list[Any], list[Any]]:
    """Rows in two halves, each with its share of every label; those with the same inputs are in one of them."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(_inputs(row), []).append(row)
    if len(groups) < _FEWEST_ROWS:
        raise DataError(
            f"the trainset has {len(groups)} rows with inputs of their own; give at least {_FEWEST_ROWS}, or a valset"
        )
    each = list(groups.values())
    half = max(2, int(_HELD_OUT_SHARE * len(each)))
    asked, shown = carve(tuple(range(len(each))), half, _labels([group[0] for group in each]), seed)
    return [row for at in shown for row in each[at]], [row for at in asked for row in each[at]]


def _labels(rows: Sequence[Any]) -> list[str]:
    """What tells a row's answers from another's."""
    return [digest(plain_values(row.labels())) for row in rows]


def _inputs(row: Any) -> str:
    """What tells a row's inputs from another's."""
    values = row.inputs().toDict()
    return normalised(" ".join(written(values[name]) for name in sorted(values)))
