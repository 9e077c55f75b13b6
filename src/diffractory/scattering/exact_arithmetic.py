"""Geometry that is the same to the last bit on every machine: no mathematics library takes part.

Mathematics libraries differ by rounding from one processor to the next: BLAS fuses and reorders, sines and
eigenvectors come out another way. So all is sums, products, quotients and square roots, element by
element, which IEEE 754 fixes; matrix products and sines are written out.
See docs/decisions/0017-orientations-in-exact-arithmetic.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Terms of the series of sine and cosine within an eighth of a turn: the next ones are below rounding.
_TERMS = 9


def cos_and_sin(turns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return cosine and sine of angles in full turns."""
    quarter = np.round(4.0 * turns)
    x = 2.0 * np.pi * (turns - quarter / 4.0)
    square = x * x
    cosine, sine = np.ones_like(x), np.ones_like(x)
    for term in range(_TERMS, 0, -1):
        cosine = 1.0 - square / (2 * term * (2 * term - 1)) * cosine
        sine = 1.0 - square / (2 * term * (2 * term + 1)) * sine
    sine = x * sine
    past = (quarter % 4).astype(np.int64)
    swapped = past % 2 == 1
    cosine, sine = np.where(swapped, sine, cosine), np.where(swapped, cosine, sine)
    return np.where((past == 1) | (past == 2), -cosine, cosine), np.where(past >= 2, -sine, sine)


def matrix_products(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the products of matrices of shape (…, 3, 3)."""
    product: NDArray[np.float64] = a[..., :, :1] * b[..., :1, :]
    product += a[..., :, 1:2] * b[..., 1:2, :]
    product += a[..., :, 2:] * b[..., 2:, :]
    return product


def unit_vectors(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return vectors of shape (…, 3) divided by their lengths."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    unit: NDArray[np.float64] = vectors / np.sqrt(x * x + y * y + z * z)[..., None]
    return unit


def images_under(operation: NDArray[np.float64], directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the images of directions of shape (N, 3) under an operation of shape (3, 3)."""
    x, y, z = directions.T
    return np.stack([row[0] * x + row[1] * y + row[2] * z for row in operation], axis=1)


def scalar_products(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scalar products of directions, of shape (n_a, n_b)."""
    cosines: NDArray[np.float64] = a[:, :1] * b[:, 0]
    term = a[:, 1:2] * b[:, 1]
    cosines += term
    np.multiply(a[:, 2:], b[:, 2], out=term)
    cosines += term
    return cosines
