"""Callables that tests send to Dask workers; they must be importable there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from diffractory.errors import ExecutionError, RunError


def square(number: int) -> int:
    return number * number


def working_directory(_: int) -> str:
    return str(Path.cwd())


def fail_on_three(number: int) -> int:
    if number == 3:
        raise RunError("three is damaged", "bits flipped", "repair it")
    if number == 4:
        raise ExecutionError("four failed")
    return number


def break_on_two(number: int) -> int:
    if number == 2:
        raise ZeroDivisionError("a defect")
    return number


def log_and_nap(task: tuple[str, int]) -> int:
    """Leave a trace of having started, then take a while."""
    folder, number = task
    (Path(folder) / f"started-{number}").touch()
    time.sleep(0.15)
    return number


def die_once(task: tuple[str, int]) -> int:
    """Kill the worker process at the first attempt, succeed at the second."""
    folder, number = task
    trace = Path(folder) / f"died-{number}"
    if number == 1 and not trace.exists():
        trace.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def process_id() -> int:
    return os.getpid()
