"""Which spots lie on the points of a lattice, and the lattice that fits them: compiled inner loops.

Coordinates lie in arrays of their own and are padded with NaN to whole lanes, so that a processor works on
several spots at once. Not a rounding depends on it: every spot sees the operations it would see alone.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from diffractory.patterns.linear_equations import solve_small

#: Spots of which a processor's vectors hold a whole number.
_LANES = 8
#: Spots that are counted before it is asked whether enough of the others can still fit.
_TOGETHER = 24
#: Index of a spot that lies on no lattice point.
MISSING = -(2.0**31)
_LARGEST_INDEX = 1e6


@njit(nogil=True, cache=True, error_model="numpy")
def spot_columns(n):  # type: ignore[no-untyped-def]
    """Return room for ``n`` spots, of shape (11, whole lanes), all NaN.

    Rows: position across (2) and along the beam, weight, the three indices, excitation error, and three
    to work in.
    """
    return np.full((11, -(-max(n, 1) // _LANES) * _LANES), np.nan)


@njit(nogil=True, cache=True, error_model="numpy")
def determinant(m):  # type: ignore[no-untyped-def]
    """Return the determinant of a 3 × 3 matrix."""
    return (
        m[0, 0] * (m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1])
        - m[0, 1] * (m[1, 0] * m[2, 2] - m[1, 2] * m[2, 0])
        + m[0, 2] * (m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0])
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _constants(basis, tolerance, s_max):  # type: ignore[no-untyped-def]
    """Return plain numbers of a lattice, which the compiler keeps in registers."""
    ax, bx, cx = basis[0, 0], basis[0, 1], basis[0, 2]
    ay, by, cy = basis[1, 0], basis[1, 1], basis[1, 2]
    az, bz, cz = basis[2, 0], basis[2, 1], basis[2, 2]
    area = ax * by - ay * bx
    # Third row of the inverse: the third index as a function of where a spot lies.
    volume = determinant(basis)
    to_x, to_y, to_z = (ay * bz - by * az) / volume, (bx * az - ax * bz) / volume, area / volume
    u_x, u_y, v_x, v_y = by / area, -bx / area, -ay / area, ax / area
    # Wherever within s_max of the sphere a spot lies, its third index lies within this range.
    reach = abs(to_z) * s_max + 0.2
    per_tolerance, per_s_max = 1.0 / (tolerance * tolerance), 1.0 / (s_max * s_max)
    return (
        ax, bx, cx, ay, by, cy, az, bz, cz, to_x, to_y, to_z, u_x, u_y, v_x, v_y,
        reach, per_tolerance, per_s_max,
    )  # fmt: skip


@njit(nogil=True, cache=True, error_model="numpy")
def _steps(reach):  # type: ignore[no-untyped-def]
    """Return how many third indices a spot may have at most."""
    return int(min(2.0 * reach, _LARGEST_INDEX)) + 2


@njit(nogil=True, cache=True, error_model="numpy")
def count_explained(columns, n, basis, tolerance, s_max, needed):  # type: ignore[no-untyped-def]
    """Return how many of ``n`` spots lie on a lattice point.

    Gives up, with a smaller number, as soon as ``needed`` is out of reach.
    """
    (
        ax, bx, cx, ay, by, cy, az, bz, cz, to_x, to_y, to_z, u_x, u_y, v_x, v_y,
        reach, per_tolerance, _,
    ) = _constants(basis, tolerance, s_max)  # fmt: skip
    steps, found = _steps(reach), 0
    for start in range(0, n, _TOGETHER):
        if found + n - start < needed:
            return found
        # Parts, each counted from 0: the compiler need not think of indices below 0.
        stop = start + _TOGETHER
        xs, ys, zs, hit = (
            columns[0][start:stop], columns[1][start:stop], columns[2][start:stop], columns[8][start:stop],
        )  # fmt: skip
        for spot in range(len(hit)):
            hit[spot] = 0.0
        for step in range(steps):
            for spot in range(len(hit)):
                x, y, z = xs[spot], ys[spot], zs[spot]
                middle = to_x * x + to_y * y + to_z * z
                l = np.ceil(middle - reach) + step
                left, up = x - l * cx, y - l * cy
                nu, nv = np.rint(u_x * left + u_y * up), np.rint(v_x * left + v_y * up)
                off_x, off_y = left - nu * ax - nv * bx, up - nu * ay - nv * by
                distance = (off_x * off_x + off_y * off_y) * per_tolerance
                s = nu * az + nv * bz + l * cz - z
                here = (
                    (distance < 1.0)
                    & (abs(s) < s_max)
                    & (l <= middle + reach)
                    & (abs(middle) < _LARGEST_INDEX)
                )
                hit[spot] += 1.0 if here else 0.0
        for spot in range(len(hit)):
            found += hit[spot] > 0.0
    return found


@njit(nogil=True, cache=True, error_model="numpy")
def assign_points(columns, n, basis, tolerance, s_max):  # type: ignore[no-untyped-def]
    """Write the nearest lattice point of every spot, and its excitation error; return how many have one."""
    (
        ax, bx, cx, ay, by, cy, az, bz, cz, to_x, to_y, to_z, u_x, u_y, v_x, v_y,
        reach, per_tolerance, per_s_max,
    ) = _constants(basis, tolerance, s_max)  # fmt: skip
    xs, ys, zs, best, chosen = columns[0], columns[1], columns[2], columns[8], columns[9]
    padded = columns.shape[1]
    for spot in range(padded):
        best[spot] = np.inf
    for step in range(_steps(reach)):
        for spot in range(padded):
            x, y, z = xs[spot], ys[spot], zs[spot]
            middle = to_x * x + to_y * y + to_z * z
            l = np.ceil(middle - reach) + step
            left, up = x - l * cx, y - l * cy
            nu, nv = np.rint(u_x * left + u_y * up), np.rint(v_x * left + v_y * up)
            off_x, off_y = left - nu * ax - nv * bx, up - nu * ay - nv * by
            distance = (off_x * off_x + off_y * off_y) * per_tolerance
            s = nu * az + nv * bz + l * cz - z
            both = distance + s * s * per_s_max
            better = (
                (distance < 1.0)
                & (abs(s) < s_max)
                & (l <= middle + reach)
                & (abs(middle) < _LARGEST_INDEX)
                & (both < best[spot])
            )
            chosen[spot] = l if better else chosen[spot]
            best[spot] = both if better else best[spot]
    found = 0
    for spot in range(n):
        if best[spot] < np.inf:
            l = chosen[spot]
            left, up = xs[spot] - l * cx, ys[spot] - l * cy
            nu, nv = np.rint(u_x * left + u_y * up), np.rint(v_x * left + v_y * up)
            columns[4, spot], columns[5, spot], columns[6, spot] = nu, nv, l
            columns[7, spot] = nu * az + nv * bz + l * cz - zs[spot]
            found += 1
        else:
            columns[4, spot] = MISSING
    return found


@njit(nogil=True, cache=True, error_model="numpy")
def refit(columns, n, size, basis, room):  # type: ignore[no-untyped-def]
    """Fit the leading ``size`` vectors to the spots that have indices; False where they do not allow it.

    Positions across the beam are fitted by least squares, those along it with instruments (qx, qy, q²).
    """
    n00 = n01 = n02 = n11 = n12 = n22 = 0.0
    r00 = r01 = r10 = r11 = r20 = r21 = 0.0
    i00 = i01 = i02 = i10 = i11 = i12 = i20 = i21 = i22 = 0.0
    a0 = a1 = a2 = 0.0
    for spot in range(n):
        h = columns[4, spot]
        if h == MISSING:
            continue
        k, l = columns[5, spot], columns[6, spot]
        x, y, z, weight = columns[0, spot], columns[1, spot], columns[2, spot], columns[3, spot]
        # q² as an instrument is scaled to the size of q.
        w0, w1, w2 = weight * x, weight * y, weight * (x * x + y * y)
        a0, a1, a2 = a0 + w0 * z, a1 + w1 * z, a2 + w2 * z
        n00, n01, n02 = n00 + h * h, n01 + h * k, n02 + h * l
        n11, n12, n22 = n11 + k * k, n12 + k * l, n22 + l * l
        i00, i01, i02 = i00 + w0 * h, i01 + w0 * k, i02 + w0 * l
        i10, i11, i12 = i10 + w1 * h, i11 + w1 * k, i12 + w1 * l
        i20, i21, i22 = i20 + w2 * h, i21 + w2 * k, i22 + w2 * l
        r00, r01 = r00 + h * x, r01 + h * y
        r10, r11 = r10 + k * x, r11 + k * y
        r20, r21 = r20 + l * x, r21 + l * y
    normal, right, instruments, along = room
    normal[0, 0], normal[0, 1], normal[0, 2] = n00, n01, n02
    normal[1, 0], normal[1, 1], normal[1, 2] = n01, n11, n12
    normal[2, 0], normal[2, 1], normal[2, 2] = n02, n12, n22
    right[0, 0], right[0, 1], right[1, 0], right[1, 1], right[2, 0], right[2, 1] = (
        r00,
        r01,
        r10,
        r11,
        r20,
        r21,
    )
    instruments[0, 0], instruments[0, 1], instruments[0, 2] = i00, i01, i02
    instruments[1, 0], instruments[1, 1], instruments[1, 2] = i10, i11, i12
    instruments[2, 0], instruments[2, 1], instruments[2, 2] = i20, i21, i22
    along[0, 0], along[1, 0], along[2, 0] = a0, a1, a2
    if not (solve_small(normal, right, size) and solve_small(instruments, along, size)):
        return False
    for i in range(size):
        basis[0, i], basis[1, i], basis[2, i] = right[i, 0], right[i, 1], along[i, 0]
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def room_to_fit():  # type: ignore[no-untyped-def]
    """Return the room that :func:`refit` works in: asking for it each time would take as long as the fit."""
    return np.empty((3, 3)), np.empty((3, 2)), np.empty((3, 3)), np.empty((3, 1))
