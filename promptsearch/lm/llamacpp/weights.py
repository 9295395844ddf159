"""Chooses the weight type that a processor runs fastest, among those that answer as the file's own weights do.

A quantized file's type decides prefill speed more than anything else: the same weights held as BF16 can run four
times faster than as packaged 4-bit blocks. The rule for ``"auto"``:

1. BF16, F16 and Q8_0 are made from the file, as far as memory and disk have room and llama.cpp can convert it.
2. Each is measured on a prompt of 512 tokens, the best of three times. One that is not 10 % faster than the file
   as it is drops out: a copy costs disk and memory. Where there is nothing to compare the file with, it is not
   measured again, and not at all if no type has room.
3. From the fastest on, each is compared with the file's own weights on as many of 500 messages as 20 seconds pay
   for, 50 at least (:mod:`promptsearch.lm.llamacpp.agreement`). The first that gives the same label on 99 % of
   those that are no near ties runs. If none does, the file runs as it is.

A caller in a hurry says how long that may take: then types are measured in fewer rounds and compared on fewer
messages, once and on 50 at least. What is found so counts as long as any other; ``promptsearch models --bench``
measures it again with all the time it takes.

What was found is kept in the cache folder as a table, with the chosen file, and counts until the processor, the
accelerator, the number of cores or llama.cpp change. If the chosen file is gone and cannot be made again, the source
runs as it is; so it does where nothing was found and the cache folder cannot be written to.

Invariant: a file in the cache counts only with the size and time that the table records for it, and belongs to the
source file's hash; one process at a time works in a source's folder. Deleting the cache loses nothing.
Leaves out: which prompts run on the weights.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from promptsearch.errors import BackendError, ModelError, PromptsearchError, UserError
from promptsearch.files import write_whole
from promptsearch.lm.base import FloatArray
from promptsearch.lm.llamacpp.agreement import Agreement, compare, reference_scores
from promptsearch.lm.llamacpp.conversion import (
    EXACT,
    KINDS,
    Source,
    clear_leftovers,
    convert,
    lack_of_disk,
    lack_of_room,
    read_source,
)
from promptsearch.lm.llamacpp.hashes import file_hash
from promptsearch.lm.llamacpp.library import accelerator, llama, version
from promptsearch.lm.llamacpp.processors import processor_name, usable_cores
from promptsearch.lm.llamacpp.speed import Speed, measure_speed
from promptsearch.paths import cache_place

__all__ = [
    "AS_IS",
    "KINDS",
    "ChosenWeights",
    "Tell",
    "WeightTable",
    "WeightType",
    "bench_weights",
    "check_weights",
    "choose_weights",
    "convert",
    "kept_table",
]

_logger = logging.getLogger(__name__)

AS_IS = "as-is"
_TABLE = "weights.json"
_SCHEMA = 1
_TRIAL = "trial"  # folder of files that are made to be measured
_ALLOWANCE, _BENCH_ALLOWANCE = 20.0, 120.0  # seconds for what the reference answers
_ROUNDS = 3  # of measuring all types in turn, so that what else the machine does meets each of them alike
_SPEEDS_SHARE = 0.4  # of the seconds that the measuring may take, after which no further round of speeds begins
_WORTH = 1.1  # times the speed of the file as it is, from which a copy pays

Tell = Callable[[float], None]
"""Hears the share of the measuring that is done, 0 to 1."""


@dataclass(frozen=True)
class WeightType:
    """What was found out about a weight type on this machine.

    Attributes:
        kind: ``"as-is"`` or one of :data:`KINDS`.
        bytes: size of its file; None where it was not made.
        speed: tokens per second; None where it was not measured.
        agreement: how often it gave the label of the file's own weights; None where it was not compared.
        reason: why it does not run; empty for the one that does.
    """

    kind: str
    bytes: int | None = None
    speed: Speed | None = None
    agreement: Agreement | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kind": self.kind,
            "bytes": self.bytes,
            "tokens_per_second": self.speed and self.speed.to_dict(),
            "agreement": self.agreement and self.agreement.to_dict(),
            "reason": self.reason,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WeightType:
        """The other end of :meth:`to_dict`.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: these are no such values.
        """
        size, speed, agreement = values["bytes"], values["tokens_per_second"], values["agreement"]
        return cls(
            str(values["kind"]),
            None if size is None else int(size),
            None if speed is None else Speed.from_dict(speed),
            None if agreement is None else Agreement.from_dict(agreement),
            str(values["reason"]),
        )


@dataclass(frozen=True)
class WeightTable:
    """All types of one model on this machine.

    Attributes:
        chosen: the kind that runs.
        types: the file as it is first, then :data:`KINDS` without the one that the file has already.
    """

    chosen: str
    types: tuple[WeightType, ...]

    @property
    def speeds(self) -> dict[str, float]:
        """Prompt tokens per second of each type measured."""
        return {each.kind: each.speed.deciding for each in self.types if each.speed is not None}

    def named(self, kind: str) -> WeightType | None:
        """One type; None where there is no such."""
        return next((each for each in self.types if each.kind == kind), None)


@dataclass(frozen=True)
class ChosenWeights:
    """The weights that run.

    Attributes:
        path: the file to open.
        kind: ``"as-is"`` or one of :data:`KINDS`.
        source_hash: sha256 of the source file.
        table: what the choice was made by; None where the caller named the type, and where nothing could be measured.
    """

    path: Path
    kind: str
    source_hash: str
    table: WeightTable | None = None

    @property
    def prefill(self) -> dict[str, float]:
        """Prompt tokens per second of each type measured; empty where there is no table."""
        return {} if self.table is None else self.table.speeds

    @property
    def agreement(self) -> Agreement | None:
        """How often the weights gave the label of the file's own; None for these and where not compared."""
        if self.table is None or self.kind == AS_IS:
            return None
        found = self.table.named(self.kind)
        return None if found is None else found.agreement

    @property
    def fingerprint(self) -> str:
        """Identity of weights and binding: results of another fingerprint may differ."""
        return f"{self.source_hash[:16]}:{self.kind}:llama-cpp-python {version()}"


