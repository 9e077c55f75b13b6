"""Who Ctrl-C reaches."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

from diffractory.interrupts import out_of_reach_of_ctrl_c


def _blocked_signals() -> int:
    """Return the mask of blocked signals of a process started here."""
    lines = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    return int(next(line.split()[1] for line in lines.splitlines() if line.startswith("SigBlk")), 16)


@pytest.fixture
def _pythons_own_handler() -> Iterator[None]:
    """Undo what dask-jobqueue sets when it is imported."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_pythons_own_handler")
def test_processes_started_there_do_not_hear_it_and_this_one_hears_it_afterwards() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with out_of_reach_of_ctrl_c():
            assert _blocked_signals() & 1 << (signal.SIGINT - 1)
            # To this thread: others of the process, such as a pool's, have it not blocked.
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            reached = True
        pytest.fail("nobody heard it")
    assert reached
    assert not _blocked_signals() & 1 << (signal.SIGINT - 1)
