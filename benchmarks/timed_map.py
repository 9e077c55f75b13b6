"""Runs ``diffractory map`` and writes what each stage took: ``timed_map.py TIMES.json SCAN --out DIR …``."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

#: Stages: module, function, what it is called in the results. Nested ones are indented.
STAGES = (
    ("diffractory.cli.map_scan", "read_bragg_scan", "reading"),
    ("diffractory.cli.map_scan", "predict_scan", "prediction, filter and particles"),
    ("diffractory.scan.mapping.prediction", "lattices_of", "  lattice search"),
    ("diffractory.scan.mapping.prediction", "compute_features", "  other features"),
    ("diffractory.scan.mapping.prediction", "find_overlaps", "  overlap flag"),
    ("diffractory.scan.mapping.prediction", "_by_particle", "  particles"),
    ("diffractory.cli.map_scan", "to_dataset", "dataset"),
    ("diffractory.cli.map_scan", "write_map", "writing Zarr"),
    ("diffractory.cli.map_scan", "write_netcdf", "writing NetCDF"),
    ("diffractory.cli.map_scan", "write_particles", "writing particles"),
    ("diffractory.cli.map_scan", "write_map_report", "figures and page"),
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
    from diffractory.cli import map_scan  # noqa: F401
    from diffractory.cli.app import app

    seconds = {"start and imports": time.time() - psutil.Process().create_time()}
    for module, name, label in STAGES:
        _timed(import_module(module), name, seconds, label)
    try:
        app(["map", *words])
    except SystemExit as end:
        if end.code:
            raise
    used = sum(os.times()[:4])  # of this process and of those it started
    times.write_text(json.dumps({"processor_seconds": used, "stages": seconds}))


if __name__ == "__main__":
    run_timed(Path(sys.argv[1]), sys.argv[2:])
