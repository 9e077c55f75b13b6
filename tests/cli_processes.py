"""The command line in processes of its own, as a terminal starts it, and what Ctrl-C does to it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: Loaded once by the server that processes are forked from: importing them takes seconds each time.
_LOADED = [
    "diffractory.cli.demo",
    "diffractory.cli.detect",
    "diffractory.cli.catalogue",
    "diffractory.cli.export",
]


class _PressCtrlC(logging.Handler):
    """Sends SIGINT to the whole process group, as a terminal does, when something is logged."""

    def __init__(self, moment: str) -> None:
        super().__init__()
        self._moment, self._parent, self._pressed = moment, os.getpid(), False

    def emit(self, record: logging.LogRecord) -> None:
        if self._moment in record.getMessage() and os.getpid() == self._parent and not self._pressed:
            self._pressed = True
            os.killpg(0, signal.SIGINT)


def _run(arguments: Sequence[str], moment: str, said: Path) -> None:
    os.setsid()
    with said.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    # As in a new process: libraries that the server has loaded may have changed it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.getLogger("diffractory").addHandler(_PressCtrlC(moment))
    from diffractory.cli.app import main

    sys.argv = ["diffractory", *arguments]
    main()


@dataclass(frozen=True)
class Interrupted:
    """How a command ended on which Ctrl-C was pressed."""

    code: int | None
    said: str
    left: bool


def interrupt(arguments: Sequence[object], moment: str, folder: Path, seconds: float = 120) -> Interrupted:
    """Run a command and press Ctrl-C as soon as it logs a moment; say how it ended.

    ``left`` is whether any process of its group still lives some seconds later.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LOADED)
    said = folder / "said.txt"
    words = [*(str(argument) for argument in arguments), "--verbose"]
    process = context.Process(target=_run, args=(words, moment, said))
    process.start()
    assert process.pid is not None
    process.join(seconds)
    deadline = time.monotonic() + 10
    while left := _group_lives(process.pid):
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.02)
    process.join()
    return Interrupted(process.exitcode, said.read_text(), left)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
