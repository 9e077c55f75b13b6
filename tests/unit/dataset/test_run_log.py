from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffractory.dataset.partition import simulate_partition
from diffractory.dataset.run import PEAKS, Run
from diffractory.dataset.run_log import RunLog, run_log
from diffractory.errors import RunError


def _lines(run: Run) -> list[dict]:
    (path,) = (run.path / "log").iterdir()
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_partition_has_a_line_of_its_own(run: Run):
    record = simulate_partition(run.path, 0)
    with run_log(run) as log:
        log.finished(record)
        assert len(_lines(run)) == 1, "a line is there as soon as it is written"
        log.failed(PEAKS, 1, RunError("it broke\nin two", "by a hammer", "glue it"))
    done, failed = _lines(run)
    assert (done["stage"], done["partition"], done["status"], done["host"]) == (PEAKS, 0, "done", record.host)
    assert done["rows"] == sum(record.counts)
    assert done["bytes"] == sum(shard.size for shard in record.shards.values())
    assert done["predicted_seconds"] == run.plan.partitions[0].seconds
    assert done["processor_seconds"] == record.processor_seconds > 0.0
    assert (failed["partition"], failed["status"]) == (1, "failed")
    assert "by a hammer" in failed["error"]


def test_a_folder_that_cannot_hold_a_log_is_named(run: Run):
    Path(run.path / "log").write_text("in the way")
    with pytest.raises(RunError, match=r"the log .*log.* cannot be written"), run_log(run):
        pass


def test_a_disk_that_is_full_stops_nothing(run: Run):
    with run_log(run) as log, Path("/dev/full").open("wb", buffering=0) as full:
        RunLog(run, full).failed(PEAKS, 0, RunError("it broke"))
        log.failed(PEAKS, 1, RunError("it broke"))
    assert [line["partition"] for line in _lines(run)] == [1]
