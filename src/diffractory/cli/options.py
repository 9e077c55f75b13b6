"""Options that several commands share, and how their text is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffractory.errors import SpecError

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]
ClusterOption = Annotated[
    str,
    typer.Option(
        metavar="WHERE",
        help="Where work runs: local (Dask workers), inline, or tcp://host:port of a scheduler.",
    ),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Local worker processes, one core each; all cores by default.")
]

#: More thicknesses than this in one range is a slip of the pen.
_MAX_THICKNESSES = 100_000


def parse_thicknesses(text: str) -> tuple[float, ...]:
    """Read thicknesses in Å: ``200``, ``100,200,300`` or ``20:2000:20`` (both ends included).

    Raises
    ------
    SpecError
        If the text is none of these.
    """
    try:
        if ":" not in text:
            return tuple(float(part) for part in text.split(","))
        start, stop, step = (float(part) for part in text.split(":"))
        if not step > 0 or not stop >= start or (stop - start) / step > _MAX_THICKNESSES:
            raise ValueError
    except ValueError:
        raise SpecError(
            f"--thickness {text!r} cannot be read",
            fix="Write 200, or 100,200,300, or first:last:step such as 20:2000:20 (Å)",
        ) from None
    count = int((stop - start) / step + 1e-9) + 1
    return tuple(round(start + i * step, 6) for i in range(count))
