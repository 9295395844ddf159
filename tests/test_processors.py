"""How many threads on made-up machines, and what is read of a real one."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.errors import UserError
from promptsearch.lm.llamacpp.processors import (
    THREADS_VARIABLE,
    Machine,
    count_cores,
    parse_processors,
    processor_name,
    read_machine,
    usable_cores,
)


def hyperthreaded(cores: int) -> dict[int, frozenset[int]]:
    """Processors n and n + cores share a core, as Linux numbers them."""
    pairs = [frozenset({core, core + cores}) for core in range(cores)]
    return {processor: pair for pair in pairs for processor in pair}


PAIRS = hyperthreaded(4)


@pytest.mark.parametrize(
    ("machine", "cores"),
    [
        (Machine(logical=1), 1),
        (Machine(logical=8), 8),
        (Machine(logical=8, physical=4), 4),
        (Machine(logical=8, physical=4, siblings=PAIRS), 4),
        (Machine(logical=8, physical=4, allowed=frozenset({0, 4}), siblings=PAIRS), 1),
        (Machine(logical=8, physical=4, allowed=frozenset({0, 1, 5}), siblings=PAIRS), 2),
        (Machine(logical=8, physical=4, allowed=frozenset({6})), 1),
        (Machine(logical=8, physical=4, allowed=frozenset({0, 1}), siblings={0: PAIRS[0]}), 2),
        (Machine(logical=8, quota=2.0), 2),
        (Machine(logical=8, quota=1.5), 2),
        (Machine(logical=8, quota=0.1), 1),
        (Machine(logical=2, quota=16.0), 2),
        (Machine(logical=8, physical=8, fast_cores=4), 4),
        (Machine(logical=12, physical=8, fast=frozenset({0, 1, 2, 3, 4, 5, 6, 7}), siblings=PAIRS), 4),
        (Machine(logical=12, allowed=frozenset({9, 10}), fast=frozenset({0, 1, 2})), 2),
    ],
)
def test_threads_of_made_up_machines(machine: Machine, cores: int) -> None:
    assert count_cores(machine) == cores


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    cores = draw(st.integers(1, 64))
    logical = cores * draw(st.sampled_from([1, 2]))
    processors = st.integers(0, logical - 1)
    return Machine(
        logical=logical,
        physical=draw(st.sampled_from([None, cores])),
        allowed=draw(st.none() | st.frozensets(processors, min_size=1)),
        siblings=draw(st.sampled_from([{}, hyperthreaded(cores) if logical > cores else {}])),
        fast=draw(st.just(frozenset()) | st.frozensets(processors)),
        fast_cores=draw(st.none() | st.integers(1, 64)),
        quota=draw(st.none() | st.floats(0.01, 200)),
    )


@given(machines())
def test_never_more_than_a_process_may_use(machine: Machine) -> None:
    cores = count_cores(machine)
    assert 1 <= cores <= machine.logical
    assert cores <= (machine.physical or machine.logical)
    assert cores <= len(machine.allowed or range(machine.logical))
    assert machine.quota is None or cores < machine.quota + 1
    assert machine.fast_cores is None or cores <= machine.fast_cores


@given(st.sets(st.integers(0, 300)))
def test_lists_of_processors(processors: set[int]) -> None:
    ranges = ",".join(f"{each}-{each}" if each % 3 else str(each) for each in sorted(processors))
    assert parse_processors(ranges + "\n") == processors


def test_a_range_of_processors() -> None:
    assert parse_processors("0-3,8,10-11\n") == {0, 1, 2, 3, 8, 10, 11}


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_container_of_the_second_version(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/crew/job\n")
    write(tmp_path, "sys/fs/cgroup/crew/job/cpu.max", "max 100000\n")
    write(tmp_path, "sys/fs/cgroup/crew/cpu.max", "150000 100000\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "800000 100000\n")
    assert read_machine(tmp_path).quota == 1.5


@pytest.mark.parametrize("mounted", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize("inside", ["", "docker/abc/"])
def test_a_container_of_the_first_version(tmp_path: Path, mounted: str, inside: str) -> None:
    """Some containers see their own group as the root while its path is the host's."""
    write(tmp_path, "proc/self/cgroup", "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n")
    write(tmp_path, f"sys/fs/cgroup/{mounted}/{inside}cpu.cfs_quota_us", "250000\n")
    write(tmp_path, f"sys/fs/cgroup/{mounted}/{inside}cpu.cfs_period_us", "100000\n")
    assert read_machine(tmp_path).quota == 2.5


@pytest.mark.parametrize("text", ["max 100000", "", "many 100000", "100000 0", "-5 100000", "100000"])
def test_no_quota(tmp_path: Path, text: str) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/\n1:cpu:/\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", text)
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert read_machine(tmp_path).quota is None


def test_siblings_and_kinds_of_cores(tmp_path: Path) -> None:
    machine = read_machine(tmp_path)
    assert (machine.siblings, machine.fast) == ({}, frozenset())
    processors = range(machine.logical) if machine.allowed is None else machine.allowed
    first, together = min(processors), ",".join(map(str, sorted(processors)))
    for each in processors:
        write(tmp_path, f"sys/devices/system/cpu/cpu{each}/topology/thread_siblings_list", together)
    write(tmp_path, "sys/devices/cpu_core/cpus", f"{first}\n")
    machine = read_machine(tmp_path)
    assert set(machine.siblings) == set(processors)
    assert machine.fast == {first}
    assert count_cores(machine) == 1


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(THREADS_VARIABLE, raising=False)
    assert 1 <= usable_cores() <= min(os.cpu_count() or 1, psutil.cpu_count(logical=False) or 512)


@pytest.mark.parametrize(("given", "cores"), [("3", 3), (" 512 ", 512)])
def test_the_variable_overrides(monkeypatch: pytest.MonkeyPatch, given: str, cores: int) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, given)
    assert usable_cores() == cores


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", "513", "²", "1e2"])
def test_a_variable_that_is_no_number_of_threads(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, given)
    with pytest.raises(UserError, match="set a whole number from 1 to 512") as caught:
        usable_cores()
    assert repr(given) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7763\n\nmodel name\t: AMD EPYC 7763\n",
            "AMD EPYC 7763",
        ),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xd05\n\nCPU part\t: 0xd0a\n", "0x41, 0xd05, 0xd0a"),
    ],
)
def test_the_processor_has_the_name_that_the_system_gives_it(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(text, encoding="utf-8")
    assert processor_name(tmp_path) == name


def test_a_processor_without_a_name_has_at_least_an_architecture(tmp_path: Path) -> None:
    assert processor_name(tmp_path)
