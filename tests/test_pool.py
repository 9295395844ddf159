from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from promptsearch.embed.base import unit_vectors
from promptsearch.errors import ArtifactError, DataError
from promptsearch.pool import MANIFEST, Neighbours, Pool


def some_vectors(count: int, dimension: int = 24, seed: int = 0) -> NDArray[np.float32]:
    return unit_vectors(np.random.default_rng(seed).normal(size=(count, dimension)))


def slow_twin(pool: Pool, queries: Any, k: int, exclude: list[int | None] | None = None) -> list[list[int]]:
    """Each query by itself, in numpy alone."""
    answers = []
    for row, query in enumerate(queries):
        similarities = (pool.vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1).astype(np.float32)
        ranked = sorted(zip(-similarities, pool.ids.tolist(), strict=True))
        skip = exclude[row] if exclude else None
        answers.append([example for _, example in ranked if example != skip][:k])
    return answers


def test_exact_search_is_numpy_argsort() -> None:
    ids = np.random.default_rng(1).permutation(900)[:600]
    pool = Pool(ids, some_vectors(600))
    queries = some_vectors(50, seed=2)
    found = pool.nearest(queries, 7)
    assert found.ids.dtype == np.int64
    assert found.similarities.dtype == np.float32
    assert found.ids.tolist() == slow_twin(pool, queries, 7)
    assert (np.diff(found.similarities, axis=1) <= 0).all()


def test_real_vectors_next_to_torch(encoder: Any) -> None:
    """FAISS and torch in one process; and a text is nearest to itself."""
    texts = [
        "a dull film",
        "a wonderful film",
        "rain tomorrow",
        "stocks fell",
        "she won the race",
        "он победил",
    ]
    vectors = encoder.encode(texts)
    pool = Pool(range(6), vectors, encoder=encoder.fingerprint)
    assert pool.nearest(vectors, 1).ids[:, 0].tolist() == list(range(6))
    assert pool.nearest(vectors[:1], 1, exclude=[0]).ids.tolist() == [[1]]


def test_a_query_never_gets_the_excluded_id() -> None:
    vectors = some_vectors(40)
    pool = Pool(np.arange(40) + 100, vectors)
    own: list[int | None] = [*range(100, 139), None]
    found = pool.nearest(vectors, 5, own)
    assert found.ids.tolist() == slow_twin(pool, vectors, 5, own)
    assert all(mine not in row for mine, row in zip(own, found.ids.tolist(), strict=True))


@pytest.mark.parametrize(
    ("k", "exclude", "columns"),
    [(0, None, 0), (3, None, 3), (9, None, 4), (9, [11, None], 3), (4, [99, None], 4), (3, [11, 12], 3)],
)
def test_fewer_than_asked(k: int, exclude: list[int | None] | None, columns: int) -> None:
    pool = Pool([10, 11, 12, 13], some_vectors(4))
    found = pool.nearest(some_vectors(2, seed=5), k, exclude)
    assert found.ids.shape == found.similarities.shape == (2, columns)
    assert set(found.ids.ravel().tolist()) <= {10, 11, 12, 13}


def test_no_queries_and_no_examples() -> None:
    assert Pool([1], some_vectors(1)).nearest(np.empty((0, 24)), 3).ids.shape == (0, 1)
    assert Pool([], np.empty((0, 24))).nearest(some_vectors(2), 3).ids.shape == (2, 0)


def test_ties_come_in_the_order_of_ids_even_where_they_outnumber_what_faiss_is_asked_for() -> None:
    vectors = np.repeat(some_vectors(2), 300, axis=0)
    ids = np.random.default_rng(3).permutation(600)
    pool = Pool(ids, vectors)
    found = pool.nearest(vectors[[0, 599]], 4)
    assert found.ids.tolist() == [sorted(ids[:300])[:4], sorted(ids[300:])[:4]]


