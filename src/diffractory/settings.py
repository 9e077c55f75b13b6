"""Settings that do not change results: workers, memory, disk. Never hashed."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

#: Share of the machine's memory that all workers together may plan to use.
_MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class Resources:
    """What a machine offers to a run.

    Parameters
    ----------
    workers : int
        Single-threaded worker processes.
    worker_memory : int
        Bytes each worker may use.
    disk_free : int
        Bytes free where the run is stored.
    """

    workers: int
    worker_memory: int
    disk_free: int

    @classmethod
    def of_this_machine(cls, folder: Path, workers: int | None = None) -> Resources:
        """Measure the machine: one worker a core, memory shared evenly.

        Parameters
        ----------
        folder : Path
            Where results go; need not exist yet.
        workers : int, optional
            Number of workers; the cores available to this process by default.
        """
        count = workers or usable_cores()
        memory = machine_memory()
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        return cls(count, int(_MEMORY_SHARE * memory / count), shutil.disk_usage(existing).free)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def machine_memory() -> int:
    """Return the bytes of memory this process may use: the machine's, or its container's limit."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_memory_limits()])


def _memory_limits(
    own: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")
) -> list[int]:
    """Return the limits, in bytes, that a container or a job scheduler sets on this process."""
    limits: list[int] = []
    lines = own.read_text().splitlines() if own.is_file() else []
    for _, controllers, group in (line.split(":", 2) for line in lines):
        if not controllers:
            root, name = mounted, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = mounted / "memory", "memory.limit_in_bytes"
        else:
            continue
        folder = root / group.strip("/")
        # The tightest of all groups around this process counts; most of them set none.
        for level in (folder, *(parent for parent in folder.parents if parent.is_relative_to(root))):
            with contextlib.suppress(OSError, ValueError):
                limits.append(int((level / name).read_text()))
    return limits


def speed_file() -> Path:
    """Return where the measured speed of this machine is kept: the user's configuration folder."""
    # Not Path.home(): it fails where neither HOME nor an account is known.
    base = os.environ.get("XDG_CONFIG_HOME") or Path(os.environ.get("HOME", ".")) / ".config"
    return Path(base) / "diffractory" / "speed.json"


def human_bytes(count: float) -> str:
    """Return a number of bytes for people: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000.0 or unit == "TB":
            break
        count /= 1000.0
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def human_seconds(seconds: float) -> str:
    """Return a duration for people: 12 s, 3.4 min, 5.6 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
