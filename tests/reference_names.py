"""The names that the API reference lists, and what their docstrings lack."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

API = Path(__file__).parents[1] / "docs" / "reference" / "api"
DOCUMENTED = re.compile(r"^\.\. auto(?:function|class|exception):: (\S+)", re.MULTILINE)
#: A section's heading and the dashes below it.
HEADING = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)


def documented() -> list[str]:
    """Return the full names of the API reference."""
    return [name for page in sorted(API.glob("*.rst")) for name in DOCUMENTED.findall(page.read_text())]


def callables_of(name: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield a documented name and, of a class, its public methods, as the reference shows them."""
    module, _, attribute = name.rpartition(".")
    thing = getattr(import_module(module), attribute)
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        return
    yield name, thing
    if inspect.isclass(thing):
        for member, value in vars(thing).items():
            function = getattr(value, "__func__", value)
            if not member.startswith("_") and inspect.isfunction(function):
                yield f"{name}.{member}", function


def lacking(thing: Callable[..., Any]) -> list[str]:
    """Return what the docstring of a function or class lacks: parameters by name, and what is returned.

    A method that takes nothing may say in its first word what it returns.
    """
    text = inspect.cleandoc(thing.__doc__ or "")
    _, *parts = HEADING.split(text)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    lines = re.findall(r"^(\S[^:\n]*?)(?: :.*)?$", sections.get("Parameters", ""), re.MULTILINE)
    named = {word.strip(" *") for line in lines for word in line.split(",")}
    signature = inspect.signature(thing)
    wanted = [
        parameter.name
        for parameter in signature.parameters.values()
        # The one value of a spec's ``kind`` only tells specs apart.
        if parameter.name not in ("self", "cls") and not (inspect.isclass(thing) and parameter.name == "kind")
    ]
    missing = [] if text else ["docstring"]
    missing += [f"parameter {name}" for name in wanted if name not in named]
    returns = signature.return_annotation not in (None, "None", inspect.Signature.empty)
    says = not wanted and text.startswith(("Return ", "Yield "))
    if returns and not inspect.isclass(thing) and not says and not {"Returns", "Yields"} & set(sections):
        missing.append("what is returned")
    return missing
