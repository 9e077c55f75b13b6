"""Ctrl-C and worker processes: who hears it, and who is told by others."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def out_of_reach_of_ctrl_c() -> Iterator[None]:
    """Block SIGINT for threads and processes that are started here; it reaches this thread afterwards.

    A terminal sends it to workers, too. The process that started them ends them; they must not break
    off by themselves and print how.
    """
    # Its first start unblocks signals in the thread that needs it.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
