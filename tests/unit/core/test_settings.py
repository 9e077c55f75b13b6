import os
from pathlib import Path

import pytest

from diffractory.settings import Resources, _memory_limits, _processor_limits, usable_cores


def test_this_machine_is_measured(tmp_path: Path) -> None:
    found = Resources.of_this_machine(tmp_path / "not" / "yet" / "there")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert found.workers == len(os.sched_getaffinity(0))
    assert 0 < found.worker_memory * found.workers < memory
    assert found.disk_free > 0
    assert not list(tmp_path.iterdir())


def test_workers_share_the_memory(tmp_path: Path) -> None:
    one, four = (Resources.of_this_machine(tmp_path, n) for n in (1, 4))
    assert (one.workers, four.workers) == (1, 4)
    assert one.worker_memory == pytest.approx(4 * four.worker_memory, abs=4)


def test_a_relative_folder_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Resources.of_this_machine(Path("runs/first")).disk_free > 0


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_limits_of_all_groups_around_this_process_count(tmp_path: Path) -> None:
    own, mounted = tmp_path / "cgroup", tmp_path / "sys"
    own.write_text("0::/job/step\n")
    _write(mounted / "job" / "step" / "memory.max", "max\n")
    _write(mounted / "job" / "memory.max", "2000\n")
    _write(mounted / "memory.max", "3000\n")
    _write(tmp_path / "memory.max", "1\n")
    assert _memory_limits(own, mounted) == [2000, 3000]


def test_limits_of_the_older_control_groups_count(tmp_path: Path) -> None:
    own, mounted = tmp_path / "cgroup", tmp_path / "sys"
    own.write_text("5:devices:/a\n4:cpu,memory:/job\n")
    _write(mounted / "memory" / "job" / "memory.limit_in_bytes", "4000")
    _write(mounted / "devices" / "a" / "memory.limit_in_bytes", "1")
    assert _memory_limits(own, mounted) == [4000]


def test_no_control_groups_no_limit(tmp_path: Path) -> None:
    assert _memory_limits(tmp_path / "nothing", tmp_path) == []


def test_a_limit_below_the_memory_is_what_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffractory.settings._memory_limits", lambda: [10_000_000, 2**62])
    assert Resources.of_this_machine(tmp_path, 2).worker_memory == 4_000_000


def test_a_share_of_processors_counts_as_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, mounted = tmp_path / "cgroup", tmp_path / "sys"
    own.write_text("0::/job\n")
    _write(mounted / "job" / "cpu.max", "150000 100000\n")
    _write(mounted / "cpu.max", "max 100000\n")
    assert _processor_limits(own, mounted) == [1.5]
    own.write_text("3:cpuacct,cpu:/job\n2:memory:/job\n")
    _write(mounted / "cpu" / "job" / "cpu.cfs_quota_us", "50000\n")
    _write(mounted / "cpu" / "job" / "cpu.cfs_period_us", "100000\n")
    _write(mounted / "cpu" / "cpu.cfs_quota_us", "-1\n")
    _write(mounted / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert _processor_limits(own, mounted) == [0.5]
    monkeypatch.setattr("diffractory.settings._processor_limits", lambda: [0.5])
    assert usable_cores() == 1
    monkeypatch.setattr("diffractory.settings._processor_limits", lambda: [1000.0])
    assert usable_cores() == len(os.sched_getaffinity(0))
