"""Examples in docstrings run as they stand."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import diffractory

MODULES = [module.name for module in pkgutil.walk_packages(diffractory.__path__, "diffractory.")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    if "torch" in name:
        pytest.importorskip("torch", reason="PyTorch is optional")
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_the_public_entry_has_an_example() -> None:
    simulate = importlib.import_module("diffractory.scattering.simulate")
    found = doctest.DocTestFinder().find(simulate.simulate)
    assert sum(len(test.examples) for test in found) > 3