def check_weights(weights: str) -> None:
    """Refuse what names no weights.

    Raises:
        UserError: saying what does.
    """
    if weights not in ("auto", AS_IS, *KINDS):
        raise UserError(f"weights={weights!r} is none of: auto, {AS_IS}, {', '.join(KINDS)}; name one of these")


def choose_weights(
    source: Path, weights: str = "auto", tell: Tell | None = None, seconds: float | None = None
) -> ChosenWeights:
    """Find or make the weights to run.

    A type that the caller names is neither measured nor compared.

    Args:
        source: a GGUF file.
        weights: ``"auto"`` for the fastest type that answers as the file's own, ``"as-is"``, or one of :data:`KINDS`.
        tell: hears how far the measuring is; not called where nothing has to be measured.
        seconds: where it has to be measured, when to begin no further round, and how many messages to compare;
            None for three rounds and what 20 seconds pay for. Making the types and one round take their time.

    Raises:
        UserError: ``weights`` names none of these.
        ModelError: the file cannot be opened, or the named type cannot be made from it or kept.
    """
    check_weights(weights)
    source_hash = file_hash(source)
    if weights == AS_IS:
        return ChosenWeights(source, AS_IS, source_hash)
    folder = _folder(source_hash)
    with ExitStack() as stack:
        try:
            stack.enter_context(_locked(folder))
        except OSError as error:  # read-only, or another user's
            return _as_kept(source, source_hash, weights, f"the cache folder cannot be used ({error})")
        if weights != "auto":
            try:
                return ChosenWeights(_kept_or_made(source, folder, weights), weights, source_hash)
            except OSError as error:
                raise _no_place(source, weights, str(error)) from error
        table = _read_table(folder)
        if table is None:
            table = _Measuring(source, folder, tell or _untold, seconds=seconds).run()
        path, table = _runnable(source, folder, table)
    return ChosenWeights(path, table.chosen, source_hash, table)


def bench_weights(source: Path, tell: Tell | None = None) -> WeightTable:
    """Measure and compare every type now, at all prompt lengths and in generation, and keep what was found.

    Raises:
        ModelError: the file cannot be opened.
    """
    with _locked(_folder(file_hash(source))) as folder:
        return _Measuring(source, folder, tell or _untold, full=True).run()


def kept_table(source: Path) -> WeightTable | None:
    """What was found on this machine and kept; None where nothing was, or where it is damaged."""
    if not os.path.isdir(cache_place() / "weights"):
        return None  # without hashing the file
    return _read_table(_folder(file_hash(source)))


def _untold(_done: float) -> None:
    """Nobody listens."""


# -- measuring ----------------------------------------------------------------------------------------------


