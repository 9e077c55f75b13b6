"""Intensities as 16-bit integers of an almost logarithmic scale, with a bound on the error.

The code ``n`` stands for the intensity

    I = OFFSET * (2**(n // STEPS) * (1 + n % STEPS / STEPS) - 1)

so codes step evenly within each octave of I + OFFSET. Rounded to the nearest code, an intensity I is
off by at most :func:`largest_error` = FLOOR + RELATIVE * I, with RELATIVE = 1 / (2 STEPS) and
FLOOR = OFFSET * RELATIVE; what is below FLOOR, and nothing else, becomes 0. OFFSET and STEPS are powers
of two: coding takes no logarithm, and every machine decodes the same float32 numbers.
See docs/decisions/0015-compact-store.md.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Intensity below which codes are even rather than logarithmic.
OFFSET = 2.0**-9
#: Codes in an octave of I + OFFSET.
STEPS = 4096
#: Largest error in proportion to the intensity.
RELATIVE = 0.5 / STEPS
#: Largest error where the intensity is 0; less than this is stored as 0.
FLOOR = OFFSET * RELATIVE
#: Attributes of an array of codes: what another program needs to read it.
ATTRIBUTES: dict[str, Any] = {
    "units": "1",
    "decode": "offset * (2**(n // steps) * (1 + n % steps / steps) - 1)",
    "offset": OFFSET,
    "steps": STEPS,
    "largest_error": f"{FLOOR:.4g} + {RELATIVE:.4g} * intensity",
}

_N_CODES = 1 << 16
#: Bits of a float64 below those that a code keeps, and the exponent of 1.0 in steps.
_DROPPED_BITS = 52 - (STEPS.bit_length() - 1)
_CODE_OF_ONE = 1023 * STEPS


def largest_error(intensity: NDArray[Any]) -> NDArray[np.float64]:
    """Return by how much a stored intensity may differ from the true one, given either of them."""
    bound: NDArray[np.float64] = FLOOR + RELATIVE * np.asarray(intensity, dtype=np.float64)
    return bound


def encode_intensity(intensity: NDArray[Any]) -> NDArray[np.uint16]:
    """Return the code nearest to each intensity.

    Parameters
    ----------
    intensity : ndarray of any shape
        Shares of the incident beam.

    Returns
    -------
    ndarray of the same shape, uint16

    Raises
    ------
    ValueError
        If an intensity is below -FLOOR, not finite or beyond the last code, about 128.
    """
    scaled = np.asarray(intensity, dtype=np.float64) / OFFSET + 1.0
    # The bits of a float are such a scale: the exponent, then the mantissa in even steps. Adding half of
    # the last step kept rounds, and carries into the exponent where it must.
    codes: NDArray[np.int64] = (scaled.view(np.int64) + (1 << (_DROPPED_BITS - 1))) >> _DROPPED_BITS
    codes -= _CODE_OF_ONE
    # What is negative has a code below 0; what is infinite or NaN, one below 0 or beyond the last.
    if codes.size and not (codes.min() >= 0 and codes.max() < _N_CODES):
        raise ValueError("intensities must be at least 0, finite and shares of the incident beam")
    return codes.astype(np.uint16)


def decode_intensity(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the intensity of each code, an array of the same shape."""
    intensity: NDArray[np.float32] = _intensities().take(codes)
    return intensity


@cache
def _intensities() -> NDArray[np.float32]:
    """Return the intensities of all codes."""
    octave, step = np.divmod(np.arange(_N_CODES), STEPS)
    scaled = np.ldexp(1.0 + step / STEPS, octave)
    return (OFFSET * (scaled - 1.0)).astype(np.float32)
