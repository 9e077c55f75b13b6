from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffractory.dataset import lock as lock_module
from diffractory.dataset.lock import sole_driver
from diffractory.dataset.run import Run
from diffractory.errors import RunError


@pytest.fixture
def lock(run: Run) -> Path:
    return run.path / ".driver.json"


def _holder(lock: Path, **changes: object) -> None:
    mine = {
        "host": platform.node(),
        "pid": os.getpid(),
        "birth": lock_module._birth(os.getpid()),
        "key": "theirs",
    }
    lock.write_text(json.dumps(mine | changes))


def test_one_driver_at_a_time(run: Run, lock: Path):
    with sole_driver(run):
        assert lock.exists()
        with (
            pytest.raises(RunError, match=rf"driven by another command\. process {os.getpid()} on .* does\."),
            sole_driver(run),
        ):
            pass
        assert lock.exists()
    assert not lock.exists()
    with sole_driver(run):
        pass


def test_a_lock_that_cannot_be_written_is_not_left_behind(
    run: Run, lock: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lock_module.json, "dump", full)
        with pytest.raises(RunError, match=r"cannot be locked \(No space left.*room"), sole_driver(run):
            pass
    assert not lock.exists()
    with sole_driver(run):
        pass


def test_an_error_gives_the_run_back(run: Run, lock: Path):
    with pytest.raises(ZeroDivisionError), sole_driver(run):
        raise ZeroDivisionError
    assert not lock.exists()


def test_a_driver_that_was_killed_is_followed_at_once(run: Run, lock: Path):
    code = "import sys, os; from diffractory.dataset.lock import sole_driver\n"
    code += "from diffractory.dataset.run import Run\n"
    code += "with sole_driver(Run.open(sys.argv[1])):\n    os.kill(os.getpid(), 9)\n"
    killed = subprocess.run([sys.executable, "-c", code, str(run.path)], check=False, timeout=60)
    assert killed.returncode == -9
    assert lock.exists()
    with sole_driver(run):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert [path.name for path in run.path.iterdir() if path.name.startswith(".driver")] == []


@pytest.mark.parametrize("change", [{"birth": "1"}, {"pid": 2**22 + 1}, {"pid": None}, {"pid": "1; rm"}])
def test_a_number_that_another_process_has_by_now_does_not_count(run: Run, lock: Path, change: dict):
    _holder(lock, **change)
    with sole_driver(run):
        pass


def test_a_driver_elsewhere_lives_while_it_gives_signs(run: Run, lock: Path):
    _holder(lock, host="node-17", pid=1)
    says = r"process 1 on node-17 gave a sign of life \d+ s ago.*again in \d+ s"
    with pytest.raises(RunError, match=says), sole_driver(run):
        pass
    long_ago = time.time() - 1000.0
    os.utime(lock, (long_ago, long_ago))
    with sole_driver(run):
        pass


def test_signs_of_life_are_given(run: Run, lock: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock_module, "_TOUCH_EVERY", 0.01)
    with sole_driver(run):
        os.utime(lock, (0, 0))
        deadline = time.monotonic() + 30
        while lock.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
def test_a_lock_that_says_nothing_holds_for_a_while(run: Run, lock: Path, text: str):
    # It may be half written.
    lock.write_text(text)
    with pytest.raises(RunError, match="an unknown machine"), sole_driver(run):
        pass
    os.utime(lock, (0, 0))
    with sole_driver(run):
        pass


def test_a_lock_that_another_took_over_meanwhile_is_put_back(run: Run, lock: Path):
    _holder(lock, key="judged dead")
    judged = lock_module._read(lock)
    _holder(lock, key="the next one's")
    lock_module._remove_dead(lock, judged)
    assert lock_module._read(lock)["key"] == "the next one's"
    lock.unlink()
    lock_module._remove_dead(lock, judged)
    assert not lock.exists()


def test_a_folder_that_cannot_be_written_is_named(run: Run, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(lock_module, "_take", refuse)
    with pytest.raises(RunError, match=r"cannot be locked \(Permission denied\)"), sole_driver(run):
        pass


def test_a_driver_in_another_container_of_this_name_counts_by_its_signs(run: Run, lock: Path):
    _holder(lock, pid=2**22 + 1, processes="pid:[1]")
    with pytest.raises(RunError, match="gave a sign of life"), sole_driver(run):
        pass


def test_a_driver_that_is_hidden_from_us_counts_by_its_signs(
    run: Run, lock: Path, monkeypatch: pytest.MonkeyPatch
):
    def hidden(pid: int, signal: int) -> None:
        raise PermissionError

    _holder(lock, pid=2**22 + 1, processes=lock_module._process_namespace())
    monkeypatch.setattr(lock_module.os, "kill", hidden)
    with pytest.raises(RunError, match="gave a sign of life"), sole_driver(run):
        pass