def test_an_answer_does_not_depend_on_its_batch() -> None:
    pool = Pool(range(500), some_vectors(500, 384))
    queries = some_vectors(64, 384, seed=9)
    together = pool.nearest(queries, 10)
    for row in range(64):
        alone = pool.nearest(queries[row : row + 1], 10)
        assert alone.ids[0].tolist() == together.ids[row].tolist()
        assert alone.similarities[0].tolist() == together.similarities[row].tolist()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_small_pool_is_numpy_argsort(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    dimension = data.draw(st.integers(1, 4))
    # Small integers make many equal vectors, and zeros.
    numbers = arrays(np.float64, (count, dimension), elements=st.integers(-2, 2))
    vectors = unit_vectors(data.draw(numbers))
    ids = data.draw(st.lists(st.integers(0, 2**62), min_size=count, max_size=count, unique=True))
    pool = Pool(ids, vectors)
    k = data.draw(st.integers(1, count + 2))
    exclude = data.draw(st.lists(st.none() | st.sampled_from(ids), min_size=count, max_size=count))
    found = pool.nearest(vectors, k, exclude)
    columns = min(k, count - any(example is not None for example in exclude))
    assert found.ids.shape == (count, columns)
    assert found.ids.tolist() == slow_twin(pool, vectors, columns, exclude)


def test_above_the_limit_recall_stays_high_and_ids_are_real() -> None:
    """Recall at 10 measured on these 6,000 clustered vectors: 0.982; the floor leaves room for other BLAS."""
    random = np.random.default_rng(4)
    centres = random.normal(size=(60, 32))
    vectors = unit_vectors(centres[random.integers(0, 60, 6200)] + 0.7 * random.normal(size=(6200, 32)))
    queries, stored = vectors[:200], vectors[200:]
    approximate = Pool(range(6000), stored, approximate_above=1000)
    assert not approximate.exact
    found = approximate.nearest(queries, 10)
    truth = Pool(range(6000), stored).nearest(queries, 10)
    shared = [len(set(a) & set(b)) for a, b in zip(found.ids.tolist(), truth.ids.tolist(), strict=True)]
    assert np.mean(shared) / 10 > 0.95
    everything = approximate.nearest(queries[:2], 6000, [5, None])
    assert sorted(everything.ids[0].tolist()) == [example for example in range(6000) if example != 5]


def test_subset_keeps_the_very_vectors() -> None:
    pool = Pool([5, 3, 9], some_vectors(3), encoder="e")
    part = pool.subset([9, 5])
    assert part.ids.tolist() == [9, 5]
    assert part.encoder == "e"
    assert np.array_equal(part.vectors, pool.vectors[[2, 0]])
    assert len(pool.subset([])) == 0
    with pytest.raises(DataError, match="example 4 is not among"):
        pool.subset([4])


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        ([1, 1], some_vectors(2), "repeat"),
        ([-1, 1], some_vectors(2), "negative"),
        ([0.5, 1.0], some_vectors(2), "integers"),
        ([0, 1, 2], some_vectors(2), "for 3 ids"),
        ([0, 1], 2 * some_vectors(2), "length 2"),
        ([0], [[np.nan, 1.0]], "length nan"),
    ],
)
def test_what_is_no_pool(ids: Any, vectors: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        Pool(ids, vectors)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("queries", "k", "exclude"),
    [
        (np.zeros((2, 3)), 1, None),
        (np.zeros(24), 1, None),
        (np.full((1, 24), np.nan), 1, None),
        (np.zeros((2, 24)), 1, [1]),
        (np.zeros((2, 24)), -1, None),
    ],
)
def test_what_is_no_query(queries: Any, k: int, exclude: list[int | None] | None) -> None:
    with pytest.raises(DataError):
        Pool([0, 1], some_vectors(2)).nearest(queries, k, exclude)


def same(left: Neighbours, right: Neighbours) -> bool:
    return np.array_equal(left.ids, right.ids) and np.array_equal(left.similarities, right.similarities)


@pytest.mark.parametrize("limit", [100_000, 100])
@pytest.mark.parametrize("count", [0, 1, 800])
def test_saved_and_loaded_answers_the_same(tmp_path: Path, count: int, limit: int) -> None:
    pool = Pool(np.arange(count)[::-1] * 3, some_vectors(count), encoder="some encoder", approximate_above=limit)
    pool.save(tmp_path / "deep" / "pool")
    loaded = Pool.load(tmp_path / "deep" / "pool", encoder="some encoder")
    assert np.array_equal(loaded.vectors, pool.vectors)
    assert np.array_equal(loaded.ids, pool.ids)
    queries = some_vectors(9, seed=8)
    assert same(loaded.nearest(queries, 5), pool.nearest(queries, 5))


