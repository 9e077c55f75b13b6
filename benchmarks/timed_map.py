"""Runs ``diffractory map`` and writes what each stage took: ``timed_map.py TIMES.json SCAN --out DIR …``."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

#: Names the environment variable that says when whoever wants to know started this process.
BEGAN = "TIMED_MAP_BEGAN"
#: Stages: module, function, what it is called in the results. Nested ones are indented.
STAGES = (
    ("diffractory.scan.reading.emd_reader", "read_bragg_scan", "reading"),
    ("diffractory.cli.mapping", "predict_scan", "prediction, filter and particles"),
    ("diffractory.scan.mapping.prediction", "lattices_of", "  lattice search"),
    ("diffractory.scan.mapping.prediction", "compute_features", "  other features"),
    ("diffractory.scan.mapping.prediction", "find_overlaps", "  overlap flag"),
    ("diffractory.scan.mapping.prediction", "_by_particle", "  particles"),
    ("diffractory.cli.mapping", "to_dataset", "dataset"),
    ("diffractory.cli.mapping", "write_particles", "writing particles"),
    ("diffractory.cli.mapping", "write_map_report", "figures and page"),
)


def _timed(module: Any, name: str, seconds: dict[str, float], label: str) -> None:
    function: Callable[..., Any] = getattr(module, name)

    def wrapper(*args: Any, **keywords: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **keywords)
        finally:
            # Stages inside blocks run on several threads: their seconds add up to more than the clock's.
            seconds[label] = seconds.get(label, 0.0) + time.perf_counter() - began

    setattr(module, name, wrapper)


def run_timed(times: Path, words: list[str]) -> None:
    """Run ``diffractory map`` here, and write what each stage took."""
    from diffractory.cli import map_scan
    from diffractory.cli.app import app

    seconds: dict[str, float] = {}
    start_helper = map_scan._helper

    @contextmanager
    def then_time(*args: Any) -> Iterator[Any]:
        """Import what the command imports next, where it does, and time it from there on."""
        with start_helper(*args) as helper:
            for module, name, label in STAGES:
                _timed(import_module(module), name, seconds, label)
            seconds["start and imports"] = time.time() - began
            yield helper

    began = float(os.environ.get(BEGAN) or time.time())
    map_scan._helper = then_time
    try:
        app(["map", *words])
    except SystemExit as end:
        if end.code:
            raise
    used = sum(os.times()[:4])  # of this process and of those it started
    times.write_text(json.dumps({"processor_seconds": used, "stages": seconds}))


if __name__ == "__main__":
    run_timed(Path(sys.argv[1]), sys.argv[2:])
