"""One driver a run: a lock file that says who drives it, and lives on file systems without locks.

The lock is a file made exclusively, touched every few seconds by its driver, and removed at the end. A
driver that was killed leaves it behind; it counts for nothing once its process is gone, or, seen from
another machine, once nobody touched it for a while.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffractory.dataset.run import Run
from diffractory.errors import RunError

_NAME = ".driver.json"
#: Seconds between signs of life, and after how many without one a driver elsewhere is taken for dead:
#: far more, as clocks differ and file systems on a network are slow.
_TOUCH_EVERY, _DEAD_AFTER = 15.0, 180.0


@contextmanager
def sole_driver(run: Run) -> Iterator[None]:
    """Be the only one that drives a run, until the end of the block.

    Raises
    ------
    RunError
        If another process drives it, or its folder cannot be written.
    """
    lock = run.path / _NAME
    mine = {
        "host": platform.node(),
        "pid": os.getpid(),
        "birth": _birth(os.getpid()),
        "processes": _process_namespace(),
        "key": uuid.uuid4().hex,
    }
    try:
        _take(lock, mine)
    except OSError as error:
        raise RunError(
            f"{run.path} cannot be locked ({error.strerror or error})",
            fix="Make the run folder writable, or make room on its disk",
        ) from None
    ended = threading.Event()
    thread = threading.Thread(target=_stay_alive, args=(lock, ended), daemon=True, name="driver-lock")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if _read(lock).get("key") == mine["key"]:
            lock.unlink(missing_ok=True)


def _take(lock: Path, mine: dict[str, object]) -> None:
    for _ in range(3):
        try:
            stream = lock.open("x")
        except FileExistsError:
            holder = _read(lock)
            _refuse_if_alive(lock, holder)
            _remove_dead(lock, holder)
            continue
        try:
            with stream:
                json.dump(mine, stream)
        except OSError:
            # Nobody's: it would keep everybody out until it is old.
            lock.unlink(missing_ok=True)
            raise
        return
    raise _driven(lock, "others start and stop driving it at this moment", "Try again")


def _remove_dead(lock: Path, holder: dict[str, object]) -> None:
    """Remove the lock of a dead driver, but not one that somebody else took over meanwhile."""
    aside = lock.with_name(f"{_NAME}.{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        lock.rename(aside)
        if _read(aside) != holder:
            with contextlib.suppress(FileExistsError):
                os.link(aside, lock)
        aside.unlink()


def _refuse_if_alive(lock: Path, holder: dict[str, object]) -> None:
    try:
        silent = time.time() - lock.stat().st_mtime
    except FileNotFoundError:
        return
    who = f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown machine')}"
    pid = holder.get("pid")
    if _would_be_seen(holder, pid):
        if isinstance(pid, int) and holder.get("birth") == _birth(pid) != "":
            raise _driven(lock, f"{who} does", "Wait for it, or stop it: what is finished is kept")
    elif silent < _DEAD_AFTER:
        raise _driven(
            lock,
            f"{who} gave a sign of life {max(silent, 0.0):.0f} s ago",
            f"Wait for it or stop it. If it is dead already, try again in {_DEAD_AFTER - silent:.0f} s",
        )


def _driven(lock: Path, why: str, fix: str) -> RunError:
    return RunError(f"{lock.parent} is driven by another command", why, fix)


def _read(lock: Path) -> dict[str, object]:
    """Return what a lock file says; nothing if it is unreadable or still being written."""
    try:
        content = json.loads(lock.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _birth(pid: int) -> str:
    """Return when a process was started, as the kernel counts; nothing if there is none such."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The name, in brackets, may hold anything; state and start time are the 1st and the 20th word after it.
    words = text.rpartition(")")[2].split()
    # A zombie does nothing any more: it only waits for its parent to look.
    return "" if words[0] in "ZX" else words[19]


def _would_be_seen(holder: dict[str, object], pid: object) -> bool:
    """Tell whether the process that holds a lock could be seen from here if it still ran."""
    here = _process_namespace()
    # Containers of one machine may share its name, and not its processes.
    if (holder.get("host"), holder.get("processes", here)) != (platform.node(), here):
        return False
    if not isinstance(pid, int) or _birth(pid):
        return True
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False  # it runs, hidden: another user's
    except (OSError, OverflowError):
        pass
    return True


def _process_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _stay_alive(lock: Path, ended: threading.Event) -> None:
    while not ended.wait(_TOUCH_EVERY):
        with contextlib.suppress(OSError):
            os.utime(lock)
