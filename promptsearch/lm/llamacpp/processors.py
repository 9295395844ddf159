"""How many threads run a model fastest: one for each core that this process may use.

Two logical processors of one core share its arithmetic, cores made for low power hold the others up at every
barrier, and a container may be granted less than it sees; each of these makes a thread too many cost more than it
brings.

Invariant: :func:`count_cores` is pure; what it is given is read anew for each call of :func:`usable_cores`.
Leaves out: how busy the cores are (:mod:`promptsearch.lm.llamacpp.busy`).
"""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from ctypes import CDLL, byref, c_int, c_size_t, create_string_buffer, sizeof
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import psutil

from promptsearch.errors import UserError

__all__ = [
    "THREADS_VARIABLE",
    "Machine",
    "count_cores",
    "parse_processors",
    "processor_name",
    "read_machine",
    "usable_cores",
]

THREADS_VARIABLE = "PROMPTSEARCH_THREADS"
_MOST_THREADS = 512  # ggml's own limit
_SYSTEM = Path("/")
_NAMING = ("model name", "CPU implementer", "CPU part", "cpu", "uarch")  # x86, Arm (two), POWER, RISC-V


@dataclass(frozen=True)
class Machine:
    """What a system says about its processors.

    Attributes:
        logical: logical processors in all, at least 1.
        physical: cores in all; None where unknown.
        allowed: logical processors that this process may use; None where the system does not say.
        siblings: for logical processors, all that share their core; empty where unknown.
        fast: logical processors of the fast kind of cores; empty where there is one kind.
        fast_cores: cores of the fast kind, where the system only counts them; None where there is one kind.
        quota: processors' worth of time that a container grants; None where it grants all.
    """

    logical: int
    physical: int | None = None
    allowed: frozenset[int] | None = None
    siblings: Mapping[int, frozenset[int]] = field(default_factory=dict)
    fast: frozenset[int] = frozenset()
    fast_cores: int | None = None
    quota: float | None = None


def usable_cores() -> int:
    """Threads for a model on this machine, 1 to 512; the environment variable ``PROMPTSEARCH_THREADS`` overrides it.

    Raises:
        UserError: the variable holds something else than such a number.
    """
    given = os.environ.get(THREADS_VARIABLE, "").strip()
    if not given:
        return count_cores(read_machine())
    if not (given.isascii() and given.isdigit() and 1 <= int(given) <= _MOST_THREADS):
        raise UserError(
            f"{THREADS_VARIABLE}={given!r} is no number of threads; set a whole number from 1 to {_MOST_THREADS}, "
            "or unset it"
        )
    return int(given)


def processor_name(root: Path = _SYSTEM) -> str:
    """The model of this machine's processor as the system tells it, such as ``"AMD EPYC 7763 64-Core Processor"``.

    Where the system names none, the architecture alone.

    Args:
        root: where the system's files are, for tests.
    """
    pairs = (line.partition(":") for line in _lines(root / "proc/cpuinfo"))
    said = {(name.strip(), value.strip()) for name, _, value in pairs}
    words = [value for naming in _NAMING for name, value in sorted(said) if name == naming and value]
    return ", ".join(words) or _apple_name() or platform.processor() or platform.machine()


def count_cores(machine: Machine) -> int:
    """Fast cores that a process may use, at least 1."""
    allowed = frozenset(range(machine.logical)) if machine.allowed is None else machine.allowed
    allowed = allowed & machine.fast or allowed
    if allowed and allowed <= machine.siblings.keys():
        cores = len({min(machine.siblings[processor]) for processor in allowed})
    else:
        cores = min(len(allowed), machine.physical or machine.logical)
    if machine.fast_cores is not None:
        cores = min(cores, machine.fast_cores)
    if machine.quota is not None:  # a part of a core still serves a thread of its own
        cores = min(cores, math.ceil(machine.quota))
    return max(1, cores)


def parse_processors(text: str) -> frozenset[int]:
    """Logical processors from a list as Linux writes it, such as ``"0-3,8,10-11"``."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def read_machine(root: Path = _SYSTEM) -> Machine:
    """What this system says; what it does not say is left out.

    Args:
        root: where the system's files are, for tests.
    """
    allowed = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    logical = os.cpu_count() or 1
    return Machine(
        logical=logical,
        physical=psutil.cpu_count(logical=False),
        allowed=allowed,
        siblings=_siblings(root, range(logical) if allowed is None else allowed),
        fast=_processors_in(root / "sys/devices/cpu_core/cpus"),
        fast_cores=_fast_cores(),
        quota=_quota(root),
    )


def _siblings(root: Path, processors: range | frozenset[int]) -> dict[int, frozenset[int]]:
    folder = root / "sys/devices/system/cpu"
    found = {each: _processors_in(folder / f"cpu{each}/topology/thread_siblings_list") for each in processors}
    return {each: siblings for each, siblings in found.items() if siblings}


def _processors_in(path: Path) -> frozenset[int]:
    try:
        return parse_processors(path.read_text("ascii"))
    except (OSError, ValueError):
        return frozenset()


def _quota(root: Path) -> float | None:
    """The smallest grant of the control groups that this process is in."""
    grants = [*_second_version_grants(root), *_first_version_grants(root)]
    return min(grants, default=None)


def _second_version_grants(root: Path) -> Iterator[float]:
    for group in _groups(root, ""):
        words = _words(root / "sys/fs/cgroup" / group / "cpu.max")
        if len(words) == 2 and words[0] != "max":
            yield from _grant(*words)


def _first_version_grants(root: Path) -> Iterator[float]:
    for mounted in ("cpu", "cpu,cpuacct"):
        for group in _groups(root, "cpu"):
            folder = root / "sys/fs/cgroup" / mounted / group
            words = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
            if len(words) == 2 and words[0] != "-1":
                yield from _grant(*words)


def _grant(quota: str, period: str) -> Iterator[float]:
    try:
        share = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):
        return
    if share > 0:
        yield share


def _groups(root: Path, controller: str) -> Iterator[str]:
    """The group of this process and those above it; in a container they are seen from the container's own."""
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            group = PurePosixPath(path.lstrip("/"))
            yield from (str(each) for each in (group, *group.parents))


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return []


def _apple_name() -> str:
    """Such as ``"Apple M2 Pro"``; empty elsewhere."""
    if sys.platform != "darwin":
        return ""
    text, size = create_string_buffer(256), c_size_t(256)
    try:
        status = CDLL(None).sysctlbyname(b"machdep.cpu.brand_string", text, byref(size), None, c_size_t(0))
    except (OSError, AttributeError):
        return ""
    return text.value.decode("utf-8", "replace").strip() if status == 0 else ""


def _fast_cores() -> int | None:
    """Performance cores of an Apple processor."""
    if sys.platform != "darwin":
        return None
    value, size = c_int(0), c_size_t(sizeof(c_int))
    try:
        status = CDLL(None).sysctlbyname(b"hw.perflevel0.physicalcpu", byref(value), byref(size), None, c_size_t(0))
    except (OSError, AttributeError):
        return None
    return value.value if status == 0 and value.value > 0 else None
