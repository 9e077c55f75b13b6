"""A second process beside this one, for work that holds the interpreter's lock."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context

from diffractory.interrupts import out_of_reach_of_ctrl_c


@contextmanager
def helper_process(module: str) -> Iterator[Executor]:
    """Start a process that imports a module while this one goes on with its own work.

    Parameters
    ----------
    module : str
        What the process will need: it is there when the first work is.
    """
    # Not forked: this process has threads, whose locks a copy of it would find locked for ever.
    pool = ProcessPoolExecutor(1, get_context("spawn"))
    try:
        with out_of_reach_of_ctrl_c():
            pool.submit(_import, module)
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _import(module: str) -> None:
    import_module(module)