@dataclass
class _Measuring:
    """One pass over the types of a source."""

    source: Path
    folder: Path
    tell: Tell
    full: bool = False
    seconds: float | None = None
    types: dict[str, WeightType] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def run(self) -> WeightTable:
        """Make, measure, compare, choose, keep."""
        _logger.info("measuring which weights of %s run fastest here", self.source.name)
        shutil.rmtree(self._trial, ignore_errors=True)  # what a killed process left
        try:
            self.tell(0.0)
            facts = read_source(self.source)
            self._measure(facts)
            chosen = self._choose(facts)
            table = WeightTable(chosen, tuple(self._explained(each, chosen) for each in self.types.values()))
            try:
                self._keep(table)
            except OSError as error:
                _logger.warning("what was measured cannot be kept, so that it is measured again next time: %s", error)
        finally:
            shutil.rmtree(self._trial, ignore_errors=True)
        self.tell(1.0)
        _logger.info("%s runs as %s", self.source.name, table.chosen)
        return table

    @property
    def _trial(self) -> Path:
        return self.folder / _TRIAL

    def _measure(self, facts: Source) -> None:
        kinds = [kind for kind in KINDS if kind != facts.kind]
        lacks = {kind: lack_of_room(facts, kind, self.folder) for kind in kinds}
        self.types[AS_IS] = WeightType(AS_IS, self.source.stat().st_size)
        if not self.full and all(lacks.values()):  # a large file would take minutes, for a speed that decides nothing
            self.types.update({kind: self._dropped(WeightType(kind), reason) for kind, reason in lacks.items()})
            return
        self.paths[AS_IS] = self.source
        self.types[AS_IS] = replace(self.types[AS_IS], speed=measure_speed(self.source, full=self.full))
        for place, kind in enumerate(kinds, start=1):
            self.tell(0.4 * place / (len(kinds) + 1))
            self.types[kind] = self._measured(facts, kind)
        for _ in range(_ROUNDS - 1 if len(self.paths) > 1 else 0):
            if self._left < (1 - _SPEEDS_SHARE) * (self.seconds or 0.0):
                break
            for kind, path in self.paths.items():
                speed, again = self.types[kind].speed, measure_speed(path, full=self.full)
                self.types[kind] = replace(self.types[kind], speed=again if speed is None else again.best(speed))
        for kind in self.paths:
            _logger.info("%s runs %.0f prompt tokens/s", kind, self._speed(kind))

    @property
    def _left(self) -> float:
        """Seconds that the measuring may go on for."""
        return float("inf") if self.seconds is None else self.begun + self.seconds - time.monotonic()

    def _measured(self, facts: Source, kind: str) -> WeightType:
        """A type's speed, or why it has none."""
        reason = lack_of_room(facts, kind, self.folder)
        if reason:
            return self._dropped(WeightType(kind), reason)
        try:
            path = self._made(kind)
            speed = measure_speed(path, full=self.full)
        except (PromptsearchError, OSError) as error:
            return self._dropped(WeightType(kind), str(error))
        self.paths[kind] = path
        return WeightType(kind, path.stat().st_size, speed)

    def _dropped(self, of: WeightType, reason: str) -> WeightType:
        _logger.info("%s weights of %s are left out: %s", of.kind, self.source.name, reason)
        return replace(of, reason=reason)

    def _made(self, kind: str) -> Path:
        """A kept file where there is one, else one that lasts as long as the measuring."""
        kept = _kept_file(self.folder, kind)
        if kept is not None:
            return kept
        path = self._trial / f"{kind}.gguf"
        convert(self.source, path, kind)
        return path

    def _choose(self, facts: Source) -> str:
        """The fastest type that answers as the file's own weights do."""
        least = _WORTH * self._speed(AS_IS)
        ranked = sorted((kind for kind in self.paths if kind != AS_IS), key=self._speed, reverse=True)
        faster = [kind for kind in ranked if self._speed(kind) >= least]
        compared = ranked if self.full else faster
        if not compared:
            return AS_IS
        try:
            reference, reference_kind = self._reference(facts)
        except PromptsearchError as error:
            for kind in compared:
                self.types[kind] = self._dropped(self.types[kind], f"cannot be compared: {error}")
            return AS_IS
        chosen = AS_IS
        for place, kind in enumerate(compared):
            part = 0.7 + 0.3 * place / len(compared), 0.3 / len(compared)
            self._compare(kind, reference, reference_kind, part)
            if chosen == AS_IS and kind in faster and _holds(self.types[kind]):
                chosen = kind
                if not self.full:
                    break
        if self.full and reference_kind == EXACT:
            self._compare(AS_IS, reference, EXACT, (1.0, 0.0))
        return chosen

    def _speed(self, kind: str) -> float:
        speed = self.types[kind].speed
        return 0.0 if speed is None else speed.deciding

    def _reference(self, facts: Source) -> tuple[FloatArray, str]:
        """What the types are compared with, and whose answers that is.

        Raises:
            PromptsearchError: not even the file as it is can answer, as with a context too short for the messages.
        """
        exact = self._exact(facts)
        if exact is not None:
            try:
                return self._answers(exact), EXACT
            except PromptsearchError as error:
                _logger.info("the file as it is is the reference, its %s cannot answer: %s", EXACT, error)
        return self._answers(self.source), AS_IS

    def _answers(self, path: Path) -> FloatArray:
        allowance = _BENCH_ALLOWANCE if self.full else min(_ALLOWANCE, max(0.0, self._left / 2))  # half to compare
        return reference_scores(path, allowance, lambda done: self.tell(0.4 + 0.3 * done))

    def _exact(self, facts: Source) -> Path | None:
        """The expansion to F32; None where the file is that already, or where there is no room for it."""
        if facts.kind == EXACT:
            return None
        reason = lack_of_room(facts, EXACT, self.folder)
        try:
            if not reason:
                return self._made(EXACT)
        except (BackendError, OSError) as error:
            reason = str(error)
        _logger.info("the file as it is is the reference, no %s: %s", EXACT, reason)
        return None

    def _compare(self, kind: str, reference: FloatArray, reference_kind: str, part: tuple[float, float]) -> None:
        """Compare one type; ``part`` is where in the whole work that begins, and how much of it that is."""
        first, whole = part
        try:
            found = compare(
                self.paths[kind], kind, reference, reference_kind, lambda done: self.tell(first + whole * done)
            )
        except PromptsearchError as error:
            self.types[kind] = self._dropped(self.types[kind], f"cannot be compared: {error}")
            return
        self.types[kind] = replace(self.types[kind], agreement=found)

    def _explained(self, found: WeightType, chosen: str) -> WeightType:
        """A type with the reason for which it does not run."""
        if found.kind == chosen or found.reason:
            return found
        return replace(found, reason=self._reason(found, chosen))

    def _reason(self, found: WeightType, chosen: str) -> str:
        agreement = found.agreement
        if found.kind == AS_IS:
            return f"slower than {chosen}"
        if self._speed(found.kind) < _WORTH * self._speed(AS_IS):
            return f"not {_WORTH - 1:.0%} faster than the file as it is"
        if agreement is not None and not agreement.holds:
            if not agreement.items:
                return f"cannot be compared: {agreement.ties} messages are near ties"
            return f"another label than the file's own on {agreement.items - agreement.agreed} of {agreement.items}"
        return f"slower than {chosen}"

    def _keep(self, table: WeightTable) -> None:
        """Move the chosen file into its place, and write the table last: what it names is there."""
        files = _read_files(self.folder)
        target = self.folder / f"{table.chosen}.gguf"
        if table.chosen != AS_IS and self.paths[table.chosen] != target:
            os.replace(self.paths[table.chosen], target)
            files[table.chosen] = _stamp(target)
        _write(self.folder, files, table)


