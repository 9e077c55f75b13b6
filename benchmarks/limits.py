"""The machine's own limits on one core: complex products, and reading memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit


@njit(fastmath=True)
def _read(values: np.ndarray) -> float:
    # Four sums at once: one would wait for its own additions.
    a = b = c = d = np.float32(0.0)
    quarter = len(values) // 4
    for i in range(quarter):
        a += values[i]
        b += values[i + quarter]
        c += values[i + 2 * quarter]
        d += values[i + 3 * quarter]
    return a + b + c + d


def _best(work: Callable[[], Any], duration: float = 0.3) -> float:
    work()
    best, started = np.inf, time.perf_counter()
    while time.perf_counter() - started < duration:
        before = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - before)
    return best


def read_bandwidth(n_bytes: int) -> float:
    """Return the bytes a second at which one core reads an array of this size again and again.

    The better of a plain sum and BLAS's matrix-vector product: whatever reaches the limit counts.
    """
    n = max(int(np.sqrt(n_bytes / 8)), 2)
    matrix = np.asfortranarray(np.ones((n, n)), dtype=np.complex64)
    vector = np.ones(n, dtype=np.complex64)
    flat = matrix.T.reshape(-1).view(np.float32)
    seconds = min(_best(lambda: _read(flat)), _best(lambda: matrix @ vector))
    return matrix.nbytes / seconds


def gemm_flops(n: int = 1024) -> float:
    """Return the floating-point operations a second of a complex64 matrix product of this size."""
    matrix = np.ones((n, n), dtype=np.complex64)
    return 8.0 * n**3 / _best(lambda: matrix @ matrix, 1.0)
