"""A few linear equations, solved inside compiled loops where calling a library would cost more."""

from __future__ import annotations

from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def solve_small(matrix, right, size):  # type: ignore[no-untyped-def]
    """Solve the leading ``size`` equations in place (Gauss-Jordan); False where they are singular."""
    for pivot in range(size):
        row = pivot
        for candidate in range(pivot + 1, size):
            if abs(matrix[candidate, pivot]) > abs(matrix[row, pivot]):
                row = candidate
        if not abs(matrix[row, pivot]) > 1e-14:
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
