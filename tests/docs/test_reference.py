"""What is public is documented in full: parameters by name, and what is returned."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from reference_names import callables_of, documented, lacking

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9]*.py"))


def _imported(notebook: Path) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(notebook.read_text())) if isinstance(node, ast.ImportFrom)]
    return {
        f"{node.module}.{alias.name}"
        for node in nodes
        if (node.module or "").split(".")[0] == "diffractory"
        for alias in node.names
    }


@pytest.mark.parametrize("name", documented())
def test_docstrings_of_the_reference_are_complete(name: str) -> None:
    found = {place: lacking(thing) for place, thing in callables_of(name)}
    short = {place: missing for place, missing in found.items() if missing}
    assert short == {}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_notebooks_import_is_in_the_reference(notebook: Path) -> None:
    assert _imported(notebook) - set(documented()) == set()


def _whole(a: int, b: int) -> int:
    """Add.

    Parameters
    ----------
    a, b : int
        To be added.

    Returns
    -------
    int
    """
    return a + b


def _without_b(a: int, b: int) -> int:
    """Add.

    Parameters
    ----------
    a : int
        The one.

    Returns
    -------
    int
    """
    return a + b


def _without_result(a: int) -> int:
    """Return twice a number.

    Parameters
    ----------
    a : int
    """
    return 2 * a


def _of_one_sentence(a: int) -> int:
    """Return twice a number."""
    return 2 * a


def _that_takes_nothing() -> int:
    """Return two."""
    return 2


def _that_returns_nothing(a: int) -> None:
    """Take a number.

    Parameters
    ----------
    a : int
    """


def test_what_a_docstring_lacks_is_seen() -> None:
    assert lacking(_whole) == lacking(_that_takes_nothing) == lacking(_that_returns_nothing) == []
    assert lacking(_without_b) == ["parameter b"]
    assert lacking(_without_result) == ["what is returned"]
    assert lacking(_of_one_sentence) == ["parameter a", "what is returned"]
    assert lacking(lambda: None) == ["docstring"]
