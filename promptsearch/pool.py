"""The examples that demonstrations are retrieved from: their ids, their vectors, and a FAISS index over them.

FAISS proposes, this module decides: the proposals' similarities are computed again in double precision, each
pair by itself, and sorted by (similarity, id). So an answer does not depend on which other queries were asked
with it, equal vectors come in the order of their ids, and up to ``APPROXIMATE_ABOVE`` rows the answer is the
exact one. Above that an inverted-file index answers approximately, with a recall that was measured while it
was built.
Left out: texts and labels (the task has them) and the encoder (it is known here by its fingerprint).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptsearch.errors import ArtifactError, DataError
from promptsearch.files import write_whole
from promptsearch.optional import require

__all__ = ["APPROXIMATE_ABOVE", "Neighbours", "Pool"]

APPROXIMATE_ABOVE = 100_000
"""Rows up to which search is exact: there one query takes a few milliseconds."""

SCHEMA = 1
MANIFEST = "pool.json"

_UNIT_TOLERANCE = 1e-3
_FAISS_ERROR = 1e-5  # float32 inner products of unit vectors, whichever way FAISS adds them up
_OVERFETCH = 16
_NUMBERS_A_BLOCK = 8_000_000  # of gathered vectors held at once: 64 MB in double precision

_RECALL_SAMPLE = 256
_RECALL_DEPTH = 10
_RECALL_WANTED = 0.98
_ROWS_A_CENTROID = 64


@dataclass(frozen=True)
class Neighbours:
    """What ``Pool.nearest`` found, from the most similar to the least.

    Attributes:
        ids: example ids, shape (q, columns), int64.
        similarities: inner products in [-1, 1], shape (q, columns), float32.
    """

    ids: NDArray[np.int64]
    similarities: NDArray[np.float32]


class Pool:
    """Examples with unit vectors, searched by inner product. Never changes; safe to share between threads.

    Args:
        ids: distinct task-wide example ids, none below 0, shape (n,).
        vectors: finite unit vectors (or zeros), shape (n, d), row by row those of ``ids``.
        encoder: fingerprint of the encoder that made them.
        approximate_above: rows above which the search is approximate.

    Raises:
        DataError: ids that repeat or are negative, or vectors of another shape or length.
    """

    def __init__(
        self,
        ids: ArrayLike,
        vectors: ArrayLike,
        *,
        encoder: str = "",
        approximate_above: int = APPROXIMATE_ABOVE,
    ) -> None:
        self.ids = _checked_ids(ids)
        self.vectors = _checked_vectors(vectors, len(self.ids))
        self.encoder = encoder
        self.approximate_above = approximate_above
        self._row_of = {int(example): row for row, example in enumerate(self.ids)}
        self._index: Any = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Pool({len(self)} examples, {self.dimension} dimensions)"

    @property
    def dimension(self) -> int:
        """Components of one vector."""
        return int(self.vectors.shape[1])

    @property
    def exact(self) -> bool:
        """Whether ``nearest`` finds the nearest for certain."""
        return len(self) <= self.approximate_above

    def nearest(self, queries: ArrayLike, k: int, exclude: Sequence[int | None] | None = None) -> Neighbours:
        """The ``k`` examples most similar to each query; equal similarities (float32) in the order of ids.

        Args:
            queries: unit vectors (or zeros), shape (q, d).
            k: at least 0.
            exclude: for each query the id that it must not get (its own), or None; ids that are not in the
                pool do no harm.

        Returns:
            min(k, n) columns; one fewer than n at most where any query excludes an example of this pool.

        Raises:
            DataError: queries of another shape or length, another number of exclusions, or k below 0.
        """
        asked = _checked_queries(queries, self.dimension)
        excluded = self._excluded_rows(exclude, len(asked))
        if k < 0:
            raise DataError(f"k={k} neighbours cannot be found; k must be 0 or more")
        columns = min(k, len(self) - int((excluded >= 0).any()))
        ids = np.empty((len(asked), max(columns, 0)), dtype=np.int64)
        similarities = np.empty(ids.shape, dtype=np.float32)
        if ids.size:
            self._fill(asked, excluded, ids, similarities)
        return Neighbours(ids, similarities)

    def subset(self, ids: ArrayLike) -> Pool:
        """A pool of the examples ``ids``, in that order, with the very same vectors.

        Raises:
            DataError: an id that is not in this pool, or that repeats.
        """
        wanted = _checked_ids(ids)
        return Pool(
            wanted,
            self.vectors[self._rows_of(wanted)],
            encoder=self.encoder,
            approximate_above=self.approximate_above,
        )

    def save(self, folder: str | os.PathLike[str]) -> str:
        """Writes the pool into ``folder``; whenever this is interrupted, the pool that was there stays.

        Returns:
            What tells this pool from any other: the digest that :meth:`load` checks.

        Raises:
            OSError: the folder cannot be written.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        faiss = require("faiss", install="faiss-cpu")
        content = faiss.serialize_index(self._searchable()).tobytes()
        digest = hashlib.sha256(content).hexdigest()
        name = f"vectors-{digest[:16]}.faiss"
        write_whole(target / name, content)
        manifest = {
            "schema": SCHEMA,
            "encoder": self.encoder,
            "count": len(self),
            "dimension": self.dimension,
            "approximate_above": self.approximate_above,
            "index": {"file": name, "bytes": len(content), "sha256": digest},
            "ids": self.ids.tolist(),
        }
        listed = json.dumps(manifest, indent=1).encode("utf-8")
        write_whole(target / MANIFEST, listed)
        for other in target.glob("vectors-*.faiss"):
            if other.name != name:
                other.unlink(missing_ok=True)
        return hashlib.sha256(listed).hexdigest()

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, encoder: str | None = None, digest: str | None = None) -> Pool:
        """Reads a pool that ``save`` wrote; every size and the digest are checked before FAISS sees a byte.

        Args:
            folder: where it was saved.
            encoder: the fingerprint that the vectors must have been made with; None takes any.
            digest: what ``save`` returned for the pool that is wanted; None takes any.

        Raises:
            ArtifactError: no pool there, damaged, of another layout, made with another encoder, or another pool.
        """
        source = Path(folder)
        return cls.from_files(lambda name: source.joinpath(name).read_bytes(), source, encoder=encoder, digest=digest)

    @classmethod
    def from_files(
        cls,
        read: Callable[[str], bytes],
        place: str | Path,
        *,
        encoder: str | None = None,
        digest: str | None = None,
    ) -> Pool:
        """The same from files that need not lie in a folder.

        Args:
            read: the content of a file by its name; an OSError where there is none.
            place: what errors call the place of the files.
            encoder: as for :meth:`load`.
            digest: likewise.

        Raises:
            ArtifactError: as :meth:`load`.
        """
        manifest = _read_manifest(read, place, digest)
        if encoder is not None and manifest.encoder != encoder:
            raise ArtifactError(
                f"pool {place} was made with encoder {manifest.encoder!r}, not {encoder!r}; "
                "use that encoder, or make the pool again"
            )
        index = _read_index(read, place, manifest)
        try:
            vectors = index.reconstruct_n(0, manifest.count)
            pool = cls(
                manifest.ids,
                np.asarray(vectors).reshape(manifest.count, manifest.dimension),
                encoder=manifest.encoder,
                approximate_above=manifest.approximate_above,
            )
        except (RuntimeError, DataError, ValueError) as error:
            raise _damaged(place, "its vectors cannot be used") from error
        pool._index = index
        return pool

    def _rows_of(self, ids: NDArray[np.int64]) -> NDArray[np.intp]:
        unknown = next((int(example) for example in ids if int(example) not in self._row_of), None)
        if unknown is not None:
            raise DataError(f"example {unknown} is not among this pool's {len(self)}; take ids from pool.ids")
        return np.array([self._row_of[int(example)] for example in ids], dtype=np.intp)

    def _excluded_rows(self, exclude: Sequence[int | None] | None, count: int) -> NDArray[np.int64]:
        if exclude is None:
            return np.full(count, -1, dtype=np.int64)
        if len(exclude) != count:
            raise DataError(f"exclude has {len(exclude)} entries for {count} queries; give one id or None for each")
        rows = [-1 if example is None else self._row_of.get(int(example), -1) for example in exclude]
        return np.array(rows, dtype=np.int64)

    def _searchable(self) -> Any:
        with self._lock:
            if self._index is None:
                build = _build_exact if self.exact else _build_approximate
                self._index = build(self.vectors)
            return self._index

    def _fill(
        self,
        queries: NDArray[np.float32],
        excluded: NDArray[np.int64],
        ids: NDArray[np.int64],
        similarities: NDArray[np.float32],
    ) -> None:
        """Answers block by block; queries whose proposals do not settle the answer ask for more of them."""
        open_queries = np.arange(len(queries))
        fetch = min(len(self), ids.shape[1] + 1 + _OVERFETCH)
        while len(open_queries):
            unsettled = []
            block = max(1, _NUMBERS_A_BLOCK // (fetch * max(1, self.dimension)))
            for start in range(0, len(open_queries), block):
                part = open_queries[start : start + block]
                answer = self._ranked(queries[part], excluded[part], fetch, ids.shape[1])
                ids[part], similarities[part] = answer.ids, answer.similarities
                unsettled.append(part[~answer.settled])
            open_queries = np.concatenate(unsettled)
            fetch = min(len(self), fetch * 4)

    def _ranked(self, queries: NDArray[np.float32], excluded: NDArray[np.int64], fetch: int, columns: int) -> _Ranked:
        rows, lowest = self._proposals(queries, fetch)
        usable = (rows >= 0) & (rows != excluded[:, None])
        similarities = _similarities(queries, self.vectors, rows)
        similarities[~usable] = -np.inf
        order = np.lexsort((self.ids[rows], -similarities), axis=1)[:, :columns]
        kept = np.take_along_axis(similarities, order, axis=1)
        settled = np.isfinite(kept[:, -1])
        if self.exact:
            # What was not proposed is below the lowest proposal; a tie with it could still change the order.
            settled &= kept[:, -1] > lowest + _FAISS_ERROR
        if fetch == len(self):
            settled[:] = True
        return _Ranked(self.ids[np.take_along_axis(rows, order, axis=1)], kept, settled)

    def _proposals(self, queries: NDArray[np.float32], fetch: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows (−1 for none), shape (q, fetch), and the lowest similarity that FAISS saw among them."""
        if fetch == len(self):
            everything = np.broadcast_to(np.arange(len(self), dtype=np.int64), (len(queries), len(self)))
            return everything, np.full(len(queries), -np.inf, dtype=np.float32)
        found, rows = self._searchable().search(queries, fetch)
        return rows, found[:, -1]


@dataclass(frozen=True)
class _Ranked:
    ids: NDArray[np.int64]
    similarities: NDArray[np.float32]
    settled: NDArray[np.bool_]


def _similarities(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Inner products, each from its own pair alone; adding up in double makes the float32 the true one."""
    gathered = vectors[rows].astype(np.float64)
    exact = np.einsum("qmd,qd->qm", gathered, queries.astype(np.float64))
    # Adding zero turns -0.0 into 0.0.
    rounded: NDArray[np.float32] = np.clip(exact, -1.0, 1.0).astype(np.float32) + np.float32(0)
    return rounded


def _checked_ids(ids: ArrayLike) -> NDArray[np.int64]:
    given = np.asarray(ids)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise DataError(f"ids have shape {given.shape} and type {given.dtype}; give one row of integers")
    checked = given.astype(np.int64)
    if checked.size and checked.min() < 0:
        raise DataError(f"id {int(checked.min())} is negative; example ids count from 0")
    if len(np.unique(checked)) != len(checked):
        raise DataError(f"{len(checked) - len(np.unique(checked))} ids repeat; give each example once")
    checked.setflags(write=False)
    return checked


def _checked_vectors(vectors: ArrayLike, count: int) -> NDArray[np.float32]:
    checked = np.array(vectors, dtype=np.float32, order="C")
    if checked.ndim != 2 or len(checked) != count or (count and not checked.shape[1]):
        raise DataError(f"vectors have shape {checked.shape} for {count} ids; give shape ({count}, dimension)")
    _check_lengths("vector", checked)
    checked.setflags(write=False)
    return checked


def _check_lengths(what: str, vectors: NDArray[np.float32]) -> None:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    unit = (np.abs(lengths - 1.0) <= _UNIT_TOLERANCE) | (lengths == 0.0)
    if not unit.all():
        row = int(np.argmin(unit))
        raise DataError(f"{what} {row} has length {lengths[row]:.6g}; scale it to 1 with embed.base.unit_vectors")


def _checked_queries(queries: ArrayLike, dimension: int) -> NDArray[np.float32]:
    checked = np.ascontiguousarray(queries, dtype=np.float32)
    if checked.ndim != 2 or checked.shape[1] != dimension:
        raise DataError(f"queries have shape {checked.shape}; the pool needs (number of queries, {dimension})")
    _check_lengths("query", checked)
    return checked


def _build_exact(vectors: NDArray[np.float32]) -> Any:
    faiss = require("faiss", install="faiss-cpu")
    index = faiss.IndexFlatIP(vectors.shape[1])
    if len(vectors):
        index.add(vectors)
    return index


def _build_approximate(vectors: NDArray[np.float32]) -> Any:
    """An inverted file. Graph indexes search faster, but built by several threads no two are alike."""
    faiss = require("faiss", install="faiss-cpu")
    count, dimension = vectors.shape
    lists = max(1, min(int(4 * count**0.5), count // _ROWS_A_CENTROID))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True
    index.cp.seed = 1234
    index.cp.max_points_per_centroid = _ROWS_A_CENTROID
    index.train(vectors)
    index.add(vectors)
    _tune(index, vectors)
    return index


def _tune(index: Any, vectors: NDArray[np.float32]) -> None:
    """Doubles the lists visited until a sample's true nearest rows are found as often as wanted."""
    sample = vectors[np.linspace(0, len(vectors) - 1, _RECALL_SAMPLE).astype(np.intp)]
    depth = min(_RECALL_DEPTH, len(vectors))
    index.nprobe = index.nlist
    _, true_rows = index.search(sample, depth)
    index.nprobe = 1
    while index.nprobe < index.nlist:
        _, rows = index.search(sample, depth)
        shared = sum(len(set(a) & set(b)) for a, b in zip(rows.tolist(), true_rows.tolist(), strict=True))
        if shared >= _RECALL_WANTED * true_rows.size:
            return
        index.nprobe = min(2 * index.nprobe, index.nlist)


@dataclass(frozen=True)
class _Manifest:
    encoder: str
    count: int
    dimension: int
    approximate_above: int
    ids: list[int]
    file: str
    size: int
    digest: str


_INDEX_NAME = re.compile(r"vectors-[0-9a-f]{16}\.faiss")
_HEADER = struct.Struct("<4siq")  # FAISS: kind of index, dimension, rows
_FLAT_LENGTH = struct.Struct("<Q")  # FAISS, flat indexes: how many float32 follow
_FLAT_LENGTH_AT = 37  # after the header, two unused numbers, whether it is trained, and the metric
_KINDS = {b"IxFI": True, b"IwFl": False}


def _read_manifest(read: Callable[[str], bytes], place: str | Path, digest: str | None) -> _Manifest:
    try:
        content = read(MANIFEST)
        raw = json.loads(content)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{str(place)!r} is no folder of a saved prompt's index, which has to lie beside the prompt's file; "
            "move both, or save the prompt anew"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(place, f"{MANIFEST} cannot be read") from error
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise ArtifactError(
            f"{str(place)!r} does not hold the index that the prompt was saved with; bring that one back, or save "
            "the prompt anew"
        )
    if isinstance(raw, dict) and isinstance(raw.get("schema"), int) and raw["schema"] != SCHEMA:
        raise ArtifactError(
            f"pool {place} has layout {raw['schema']}, this version reads {SCHEMA}; "
            "make the pool again, or install the version that wrote it"
        )
    try:
        manifest = _manifest_of(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(place, f"{MANIFEST} lacks or breaks a field ({error})") from error
    return manifest


def _manifest_of(raw: Any) -> _Manifest:
    manifest = _Manifest(
        encoder=_typed(raw["encoder"], str),
        count=_typed(raw["count"], int),
        dimension=_typed(raw["dimension"], int),
        approximate_above=_typed(raw["approximate_above"], int),
        ids=[_typed(example, int) for example in _typed(raw["ids"], list)],
        file=_typed(raw["index"]["file"], str),
        size=_typed(raw["index"]["bytes"], int),
        digest=_typed(raw["index"]["sha256"], str),
    )
    if raw.get("schema") != SCHEMA or not _INDEX_NAME.fullmatch(manifest.file):
        raise ValueError("schema or file name")
    if manifest.count != len(manifest.ids) or manifest.dimension < 0 or max(manifest.ids, default=0) >= 2**63:
        raise ValueError("count, dimension or ids")
    return manifest


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} wanted")
    return value


def _read_index(read: Callable[[str], bytes], place: str | Path, manifest: _Manifest) -> Any:
    try:
        content = read(manifest.file)
    except OSError as error:
        raise _damaged(place, f"{manifest.file} cannot be read") from error
    if len(content) != manifest.size:
        raise _damaged(place, f"{manifest.file} has {len(content)} bytes instead of {manifest.size}")
    if hashlib.sha256(content).hexdigest() != manifest.digest:
        raise _damaged(place, f"{manifest.file} was changed")
    _check_header(place, manifest, content)
    faiss = require("faiss", install="faiss-cpu")
    try:
        index = faiss.deserialize_index(np.frombuffer(content, dtype=np.uint8))
    except (RuntimeError, MemoryError) as error:
        raise _damaged(place, f"FAISS cannot read {manifest.file}") from error
    if (index.d, index.ntotal, index.metric_type) != (
        manifest.dimension,
        manifest.count,
        faiss.METRIC_INNER_PRODUCT,
    ):
        raise _damaged(place, f"{manifest.file} holds another index")
    return index


def _check_header(place: str | Path, manifest: _Manifest, content: bytes) -> None:
    """A file with a matching digest can still be made by hand: FAISS must meet no sizes that lie."""
    if len(content) < _HEADER.size:
        raise _damaged(place, f"{manifest.file} is cut short")
    kind, dimension, count = _HEADER.unpack_from(content)
    data = 4 * manifest.count * manifest.dimension
    is_flat = _KINDS.get(kind)
    fits = _flat_fits(content, data) if is_flat else len(content) > data
    exact = manifest.count <= manifest.approximate_above
    if is_flat is not exact or (dimension, count) != (manifest.dimension, manifest.count) or not fits:
        raise _damaged(place, f"{manifest.file} holds another index")


def _flat_fits(content: bytes, data: int) -> bool:
    if len(content) != _FLAT_LENGTH_AT + _FLAT_LENGTH.size + data:
        return False
    (numbers,) = _FLAT_LENGTH.unpack_from(content, _FLAT_LENGTH_AT)
    return bool(4 * numbers == data)


def _damaged(place: str | Path, reason: str) -> ArtifactError:
    return ArtifactError(f"pool {place} is damaged: {reason}; save it again, or make it again")
