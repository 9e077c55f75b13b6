"""A second process beside this one, for work that holds the interpreter's lock."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import active_children, get_context
from typing import Any

from diffractory.interrupts import out_of_reach_of_ctrl_c


class _Pool(ProcessPoolExecutor):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        # Whoever has work done waits for it in one place, and hears there that the process has died.
        try:
            return super().submit(fn, *args, **kwargs)
        except BrokenExecutor as error:
            broken: Future[Any] = Future()
            broken.set_exception(error)
            return broken


@contextmanager
def helper_process(*modules: str) -> Iterator[Executor]:
    """Start a process that imports modules while this one goes on with its own work.

    Where the block ends in an error, the process stops what it is doing, cleans up and ends.

    Parameters
    ----------
    *modules : str
        What the process will need: it is there when the first work is.
    """
    # Not forked: this process has threads, whose locks a copy of it would find locked for ever.
    pool = _Pool(1, get_context("spawn"))
    others = {*active_children()}
    try:
        with out_of_reach_of_ctrl_c():
            pool.submit(_import, modules)
        yield pool
    except BaseException:
        # Whoever stops here does not wait for what would not be used any more.
        for process in {*active_children()} - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _import(modules: tuple[str, ...]) -> None:
    # What it writes is removed by those who write, if they are told by an exception.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    for module in modules:
        import_module(module)
    # No garbage: looking for some among what modules hold would take half a second when this process ends.
    gc.freeze()
