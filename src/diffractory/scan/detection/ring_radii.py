"""Radii of the rings that a known material shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffractory.crystals.crystal import Crystal
from diffractory.errors import ScanError
from diffractory.specs.scan import read_cubic_lattice

#: Reflections below this share of the strongest amplitude are not seen.
_WEAKEST = 0.02
#: Most reciprocal lattice points that are looked at.
_MOST = 2_000_000


def ring_radii(crystal: Crystal, q_max: float) -> NDArray[np.float64]:
    """Return the radii at which a material's reflections lie, extinct ones left out.

    Atoms scatter as their atomic number here: enough to tell what is extinct.

    Parameters
    ----------
    crystal : Crystal
    q_max : float
        Largest radius in Å⁻¹.

    Returns
    -------
    ndarray of shape (n,)
        In Å⁻¹, sorted, each once.

    Raises
    ------
    ScanError
        If there are none, or too many to count.
    """
    reach = np.floor(q_max * np.linalg.norm(crystal.lattice, axis=1)).astype(int)
    if np.prod(2.0 * reach + 1.0) > _MOST:
        raise ScanError(f"too many reflections up to {q_max:g} Å⁻¹", fix="Use a material with a smaller cell")
    hkl = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    length = np.linalg.norm(hkl @ crystal.reciprocal, axis=1)
    hkl, length = (part[(length > 0.0) & (length <= q_max)] for part in (hkl, length))
    amplitude = np.abs(np.exp(2j * np.pi * hkl @ crystal.frac_coords.T) @ crystal.numbers)
    radii: NDArray[np.float64] = np.unique(np.round(length[amplitude > _WEAKEST * crystal.numbers.sum()], 5))
    if not len(radii):
        raise ScanError(f"the material has no reflection up to {q_max:g} Å⁻¹")
    return radii


#: Atoms of cubic cells by their centring.
_CENTRINGS = {
    "P": [[0.0, 0.0, 0.0]],
    "I": [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]],
    "F": [[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]],
}
_CENTRINGS["D"] = _CENTRINGS["F"] + [[x + 0.25, y + 0.25, z + 0.25] for x, y, z in _CENTRINGS["F"]]


def cubic_crystal(text: str) -> Crystal:
    """Return a cubic crystal of one kind of atom, from text such as ``4.078:F``.

    Parameters
    ----------
    text : str
        Lattice constant in Å, a colon, and P, I, F or D (diamond).

    Raises
    ------
    ScanError
        If the text is not of that kind.
    """
    try:
        a, centring = read_cubic_lattice(text, 1.0, 100.0)
    except ValueError as error:
        raise ScanError(f"--lattice {text!r} cannot be read", str(error)) from None
    positions = _CENTRINGS[centring]
    return Crystal(np.eye(3) * a, np.full(len(positions), 6), np.array(positions))
