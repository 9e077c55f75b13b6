"""No worker is started that would have no part of the work."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffractory.cli.engines import engine_here


@pytest.mark.parametrize(
    ("cluster", "workers", "parts", "started"),
    [("threads", 3, None, 3), ("threads", 3, 2, 2), ("threads", 2, 5, 2), ("local", 2, 1, 1)],
)
def test_as_many_workers_as_there_are_parts(
    tmp_path: Path, cluster: str, workers: int, parts: int | None, started: int
) -> None:
    with engine_here(cluster, workers, tmp_path, parts=parts) as engine:
        assert engine.workers == started


def test_nothing_is_started_for_nothing(tmp_path: Path) -> None:
    with engine_here("local", 2, tmp_path, parts=0) as engine:
        assert engine.description == "this process"
        assert list(engine.run(len, [])) == []
