"""Shared fixtures: crystals, and where the outside data lie if they are there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

# As workers have it: with several threads, sums of a BLAS differ in their last bits.
threadpool_limits(limits=1, user_api="blas")

# Compiled kernels and py4DSTEM make first calls slow: no deadline, and the same examples every run.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("default")
os.environ.setdefault("MPLBACKEND", "Agg")
# The speed of the developer's machine must not decide how tests cut their partitions.
_CONFIG = tempfile.TemporaryDirectory(prefix="diffractory-tests-", ignore_cleanup_errors=True)
os.environ["XDG_CONFIG_HOME"] = _CONFIG.name


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of outside data beside the repository; the test is skipped where it is absent."""
    folder = Path(__file__).parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the outside data are not beside the repository")
    return folder
