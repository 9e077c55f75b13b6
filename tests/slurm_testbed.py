"""The SLURM of the tests, and what is asked of it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from diffractory.execution.site import Site, SlurmRequest

TESTBED = Path(__file__).parents[1] / "cluster" / "testbed"
#: What a job of the tests is like; loopback, because the nodes are this machine.
SITE = {"partition": "main", "walltime": "00:10:00", "cores": 1, "memory": "1200 MiB", "interface": "lo"}


def command(*words: str, seconds: float = 120) -> str:
    """Run a command that must succeed and return what it prints."""
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=seconds).stdout


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.1)


@dataclass
class Testbed:
    """The SLURM of the tests."""

    folder: Path

    __test__ = False

    def up(self) -> None:
        """Start what does not run."""
        answer = subprocess.run(
            [TESTBED / "up.sh", self.folder], capture_output=True, text=True, timeout=400, check=False
        )
        assert answer.returncode == 0, answer.stderr

    def crash(self, node: str) -> None:
        """Kill a node with everything on it."""
        command(str(TESTBED / "down.sh"), "--crash", node, str(self.folder))

    def jobs(self, states: str = "PENDING,RUNNING") -> list[str]:
        """Return the ids of all jobs in these states."""
        return command("squeue", "--noheader", "--format=%i", f"--states={states}").split()

    def node_of(self, job: str) -> str:
        return command("squeue", "--noheader", "--format=%N", f"--jobs={job}").strip()


@dataclass
class Asked:
    """Requests for jobs of one test, and what people were told."""

    folder: Path
    told: list[str] = field(default_factory=list)

    def jobs(self, count: int = 1, **changes: object) -> SlurmRequest:
        return SlurmRequest(Site(**SITE | changes), count, self.folder, self.told.append)

    def began(self) -> list[tuple[int, str]]:
        """Return number and job of each task that began, in order."""
        file = self.folder / "began"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(number), job) for number, job in (line.split() for line in lines)]

    def tasks(self, count: int) -> list[tuple[str, int]]:
        return [(str(self.folder), number) for number in range(count)]
