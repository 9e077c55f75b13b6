"""Examples in docstrings and in the documentation give what they say."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
MODULES = sorted(path for path in SOURCE.rglob("*.py") if ">>> " in path.read_text())
PAGES = sorted(
    path
    for path in (ROOT / "docs").rglob("*.md")
    if "_build" not in path.parts and ">>> " in path.read_text()
)


@pytest.fixture(autouse=True)
def _stand_in_the_example_folder(example_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(example_folder)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_docstrings_say_what_happens(path: Path) -> None:
    name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    failed, attempted = doctest.testmod(import_module(name), optionflags=OPTIONS)
    assert attempted > 0
    assert failed == 0


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_say_what_happens(path: Path) -> None:
    # Only what is fenced: the fence would be taken for the output of the last line.
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(code, {}, path.stem, str(path), 0)
    failed, attempted = doctest.DocTestRunner(optionflags=OPTIONS).run(test)
    assert attempted > 0
    assert failed == 0
