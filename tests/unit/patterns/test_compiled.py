from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

from diffractory.patterns.compiled import is_compiled

SOURCE = """
from numba import njit

@njit(cache=True)
def twice(x):
    return 2 * x
"""


@pytest.fixture
def module(tmp_path: Path) -> ModuleType:
    path = tmp_path / "kernels.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_kernel_is_compiled_once_it_was_called(module: ModuleType) -> None:
    assert not is_compiled(module.twice)
    assert module.twice(3) == 6
    assert is_compiled(module.twice)


def test_a_kernel_whose_source_changed_since_is_to_be_compiled(module: ModuleType) -> None:
    module.twice(3)
    later = Path(str(module.__file__)).stat().st_mtime + 1000.0
    os.utime(str(module.__file__), (later, later))
    assert not is_compiled(module.twice)
