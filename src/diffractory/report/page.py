"""One HTML page that opens offline: headings, text, tables and figures, all inside the file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from diffractory.errors import DiffractoryError
from diffractory.storage import write_atomic

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #333; max-width: 72rem; margin: 2rem auto }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; margin: 1rem 0 }
.wide { overflow-x: auto } caption { max-width: 60rem }
th, td { padding: .25rem .8rem; text-align: left; border-bottom: 1px solid #e5e5e5 }
caption { text-align: left; padding-bottom: .3rem } th { background: #f6f6f6 }
img { max-width: 100%; height: auto } figure { margin: 1rem 0 }
caption, figcaption { color: #666; font-size: .9rem }
.notes { background: #fff6e0; border-left: 4px solid #e69f00; padding: .5rem .8rem .5rem 2rem }
pre { background: #f6f6f6; padding: .6rem; overflow-x: auto }
"""


class Page:
    """An HTML page, built from top to bottom.

    Parameters
    ----------
    title : str
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """Start a section."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def notes(self, texts: Sequence[str]) -> None:
        """Add what whoever reads the page should know first, in a box; nothing where there is none."""
        if texts:
            items = "".join(f"<li>{html.escape(text)}</li>" for text in texts)
            self._parts.append(f'<ul class="notes">{items}</ul>')

    def table(self, caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table; cells are plain text."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        self._parts.append(
            f'<div class="wide"><table><caption>{html.escape(caption)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def figure(self, figure: Figure, caption: str) -> None:
        """Add a figure with its caption, which also is its text for those who cannot see it."""
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=140)
        self.picture(stream.getvalue(), caption)

    def picture(self, png: bytes, caption: str) -> None:
        """Add a picture that is drawn already, with its caption."""
        data = base64.b64encode(png).decode()
        words = html.escape(caption)
        self._parts.append(
            f'<figure><img alt="{words}" src="data:image/png;base64,{data}">'
            f"<figcaption>{words}</figcaption></figure>"
        )

    def pre(self, text: str) -> None:
        """Add text as it is, such as JSON."""
        self._parts.append(f"<pre>{html.escape(text)}</pre>")

    def write(self, path: Path) -> None:
        """Write the page, whole or not at all.

        Raises
        ------
        DiffractoryError
            If the file cannot be written.
        """
        title = html.escape(self._title)
        content = (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n"
            + "\n".join(self._parts)
            + "\n</body></html>\n"
        )
        try:
            write_atomic(path, content)
        except OSError as error:
            raise DiffractoryError(
                f"cannot write {path}", str(error), "Choose a folder you may write to"
            ) from None
