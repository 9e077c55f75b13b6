"""Units as microscopes' files write them, and their size in the units used here."""

from __future__ import annotations

import math
import re
from typing import Final

_LENGTHS: Final = {
    **dict.fromkeys(("A", "Å", "\u212b", "AA", "Ang", "angstrom", "angstroms", "Angstrom", "Angstroms"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 10.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "mum", "micron", "microns", "micrometer"), 1e4),
    "pm": 0.01, "m": 1e10,
}  # fmt: skip
_ANGLES: Final = {"mrad": 1e-3, "rad": 1.0, "deg": math.pi / 180.0, "°": math.pi / 180.0}
_DETECTOR_LENGTHS: Final = {"mm": 1.0, "cm": 10.0}
#: 1/nm, nm^-1, nm-1, nm**-1, nm⁻¹, also as k_nm^-1 (k = 1/d) and q_nm^-1 (q = 2π/d).
_RECIPROCAL: Final = re.compile(
    r"(?P<kind>[kq]_)?(?:1/(?P<below>[^\W\d]+)|(?P<unit>[^\W\d]+?)(?:\^-1|\*\*-1|-1|⁻¹))"
)


#: Words of TeX that say how a unit looks, not which it is.
_FONTS: Final = re.compile(r"\\(mathrm|mathring|text|rm|upmu)(?![a-z])")


def _plain(text: str) -> str:
    """Return a unit without blanks and TeX's own signs; a slash before its ``AA`` is a mistyped backslash."""
    known = _FONTS.sub(lambda word: "mu" if word[1] == "upmu" else "", text.replace("\u2212", "-"))
    return re.sub(r"^/(?=AA\W)", "", re.sub(r"[\s${}\\()]", "", known))


def length_unit(text: str) -> float | None:
    """Return the size of a unit of length on the sample in Å; None for another unit."""
    return _LENGTHS.get(_plain(text))


def reciprocal_unit(text: str) -> float | None:
    """Return the size of a unit of reciprocal length in Å⁻¹ (1/d, without 2π); None for another unit."""
    found = _RECIPROCAL.fullmatch(_plain(text))
    length = None if found is None else _LENGTHS.get(found["below"] or found["unit"])
    if found is None or length is None:
        return None
    return 1.0 / length / (2.0 * math.pi if found["kind"] == "q_" else 1.0)


def angle_unit(text: str) -> float | None:
    """Return the size of a unit of angle in rad; None for another unit."""
    return _ANGLES.get(_plain(text))


def detector_unit(text: str) -> float | None:
    """Return the size of a unit of length on a detector in mm; None for another unit."""
    return _DETECTOR_LENGTHS.get(_plain(text))
