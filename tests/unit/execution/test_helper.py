"""A process beside this one."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

import worker_tasks
from diffractory.errors import ScanError
from diffractory.execution.helper import helper_process


def test_a_helper_is_another_process_with_the_module_loaded_and_hands_errors_back() -> None:
    with helper_process("colorsys", "sched") as helper:
        assert helper.submit(worker_tasks.loaded, "sched").result()[0]
        known, pid = helper.submit(worker_tasks.loaded, "colorsys").result()
        assert known
        assert pid != os.getpid()
        os.kill(pid, signal.SIGINT)  # Ctrl-C is for the one that started it
        with pytest.raises(ScanError, match="no scan"):
            helper.submit(worker_tasks.refuse).result()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_helper_that_has_died_says_so_where_its_work_is_waited_for() -> None:
    with helper_process("colorsys") as helper:
        os.kill(helper.submit(worker_tasks.process_id).result(), signal.SIGKILL)
        for _ in range(3):
            with pytest.raises(BrokenExecutor):
                helper.submit(worker_tasks.nap, 1).result()


def test_whoever_stops_does_not_wait_for_the_helper_which_cleans_up(tmp_path: Path) -> None:
    naps = []

    def stop() -> None:
        with helper_process("colorsys") as helper:
            helper.submit(worker_tasks.process_id).result()
            naps.append(helper.submit(worker_tasks.nap_and_clean_up, tmp_path / "partial", 20.0))
            while not (tmp_path / "partial").exists():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    with pytest.raises(SystemExit):
        naps[0].result()  # not slept to its end
    assert list(tmp_path.iterdir()) == []