def _holds(found: WeightType) -> bool:
    return found.agreement is not None and found.agreement.holds


# -- what is kept -------------------------------------------------------------------------------------------


def _folder(source_hash: str) -> Path:
    return cache_place() / "weights" / source_hash[:16]


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """Let one process at a time work in a folder; the others wait, and find what it made.

    Raises:
        OSError: the folder cannot be made, written to or locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed, also by the end of the process
        clear_leftovers(folder)
        yield folder


def _as_kept(source: Path, source_hash: str, weights: str, refusal: str) -> ChosenWeights:
    """What runs where nothing can be made: what lies there whole, or the file as it is where that may run.

    Raises:
        ModelError: the type that the caller named does not lie there.
    """
    folder = _folder(source_hash)
    table = _read_table(folder) if weights == "auto" else None
    kind = table.chosen if table is not None else weights
    kept = None if kind == "auto" else _kept_file(folder, kind)
    if kept is not None:
        return ChosenWeights(kept, kind, source_hash, table)
    if weights != "auto":
        raise _no_place(source, weights, refusal)
    if kind != AS_IS:
        _logger.warning("%s runs as it is: %s", source.name, refusal)
    return ChosenWeights(source, AS_IS, source_hash, table and _left_as_is(table, refusal))


def _no_place(source: Path, kind: str, reason: str) -> ModelError:
    return ModelError(
        f"{source.name!r} cannot run with {kind} weights: {reason}; give weights='as-is', or name another cache "
        "folder with PROMPTSEARCH_CACHE"
    )


def _runnable(source: Path, folder: Path, table: WeightTable) -> tuple[Path, WeightTable]:
    """The file that a table chose, or the source and the table that says why it is not that."""
    if table.chosen == AS_IS:
        return source, table
    try:
        return _kept_or_made(source, folder, table.chosen), table
    except (ModelError, OSError) as error:
        _logger.warning("%s runs as it is: its %s weights cannot be made again: %s", source.name, table.chosen, error)
        return source, _left_as_is(table, f"cannot be made again: {error}")


def _left_as_is(table: WeightTable, reason: str) -> WeightTable:
    """A table of which the file as it is runs, with the reason why its choice does not."""
    reasons = {table.chosen: reason, AS_IS: ""}
    types = tuple(replace(each, reason=reasons.get(each.kind, each.reason)) for each in table.types)
    return WeightTable(AS_IS, types)


def _kept_or_made(source: Path, folder: Path, kind: str) -> Path:
    """The source's weights as ``kind``, made where they are not there whole.

    Raises:
        ModelError: they cannot be made.
        OSError: they cannot be written.
    """
    kept = _kept_file(folder, kind)
    if kept is not None:
        return kept
    _logger.info("making %s weights of %s", kind, source.name)
    target = folder / f"{kind}.gguf"
    reason = lack_of_disk(read_source(source), kind, folder)
    if not reason:
        try:
            convert(source, target, kind)
        except BackendError as error:
            reason = str(error)
    if reason:
        raise ModelError(f"{source.name!r} cannot run with {kind} weights: {reason}; give weights='as-is'")
    _write(folder, {**_read_files(folder), kind: _stamp(target)}, _read_table(folder))
    return target


def _kept_file(folder: Path, kind: str) -> Path | None:
    """A file that is as it was when it was made; None for all else."""
    path = folder / f"{kind}.gguf"
    recorded = _read_files(folder).get(kind)
    return path if recorded is not None and path.is_file() and _stamp(path) == recorded else None


def _stamp(path: Path) -> dict[str, int]:
    """What tells whether a file was cut short or written to since."""
    found = path.stat()
    return {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


def _machine() -> dict[str, str | int]:
    """What the measured speeds depend on."""
    return {
        "processor": processor_name(),
        "accelerator": accelerator() or "",
        "features": llama().llama_print_system_info().decode("utf-8", "replace").strip(),
        "cores": usable_cores(),
        "binding": version(),
    }


def _read(folder: Path) -> dict[str, Any]:
    """The table file; empty where it is missing, damaged or of another schema."""
    try:
        kept = json.loads((folder / _TABLE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) and kept.get("schema") == _SCHEMA else {}


def _read_files(folder: Path) -> dict[str, Any]:
    files = _read(folder).get("files")
    return dict(files) if isinstance(files, dict) else {}


def _read_table(folder: Path) -> WeightTable | None:
    """What was measured on this machine; None where that has to be done (again)."""
    kept = _read(folder).get("measured")
    try:
        if kept is None or kept["machine"] != _machine():
            return None
        types = tuple(WeightType.from_dict(each) for each in kept["types"])
        table = WeightTable(str(kept["chosen"]), types)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    chosen = table.named(table.chosen)
    known = {AS_IS, *KINDS}
    whole = chosen is not None and {each.kind for each in types} <= known
    return table if whole and (AS_IS in table.speeds or not table.speeds) else None


def _write(folder: Path, files: Mapping[str, Any], table: WeightTable | None) -> None:
    measured = table and {
        "machine": _machine(),
        "chosen": table.chosen,
        "types": [each.to_dict() for each in table.types],
    }
    write_whole(folder / _TABLE, json.dumps({"schema": _SCHEMA, "files": files, "measured": measured}, indent=1))