def test_saving_again_leaves_one_pool(tmp_path: Path) -> None:
    Pool([1, 2], some_vectors(2)).save(tmp_path)
    Pool([7], some_vectors(1)).save(tmp_path)
    assert Pool.load(tmp_path).ids.tolist() == [7]
    assert len(list(tmp_path.iterdir())) == 2


def test_an_interrupted_save_leaves_the_old_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pool([1, 2], some_vectors(2)).save(tmp_path)
    monkeypatch.setattr("promptsearch.pool.json.dumps", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Pool([7], some_vectors(1)).save(tmp_path)
    assert Pool.load(tmp_path).ids.tolist() == [1, 2]


def test_load_checks_the_encoder(tmp_path: Path) -> None:
    Pool([1], some_vectors(1), encoder="one").save(tmp_path)
    with pytest.raises(ArtifactError, match="made with encoder 'one', not 'two'"):
        Pool.load(tmp_path, encoder="two")


def test_load_checks_that_it_is_the_very_pool(tmp_path: Path) -> None:
    digest = Pool([1, 2], some_vectors(2)).save(tmp_path)
    assert Pool.load(tmp_path, digest=digest).ids.tolist() == [1, 2]
    assert Pool([1, 2], some_vectors(2)).save(tmp_path) == digest
    assert Pool([1, 2], some_vectors(2, seed=5)).save(tmp_path) != digest
    with pytest.raises(ArtifactError, match="does not hold the index"):
        Pool.load(tmp_path, digest=digest)


def edit_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest.update(changes)
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"schema": None},
        {"count": 2},
        {"count": "3"},
        {"dimension": 12},
        {"dimension": -1},
        {"ids": [1, 2]},
        {"ids": [1, 1, 2]},
        {"ids": [-1, 1, 2]},
        {"ids": [2**70, 1, 2]},
        {"ids": [True, 2, 3]},
        {"index": {}},
        {"index": None},
        {"index": {"file": "../pool.json", "bytes": 1, "sha256": ""}},
        {"index": {"file": "vectors-0123456789abcdef.faiss", "bytes": 1, "sha256": ""}},
        {"approximate_above": 0},
    ],
    ids=str,
)
def test_a_manifest_that_lies(tmp_path: Path, changes: dict[str, Any]) -> None:
    Pool([1, 2, 3], some_vectors(3)).save(tmp_path)
    edit_manifest(tmp_path, **changes)
    with pytest.raises(ArtifactError) as caught:
        Pool.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schema": 1}', b"[" * 100_000])
def test_a_manifest_that_is_none(tmp_path: Path, content: bytes) -> None:
    Pool([1], some_vectors(1)).save(tmp_path)
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError):
        Pool.load(tmp_path)


def test_no_pool_at_all(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no folder of a saved prompt's index"):
        Pool.load(tmp_path / "nothing")


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "long"])
def test_a_damaged_index(tmp_path: Path, damage: str) -> None:
    Pool([1, 2], some_vectors(2)).save(tmp_path)
    (path,) = tmp_path.glob("*.faiss")
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[20] ^= 1
        path.write_bytes({"cut": content[:-1], "flip": content, "long": content + b"x"}[damage])
    with pytest.raises(ArtifactError):
        Pool.load(tmp_path)


@pytest.mark.parametrize("position", [0, 4, 8, 38, 40, 44])
def test_an_index_that_lies_under_a_true_digest(tmp_path: Path, position: int) -> None:
    Pool([1, 2], some_vectors(2)).save(tmp_path)
    (path,) = tmp_path.glob("*.faiss")
    content = bytearray(path.read_bytes())
    content[position] ^= 0x55
    path.write_bytes(content)
    index = {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit_manifest(tmp_path, index=index)
    with pytest.raises(ArtifactError):
        Pool.load(tmp_path)


def test_importing_the_module_loads_no_faiss() -> None:
    code = "import sys, promptsearch.pool; sys.exit('faiss' in sys.modules or 'torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
