"""Settings that do not change results, never hashed: workers, memory, disk, and where the user keeps them."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterator
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

        Returns
        -------
        Resources
        """
        count = workers or usable_cores()
        memory = machine_memory()
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        return cls(count, int(_MEMORY_SHARE * memory / count), shutil.disk_usage(existing).free)


def usable_cores() -> int:
    """Return how many cores this process may use: those it is bound to, or its container's share of them."""
    return max(1, math.ceil(min([len(os.sched_getaffinity(0)), *_processor_limits()])))


def machine_memory() -> int:
    """Return the bytes of memory this process may use: the machine's, or its container's limit."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_memory_limits()])


_OWN_GROUPS, _MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def _memory_limits(own: Path = _OWN_GROUPS, mounted: Path = _MOUNTED) -> list[int]:
    """Return the limits, in bytes, that a container or a job scheduler sets on this process."""
    limits: list[int] = []
    for group, is_older in _control_groups("memory", own, mounted):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int((group / ("memory.limit_in_bytes" if is_older else "memory.max")).read_text()))
    return limits


def _processor_limits(own: Path = _OWN_GROUPS, mounted: Path = _MOUNTED) -> list[float]:
    """Return the limits, in cores, that a container or a job scheduler sets on this process."""
    limits: list[float] = []
    for group, is_older in _control_groups("cpu", own, mounted):
        with contextlib.suppress(OSError, ValueError):
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if is_older else ("cpu.max",)
            quota, period = (int(word) for name in names for word in (group / name).read_text().split())
            # The older groups write -1, the newer ones a word, where there is no limit.
            limits += [quota / period] if quota > 0 and period > 0 else []
    return limits


def _control_groups(controller: str, own: Path, mounted: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the folders of all control groups around this process, and whether they are of the older kind."""
    lines = own.read_text().splitlines() if own.is_file() else []
    for _, controllers, group in (line.split(":", 2) for line in lines):
        if controllers and controller not in controllers.split(","):
            continue
        root = mounted / controller if controllers else mounted
        folder = root / group.strip("/")
        # The tightest of all groups around this process counts; most of them set none.
        for level in (folder, *(parent for parent in folder.parents if parent.is_relative_to(root))):
            yield level, bool(controllers)


def speed_file() -> Path:
    """Return where the measured speed of this machine is kept: the user's configuration folder."""
    return _configuration_folder() / "speed.json"


def config_file() -> Path:
    """Return where the user's settings are kept, unless another file is named."""
    return _configuration_folder() / "config.toml"


def _configuration_folder() -> Path:
    # Not Path.home(): it fails where neither HOME nor an account is known.
    base = os.environ.get("XDG_CONFIG_HOME") or Path(os.environ.get("HOME", ".")) / ".config"
    return Path(base) / "diffractory"
