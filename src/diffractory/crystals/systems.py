"""The seven crystal systems, their order and their codes, the same everywhere."""

from __future__ import annotations

from typing import Final

#: Order of all tables and codes: the index of a system in this tuple is its code.
CRYSTAL_SYSTEMS: Final = (
    "triclinic",
    "monoclinic",
    "orthorhombic",
    "tetragonal",
    "trigonal",
    "hexagonal",
    "cubic",
)

#: First space-group number of each crystal system, in the same order.
_FIRST_GROUP: Final = (1, 3, 16, 75, 143, 168, 195)


def system_of_space_group(number: int) -> str:
    """Return the crystal system of a space group.

    Parameters
    ----------
    number : int
        International space-group number, 1 … 230.

    Returns
    -------
    str
        One of :data:`CRYSTAL_SYSTEMS`.

    Raises
    ------
    ValueError
        If the number is not in 1 … 230.
    """
    if not 1 <= number <= 230:
        raise ValueError(f"space-group numbers are 1 … 230, got {number}")
    return CRYSTAL_SYSTEMS[max(i for i, first in enumerate(_FIRST_GROUP) if number >= first)]


def system_code(name: str) -> int:
    """Return the code of a crystal system.

    Parameters
    ----------
    name : str
        One of :data:`CRYSTAL_SYSTEMS`.

    Returns
    -------
    int
        Its place in that order, from 0.

    Raises
    ------
    ValueError
        If the name is not one of the seven.
    """
    return CRYSTAL_SYSTEMS.index(name)
