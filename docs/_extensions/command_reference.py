"""The command-line reference, written from the commands themselves so that it cannot lag behind them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

PAGE = "reference/command-line.md"
HEAD = """\
# Command line

Written from the commands' own `--help`. A command ends with code 0 when it is done; when it is not, with
another one and a message that says what, why and what to do.
"""


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command with its full name, sub-commands after their group."""
    from typer.main import get_command

    from diffractory.cli.app import app

    root = get_command(app)
    context = root.make_context("diffractory", [], resilient_parsing=True)
    for name in root.list_commands(context):
        _, command, _ = root.resolve_command(context, [name])
        yield from _with_children(f"diffractory {name}", command)


def _with_children(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", {})
    if not children:
        yield name, command
    for child, sub in children.items():
        yield from _with_children(f"{name} {child}", sub)


def _plain(text: str | None) -> str:
    """Return help as Markdown: paragraphs joined, signs that Markdown would read escaped."""
    text = re.sub(r"\[/?(bold|dim|italic)\]", "", text or "")
    paragraphs = [" ".join(lines.split()) for lines in text.split("\n\n")]
    return "\n\n".join(re.sub(r"([*_<>|$])", r"\\\1", paragraph) for paragraph in paragraphs)


def _row(names: str, text: str) -> str:
    return f"| `{names}` | {_plain(text)} |".replace("` |  |", "` | |")


def _section(name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    records = (option.get_help_record(context) for option in command.params if option.name != "help")
    rows = [_row(names.replace("|", r"\|"), text) for names, text in filter(None, records)]
    usage = " ".join((name, *command.collect_usage_pieces(context)))
    parts = [f"## {name}", _plain(command.help), f"```\n{usage}\n```"]
    parts += ["\n".join(["| Argument or option | |", "|---|---|", *rows])] if rows else []
    parts += [f"```\n{command.epilog.removeprefix('Example: ')}\n```"] if command.epilog else []
    return "\n\n".join(parts) + "\n"


def page() -> str:
    """Return the page."""
    return HEAD + "\n" + "\n".join(_section(name, command) for name, command in commands())


def write_page(app: Sphinx, _: Config) -> None:
    """Write the page where it differs from what is there."""
    path = Path(app.srcdir) / PAGE
    text = page()
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the page before documents are looked for."""
    app.connect("config-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
