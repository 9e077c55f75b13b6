"""What benchmarks share: what they ran on, and how their results are written."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from diffractory.storage import write_atomic

_PACKAGES = (
    "diffractory",
    "dask",
    "numpy",
    "scipy",
    "numba",
    "scikit-learn",
    "py4DSTEM",
    "pymatgen",
    "zarr",
    "xarray",
)


def command() -> str:
    """Return the command line, without the folders of this machine."""
    return shlex.join(["python", *(Path(word).name if word.startswith("/") else word for word in sys.argv)])


def describe() -> dict[str, Any]:
    """Return date, versions, processor, cores and memory."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown"
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "machine": {
            "processor": model,
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(memory / 2**30, 1),
            "system": platform.platform(),
        },
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write results as JSON that people can read, whole or not at all."""
    write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
