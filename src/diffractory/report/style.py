"""One look for all figures. Figures are plain objects: no pyplot, no global state, no display."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.errors import DiffractoryError
from diffractory.storage import atomic_path

#: Colour of each crystal system, the same in every figure and map: the seven hues of
#: Okabe & Ito (2008), which people with any common colour blindness can tell apart.
SYSTEM_COLOURS: Final[dict[str, str]] = dict(
    zip(
        CRYSTAL_SYSTEMS,
        ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2"),
        strict=True,
    )
)
#: Colour of what has no label.
UNLABELLED_COLOUR: Final = "#BBBBBB"
#: Colour of text and axes.
INK: Final = "#333333"

_FONT_SIZE: Final = 9.0
#: Files are a fiftieth larger than by default, and written in three quarters of the time.
_PNG: Final[dict[str, Any]] = {"pil_kwargs": {"compress_level": 4}}
#: Sharp on a screen, and a notebook of ten pictures stays below some hundred kilobytes.
_NOTEBOOK_DPI: Final = 100


class NotebookFigure(Figure):
    """A figure that notebooks show by themselves, without pyplot: the last value of a cell is drawn."""

    def savefig(self, *where: Any, **how: Any) -> None:
        """Write the figure; it lays itself out anew when it is written again."""
        layout, dpi = self.get_layout_engine(), self.dpi
        try:
            self.dpi = dpi if how.get("dpi") in (None, "figure") else how["dpi"]
            settle_layout(self)
            super().savefig(*where, **how)
        finally:
            self.dpi = dpi
            self.set_layout_engine(layout)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=_NOTEBOOK_DPI)
        return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure that lays itself out, and that notebooks show.

    Parameters
    ----------
    width, height : float
        Size in inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    return NotebookFigure(figsize=(width, height), layout="constrained", facecolor="white")


def settle_layout(figure: Figure) -> None:
    """Settle where everything goes, now and for good: matplotlib would draw all of it once more for that.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Changed in place.
    """
    if (layout := figure.get_layout_engine()) is not None and figure.axes:
        layout.execute(figure)
        if figure.legends or any(axes.get_aspect() != "auto" for axes in figure.axes):
            # Images that keep their shape are moved by the first: only then are they where they stay.
            layout.execute(figure)
    figure.set_layout_engine(None)


def figure_of(axes: Axes) -> Figure:
    """Return the figure that axes belong to."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def patch(colour: str, label: str) -> Patch:
    """Return a rectangle for a legend.

    Parameters
    ----------
    colour, label : str

    Returns
    -------
    matplotlib.patches.Patch
    """
    return Patch(facecolor=colour, edgecolor=INK, linewidth=0.5, label=label)


def frame(axes: Axes) -> None:
    """Draw the four sides of axes that hold an image, thin and in ink.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Changed in place.
    """
    for spine in axes.spines.values():
        spine.set_color(INK)
        spine.set_linewidth(0.6)


def tidy(axes: Axes) -> None:
    """Give axes the look of this package: ink, no box, a light grid behind the data.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Changed in place.
    """
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK, labelsize=_FONT_SIZE - 1)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(INK)
        text.set_fontsize(_FONT_SIZE)


def title(axes: Axes, text: str, above: float = 6.0) -> None:
    """Put a bold title at the left end of the axes, so many points above them."""
    axes.set_title(text, loc="left", fontsize=_FONT_SIZE + 1, fontweight="bold", color=INK, pad=above)


def save_figure(fig: Figure, path: Path | str, dpi: int = 150) -> None:
    """Write a figure; a reader sees the old file or the whole new one.

    Parameters
    ----------
    fig : Figure
        What to draw.
    path : Path or str
        Target; its suffix chooses the format (png, pdf, svg).
    dpi : int
        Pixels per inch.

    Raises
    ------
    DiffractoryError
        If matplotlib does not know the format, or the file cannot be written.
    """
    path = Path(path)
    known = sorted(fig.canvas.get_supported_filetypes())
    if path.suffix.lower().lstrip(".") not in known:
        raise DiffractoryError(
            f"cannot draw to {path}",
            f"{path.suffix or 'a name without suffix'!r} is no picture format",
            f"Use one of {', '.join(known)}",
        )
    if path.is_dir():
        raise DiffractoryError(f"cannot draw to {path}", "it is a folder", "Name a file")
    try:
        with atomic_path(path) as temporary:
            fig.savefig(temporary, dpi=dpi, **(_PNG if path.suffix.lower() == ".png" else {}))
    except OSError as error:
        raise DiffractoryError(f"cannot write {path} ({error})", fix="Choose another place") from None
