"""A few linear equations, solved inside compiled loops where calling a library would cost more."""

from __future__ import annotations

import numpy as np
from numba import njit

#: Below this the largest element that could be divided by is taken for 0.
SMALLEST_PIVOT = 1e-14


@njit(nogil=True, cache=True, error_model="numpy")
def solve_small(matrix, right, size):  # type: ignore[no-untyped-def]
    """Solve the leading ``size`` equations in place (Gauss-Jordan); False where they are singular."""
    for pivot in range(size):
        row = pivot
        for candidate in range(pivot + 1, size):
            if abs(matrix[candidate, pivot]) > abs(matrix[row, pivot]):
                row = candidate
        if not abs(matrix[row, pivot]) > SMALLEST_PIVOT:
            return False
        for column in range(size):
            matrix[pivot, column], matrix[row, column] = matrix[row, column], matrix[pivot, column]
        for column in range(right.shape[1]):
            right[pivot, column], right[row, column] = right[row, column], right[pivot, column]
        for other in range(size):
            if other != pivot:
                factor = matrix[other, pivot] / matrix[pivot, pivot]
                for column in range(pivot, size):
                    matrix[other, column] -= factor * matrix[pivot, column]
                for column in range(right.shape[1]):
                    right[other, column] -= factor * right[pivot, column]
    for pivot in range(size):
        for column in range(right.shape[1]):
            right[pivot, column] /= matrix[pivot, pivot]
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def solve_beside(matrices, rights):  # type: ignore[no-untyped-def]
    """Solve n systems of equations in place, ``matrices`` (size, size, n) and ``rights`` (size, n).

    Side by side, so that a processor works on several at once; each sees the operations that
    :func:`solve_small` would do, to the last bit. NaN where the equations are singular.
    """
    size, n = rights.shape
    largest, pivots, factors = np.empty(n), np.empty(n), np.empty(n)
    singular = np.zeros(n)
    for pivot in range(size):
        _choose_rows(matrices, pivot, largest, pivots, singular)
        for row in range(pivot + 1, size):
            for column in range(pivot, size):
                _swap_where(pivots, row, matrices[pivot, column], matrices[row, column])
            _swap_where(pivots, row, rights[pivot], rights[row])
        for other in range(size):
            if other != pivot:
                _divide(matrices[other, pivot], matrices[pivot, pivot], factors)
                # The column of the pivot is not looked at again.
                for column in range(pivot + 1, size):
                    _take_times(factors, matrices[pivot, column], matrices[other, column])
                _take_times(factors, rights[pivot], rights[other])
    for pivot in range(size):
        _divide(rights[pivot], matrices[pivot, pivot], rights[pivot])
        for index in range(n):
            rights[pivot, index] = np.nan if singular[index] > 0.0 else rights[pivot, index]


@njit(nogil=True, cache=True, error_model="numpy")
def _choose_rows(matrices, pivot, largest, pivots, singular):  # type: ignore[no-untyped-def]
    """Write the row of the largest element of a column, from the diagonal down, for each system."""
    first = matrices[pivot, pivot]
    for index in range(len(largest)):
        largest[index] = abs(first[index])
        pivots[index] = pivot
    for row in range(pivot + 1, len(matrices)):
        values = matrices[row, pivot]
        for index in range(len(largest)):
            larger = abs(values[index]) > largest[index]
            largest[index] = abs(values[index]) if larger else largest[index]
            pivots[index] = row if larger else pivots[index]
    for index in range(len(largest)):
        singular[index] = singular[index] if largest[index] > SMALLEST_PIVOT else 1.0


@njit(nogil=True, cache=True, error_model="numpy")
def _swap_where(pivots, row, first, second):  # type: ignore[no-untyped-def]
    for index in range(len(pivots)):
        here = pivots[index] == row
        a, b = first[index], second[index]
        first[index] = b if here else a
        second[index] = a if here else b


@njit(nogil=True, cache=True, error_model="numpy")
def _divide(values, divisors, into):  # type: ignore[no-untyped-def]
    for index in range(len(into)):
        into[index] = values[index] / divisors[index]


@njit(nogil=True, cache=True, error_model="numpy")
def _take_times(factors, values, into):  # type: ignore[no-untyped-def]
    for index in range(len(into)):
        into[index] -= factors[index] * values[index]
