"""What all selectors promise, and selections by chance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selection_data import DYADIC, TEXTS, TokenTable, dyadic_examples, dyadic_queries, random_queries, rng

from promptsearch.errors import DataError, PromptsearchError, UserError
from promptsearch.select.base import Examples, Queries, Selector, first_best
from promptsearch.select.drawn import Balanced, Random
from promptsearch.select.registry import IGNORE_QUERIES, SELECTORS, selector

counts = st.integers(0, 10)


@pytest.mark.parametrize("name", SELECTORS)
@given(examples=dyadic_examples(), queries=dyadic_queries(), count=counts)
def test_a_selection(name: str, examples: Examples, queries: Queries, count: int) -> None:
    chosen = selector(name, examples).select(queries, count, rng())
    assert len(chosen) == len(set(chosen)) == min(count, len(examples))
    assert set(chosen) <= set(examples.ids.tolist())
    assert all(type(each) is int for each in chosen)


@pytest.mark.parametrize("name", SELECTORS)
@given(examples=dyadic_examples(), queries=st.lists(dyadic_queries(), min_size=1, max_size=3), data=st.data())
def test_nothing_else_matters(name: str, examples: Examples, queries: list[Queries], data: st.DataObject) -> None:
    """Neither what was asked before nor the order of the examples."""
    order = np.array(data.draw(st.permutations(range(len(examples)))), dtype=np.intp)
    shuffled = Examples(
        examples.ids[order],
        examples.vectors[order],
        examples.labels[order],
        tuple(examples.texts[row] for row in order),
        examples.tokens,
    )
    used = selector(name, examples)
    for asked in queries:
        count = data.draw(counts)
        chosen = used.select(asked, count, rng())
        assert chosen == selector(name, shuffled).select(asked, count, rng())


@pytest.mark.parametrize("name", sorted(SELECTORS.keys() - {"k-means"}))
@given(examples=dyadic_examples(), queries=dyadic_queries(), count=counts)
def test_a_short_selection_is_the_beginning_of_a_longer_one(
    name: str, examples: Examples, queries: Queries, count: int
) -> None:
    prepared = selector(name, examples)
    longer = prepared.select(queries, len(examples), rng())
    assert prepared.select(queries, count, rng()) == longer[:count]


@pytest.mark.parametrize("name", SELECTORS)
def test_many_queries_and_one_query(name: str) -> None:
    """Queries matter to those that look at them, and two queries count the same."""
    generator = np.random.default_rng(3)
    rows = generator.integers(0, 24, 60)
    texts = tuple(TEXTS[row] for row in generator.integers(2, len(TEXTS), 60))
    examples = Examples(np.arange(60), DYADIC[rows], generator.integers(0, 3, 60), texts, TokenTable())
    prepared = selector(name, examples)
    one = Queries(DYADIC[[0]], ("good film",))
    other = Queries(DYADIC[[5]], ("long 电影 film",))
    answers = [prepared.select(asked, 5, rng()) for asked in (one, other)]
    assert (answers[0] == answers[1]) == (name in IGNORE_QUERIES)
    both = [
        Queries(DYADIC[[0, 5]], ("good film", "long 电影 film")),
        Queries(DYADIC[[5, 0]], ("long 电影 film", "good film")),
    ]
    assert prepared.select(both[0], 5, rng()) == prepared.select(both[1], 5, rng())


ELSEWHERE = """
import json, numpy as np
from selection_data import DYADIC, TEXTS, TokenTable, random_examples, rng
from promptsearch.select.base import Examples, Queries
from promptsearch.select.registry import SELECTORS, selector
from test_select import selections
print(json.dumps(selections()))
"""


def selections() -> dict[str, list[list[int]]]:
    generator = np.random.default_rng(1)
    vectors = np.concatenate([random_queries(1, 40, 4).vectors, DYADIC])
    n = len(vectors)
    texts = tuple(" ".join(TEXTS[row] for row in generator.integers(0, len(TEXTS), 3)) for _ in range(n))
    examples = Examples(np.arange(n)[::-1], vectors, generator.integers(0, 4, n), texts, TokenTable())
    asked = (Queries.none(), Queries(vectors[:1], texts[:1]), Queries(vectors[:9], texts[:9]))
    return {
        name: [list(selector(name, examples).select(queries, 12, rng())) for queries in asked] for name in SELECTORS
    }


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_same_in_another_process(hash_seed: str) -> None:
    here = Path(__file__).resolve().parent
    path = os.pathsep.join([str(here), str(here.parent)])
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": hash_seed},
    )
    assert json.loads(done.stdout) == selections()


def test_making_selectors_loads_no_library() -> None:
    code = (
        "import sys; from selection_data import random_examples\n"
        "from promptsearch.select.registry import SELECTORS\n"
        "[SELECTORS[name](random_examples(0, 9)) for name in SELECTORS if name != 'coverage']\n"
        "print(sorted({'bm25s', 'sklearn', 'torch', 'faiss', 'scipy'} & set(sys.modules)))"
    )
    here = Path(__file__).resolve().parent
    path = os.pathsep.join([str(here), str(here.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", SELECTORS)
def test_what_cannot_be_selected(name: str) -> None:
    examples = Examples(np.arange(3), DYADIC[:3], np.zeros(3, dtype=np.int64), ("a",) * 3, TokenTable())
    prepared: Selector = selector(name, examples)
    with pytest.raises(DataError, match="count=-1"):
        prepared.select(Queries.none(), -1, rng())
    if name not in IGNORE_QUERIES:
        with pytest.raises(DataError, match="5 dimensions and the examples 4"):
            prepared.select(Queries(np.zeros((1, 5), dtype=np.float32), ("a",)), 1, rng())


def test_unknown_selector() -> None:
    with pytest.raises(UserError, match="'best' is unknown; give one of random"):
        selector("best", Examples(np.arange(0), DYADIC[:0], np.arange(0), ()))


@pytest.mark.parametrize(
    ("ids", "vectors", "labels", "texts", "message"),
    [
        ([1, 1], DYADIC[:2], [0, 0], ("", ""), "1 ids repeat"),
        ([1, 2], DYADIC[:3], [0, 0], ("", ""), "2 ids, 3 vectors"),
        ([1, 2], DYADIC[0, :2], [0, 0], ("", ""), "shape"),
    ],
)
def test_what_are_no_examples(
    ids: list[int], vectors: np.ndarray, labels: list[int], texts: tuple[str, ...], message: str
) -> None:
    with pytest.raises(PromptsearchError, match=message):
        Examples(np.array(ids), vectors, np.array(labels), texts)


def test_what_are_no_queries() -> None:
    with pytest.raises(DataError, match="for 2 texts"):
        Queries(DYADIC[:1], ("a", "b"))


# --- by chance ---


@given(dyadic_examples(1), st.integers(0, 10), st.integers(0, 1000))
def test_balanced_classes_are_never_more_than_one_apart(examples: Examples, count: int, seed: int) -> None:
    label_of = dict(zip(examples.ids.tolist(), examples.labels.tolist(), strict=True))
    there = Counter(label_of.values())
    chosen = Balanced(examples).select(Queries.none(), count, np.random.default_rng(seed))
    for end in range(len(chosen) + 1):
        taken = Counter(label_of[each] for each in chosen[:end])
        most = max(taken.values(), default=0)
        assert all(taken[label] >= min(most - 1, there[label]) for label in there)


def test_chance_is_even() -> None:
    """Chi-square with 5 degrees of freedom stays under 25.7 in all but one of ten thousand generators."""
    examples = Examples(np.arange(6), DYADIC[:6], np.array([0, 0, 0, 1, 1, 2]), ("",) * 6)
    generator = np.random.default_rng(0)
    draws = 1200
    firsts = Counter(Random(examples).select(Queries.none(), 1, generator)[0] for _ in range(draws))
    assert sum((firsts[each] - draws / 6) ** 2 / (draws / 6) for each in range(6)) < 25.7
    balanced = Counter(Balanced(examples).select(Queries.none(), 1, generator)[0] for _ in range(draws))
    wanted = {0: 1 / 9, 1: 1 / 9, 2: 1 / 9, 3: 1 / 6, 4: 1 / 6, 5: 1 / 3}
    assert sum((balanced[each] - draws * p) ** 2 / (draws * p) for each, p in wanted.items()) < 25.7


def test_only_balanced_knows_labels() -> None:
    """With every label changed all others choose the same."""
    known = selections()
    generator = np.random.default_rng(9)
    vectors = random_queries(1, 30, 4).vectors
    texts = tuple(TEXTS[row] for row in generator.integers(0, len(TEXTS), 30))
    asked = Queries(vectors[:2], texts[:2])
    for name in known:
        chosen = {
            selector(name, Examples(np.arange(30), vectors, labels, texts, TokenTable())).select(asked, 6, rng())
            for labels in (np.zeros(30, dtype=np.int64), np.repeat([0, 1, 2], [1, 2, 27]))
        }
        assert len(chosen) == (2 if name == "balanced" else 1), name


def test_first_best_takes_the_first_of_what_is_equal_but_for_rounding() -> None:
    assert first_best(np.array([-np.inf, 0.3, 0.1 + 0.2, 0.3])) == 1
    assert first_best(np.array([0.3, 0.3 + 1e-6])) == 1
