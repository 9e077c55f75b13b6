"""Why a position or a particle should not be trusted, as bits."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Meaning of each bit, lowest first.
FLAGS: Final = ("few_spots", "outside_training", "overlapping_grains")
#: Bit of each meaning.
FLAG_MASKS: Final = tuple(1 << index for index in range(len(FLAGS)))


def position_flags(
    asked: NDArray[np.bool_], outside: NDArray[np.bool_], overlapping: NDArray[np.bool_] | None
) -> NDArray[np.int8]:
    """Join the flags of n positions.

    Parameters
    ----------
    asked : ndarray of shape (n,), bool
        Has spots enough.
    outside : ndarray of shape (n,), bool
        Unlike the patterns of training.
    overlapping : ndarray of shape (n,), bool, or None
        Likely shows two grains; None = not looked for.

    Returns
    -------
    ndarray of shape (n,), int8
        Sum of ``FLAG_MASKS``. (Signed, because classic NetCDF knows no unsigned integers.)
    """
    flags = np.zeros(len(asked), dtype=np.int8)
    flags[~asked] |= np.int8(FLAG_MASKS[0])
    flags[outside] |= np.int8(FLAG_MASKS[1])
    if overlapping is not None:
        flags[overlapping] |= np.int8(FLAG_MASKS[2])
    return flags


def particle_flags(flags: NDArray[np.int8], particle: NDArray[np.int32]) -> NDArray[np.int8]:
    """Give each particle the flags of most of its positions.

    Parameters
    ----------
    flags : ndarray of shape (n,), int8
        Of positions, as :func:`position_flags` gives them.
    particle : ndarray of shape (n,), int32
        Number of the particle of each position, 0 = none.

    Returns
    -------
    ndarray of shape (n_particles,), int8
        "few_spots" where half or more of its positions have too few; the others where more than half of
        the positions that have enough are flagged.
    """
    n = int(particle.max(initial=0)) + 1
    size = np.bincount(particle, minlength=n)
    few = np.bincount(particle[(flags & FLAG_MASKS[0]) > 0], minlength=n)
    result = np.where(2 * few >= size, FLAG_MASKS[0], 0).astype(np.int8)
    for mask in FLAG_MASKS[1:]:
        flagged = np.bincount(particle[(flags & (mask | FLAG_MASKS[0])) == mask], minlength=n)
        result[2 * flagged > size - few] |= np.int8(mask)
    per_particle: NDArray[np.int8] = result[1:]
    return per_particle


def flag_texts(flags: NDArray[np.int8]) -> list[str]:
    """Write flags out: their meanings, divided by spaces; nothing where there is none."""
    texts = [" ".join(name for bit, name in enumerate(FLAGS) if code >> bit & 1) for code in range(8)]
    return [texts[code] for code in flags]
