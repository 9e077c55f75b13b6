"""Errors: one base class, and a message that says what is wrong, why, and what to do.

The command line turns every :class:`DiffractoryError` into that message and the class's exit
code; anything else that escapes is a defect of this package.
"""

from __future__ import annotations

from typing import ClassVar


class DiffractoryError(Exception):
    """Base of every error this package raises on purpose.

    Parameters
    ----------
    what : str
        What is wrong, with the offending value or path.
    why : str, optional
        Why it is refused.
    fix : str, optional
        What the user can do about it.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what, why, fix)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        sentences = (text.strip().rstrip(".") for text in (self.what, self.why, self.fix))
        return ". ".join(text for text in sentences if text) + "."


class SpecError(DiffractoryError, ValueError):
    """A setting is out of its range, or a settings file cannot be read."""


class StructureError(DiffractoryError, ValueError):
    """A crystal structure cannot be used: partial occupancy, overlapping atoms, bad cell."""


class CatalogueError(DiffractoryError):
    """A catalogue or one of its sources cannot be read, or holds nothing usable."""


class OrientationError(DiffractoryError, ValueError):
    """Orientation matrices are not finite rotation matrices of shape (N, 3, 3)."""


class SimulationError(DiffractoryError):
    """A solve cannot be done, or its result fails its own checks."""


class PlanError(DiffractoryError):
    """A plan cannot be made or does not fit the machine."""


class RunError(DiffractoryError):
    """A run folder is missing, belongs to another plan or version, or holds damaged data."""


class ModelError(DiffractoryError):
    """A model cannot be trained on, loaded for, or applied to what it is given."""


class ScanError(DiffractoryError):
    """A scan file cannot be read or lacks what is needed to interpret it."""


class AccessError(DiffractoryError):
    """A file or folder cannot be read or written where the user wants it."""


class ExecutionError(DiffractoryError):
    """Some units of work failed; the rest was finished."""

    exit_code = 1


class DefectError(DiffractoryError):
    """Something went wrong that no room foresaw; the code is that of ``sysexits.h`` for internal errors."""

    exit_code = 70
