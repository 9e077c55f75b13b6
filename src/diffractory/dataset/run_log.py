"""One line of JSON for each partition that a driver saw end, finished or failed: ``RUN/log/*.jsonl``."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

from diffractory.dataset.records import Record
from diffractory.dataset.run import Run
from diffractory.errors import RunError


@dataclass(frozen=True)
class RunLog:
    """The log of one driver; every driver writes a file of its own.

    Parameters
    ----------
    run : Run
    stream : file, unbuffered
    """

    run: Run
    stream: RawIOBase

    def finished(self, record: Record) -> None:
        """Note that a partition is on disk."""
        self._write(
            stage=record.stage,
            partition=record.partition,
            status="done",
            host=record.host,
            seconds=record.seconds,
            processor_seconds=record.processor_seconds,
            rows=sum(record.counts),
            bytes=sum(shard.size for shard in record.shards.values()),
            dense_solves=record.dense_solves,
        )

    def failed(self, stage: str, partition: int, error: Exception) -> None:
        """Note that a partition failed, and why."""
        self._write(stage=stage, partition=partition, status="failed", error=str(error))

    def _write(self, **line: object) -> None:
        planned = self.run.plan.partitions[int(str(line["partition"]))]
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = json.dumps({"time": when, **line, "predicted_seconds": planned.seconds})
        # Records are what counts: a log that cannot be written, on a full disk, stops nothing.
        with contextlib.suppress(OSError):
            self.stream.write(f"{text}\n".encode())


@contextmanager
def run_log(run: Run) -> Iterator[RunLog]:
    """Open a new log in a run folder.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{platform.node()}-{os.getpid()}.jsonl"
    path: Path = run.path / "log" / name
    try:
        path.parent.mkdir(exist_ok=True)
        # Unbuffered: whoever follows the file sees whole lines, as soon as they are written.
        stream = path.open("ab", buffering=0)
    except OSError as error:
        raise RunError(
            f"the log {path} cannot be written ({error.strerror or error})",
            fix="Make the run folder writable, or make room on its disk",
        ) from None
    with stream:
        yield RunLog(run, stream)
