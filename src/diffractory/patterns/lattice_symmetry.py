"""Which crystal systems the metric of a lattice allows, and the cell that fits each best.

One pattern tells a lattice well across the beam and poorly along it, so lengths and angles cannot
simply be compared within a tolerance. Here the metric of every symmetry that a reduced lattice can
have is fitted to what was seen, with the strain across the beam weighing more than that along it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from diffractory.patterns.lattice_groups import LATTICE_FAMILIES, METRIC_ELEMENTS, lattice_groups
from diffractory.patterns.lattice_points import determinant
from diffractory.patterns.linear_equations import solve_beside, solve_small

_MONOCLINIC, _ORTHORHOMBIC, _TETRAGONAL, _CUBIC = 0, 1, 2, 5

#: Weights of the strain along the beam: shear and stretch, against 1 across it. A stretch along the
#: beam is known about twenty times worse than one across it, a tilt about twice.
_SHEAR_WEIGHT, _STRETCH_WEIGHT = 0.5, 0.05

_ROW, _COLUMN = METRIC_ELEMENTS
#: Below this, in Å⁻³, a reciprocal cell is no lattice: 1/10,000 Å³.
_SMALLEST_RECIPROCAL_VOLUME = 1e-4
_RESIDUAL_FLOOR = 1e-8
#: Residuals this near to each other, relatively, are the same.
_TIE = 1e-6


@dataclass(frozen=True, eq=False)
class FamilyFits:
    """Best metric of each family for each of n lattices; NaN where there is no lattice.

    Parameters
    ----------
    residual : ndarray of shape (n, 6)
        Weighted root sum of squares of the strain that is left.
    residual_across : ndarray of shape (n, 6)
        The same of the strain across the beam alone.
    cell : ndarray of shape (n, 6, 3)
        a, b, c of the conventional cell in Å; orthorhombic sorted; monoclinic: b unique, a ≤ c the
        shortest in the plane across it, centred or not.
    cells : ndarray of shape (n, 6)
        Primitive cells in the conventional one: 1, 2, 3 or 4.
    cos_beta : ndarray of shape (n,)
        Absolute cosine of the monoclinic angle.
    reduced : ndarray of shape (n, 6)
        Lengths of the reduced basis in Å and absolute cosines of its angles.
    """

    residual: NDArray[np.float64]
    residual_across: NDArray[np.float64]
    cell: NDArray[np.float64]
    cells: NDArray[np.float64]
    cos_beta: NDArray[np.float64]
    reduced: NDArray[np.float64]


def fit_families(reciprocal: NDArray[np.float64]) -> FamilyFits:
    """Fit the metric of every lattice family to measured lattices.

    Parameters
    ----------
    reciprocal : ndarray of shape (n, 3, 3)
        Columns are reciprocal basis vectors in Å⁻¹; the third row is along the beam. All zero where
        no lattice was found.

    Returns
    -------
    FamilyFits
    """
    groups = lattice_groups()
    n, families = len(reciprocal), len(LATTICE_FAMILIES)
    fits = np.full((n, families, 6), np.nan)
    cos_beta, reduced = np.full(n, np.nan), np.full((n, 6), np.nan)
    monoclinic = np.ascontiguousarray(groups.metrics[groups.family == _MONOCLINIC].transpose(1, 2, 0))
    arrays = (groups.family, groups.dimension, groups.metrics, groups.axes, groups.two_folds, monoclinic)
    _fit_all(np.ascontiguousarray(reciprocal, dtype=np.float64), *arrays, fits, cos_beta, reduced)
    return FamilyFits(fits[..., 0], fits[..., 1], fits[..., 2:5], fits[..., 5], cos_beta, reduced)


@njit(nogil=True, cache=True, error_model="numpy")
def _fit_all(  # type: ignore[no-untyped-def]
    reciprocal, family, dimension, metrics, axes, two_folds, monoclinic, fits, cos_beta, reduced
):
    # Made once: making them anew for each of hundreds of groups takes as long as the fit.
    room = np.empty((6, 4)), np.empty((4, 4)), np.empty((4, 1)), np.empty((3, 3))
    residual = np.empty(len(family))
    # Of the best fit of each family: what it leaves, and across the beam; its metric; its group; and the
    # number of primitive cells in its conventional one, where that was asked for.
    best_fits = np.empty((6, 2)), np.empty((6, 3, 3)), np.empty(6, dtype=np.int64), np.empty(6)
    # The many monoclinic groups come first and are fitted side by side.
    beside = monoclinic.shape[2]
    design, normal, right = np.empty((6, 4, beside)), np.empty((4, 4, beside)), np.empty((4, beside))
    squares = np.empty((2, beside))
    for item in range(len(reciprocal)):
        if abs(np.linalg.det(reciprocal[item])) < _SMALLEST_RECIPROCAL_VOLUME:
            continue
        direct = _reduce(np.ascontiguousarray(np.linalg.inv(reciprocal[item])))
        lengths = np.sqrt((direct * direct).sum(axis=1))
        for axis in range(3):
            reduced[item, axis] = lengths[axis]
            i, j = (axis + 1) % 3, (axis + 2) % 3
            reduced[item, 3 + axis] = abs(direct[i] @ direct[j]) / (lengths[i] * lengths[j])
        strain, target = _strain_of_metric(np.linalg.inv(direct))
        best_fits[0][:], best_fits[2][:] = np.nan, -1
        _fit_beside(strain, target, monoclinic, design, normal, right, squares)
        for group in range(beside):
            residual[group] = _residual(squares[0, group])
            # Most are beaten: asking that here takes a tenth of the time that a call with arrays takes.
            if residual[group] > best_fits[0][family[group], 0] * (1.0 + _TIE):
                continue
            # Not the constants that these two are here: numba would compile all of it once more for them.
            _keep_best(
                squares[0, group], squares[1, group], right[:, group], dimension[group], family[group], group,
                metrics, axes, best_fits, room[3],
            )  # fmt: skip
        _fit_larger(
            strain, target, family, dimension, metrics, axes, two_folds, beside, residual, best_fits, room
        )
        _write_cells(axes, best_fits, fits[item], cos_beta[item : item + 1])


@njit(nogil=True, cache=True, error_model="numpy")
def _fit_larger(  # type: ignore[no-untyped-def]
    strain, target, family, dimension, metrics, axes, two_folds, first, residual, best_fits, room
):
    """Fit the groups that hold several two-fold rotations, from number ``first`` on."""
    best = best_fits[0]
    for group in range(first, len(family)):
        # What a group leaves alone, its part leaves alone: it fits no better than its part does.
        beaten, most = False, best[family[group], 0] * (1.0 + 10.0 * _TIE)
        for number in range(two_folds.shape[1]):
            part = two_folds[group, number]
            if part >= 0 and residual[part] > most:
                beaten = True
                break
        if not beaten:
            residual[group] = _fit_group(
                strain, target, family[group], dimension[group], group, metrics, axes, best_fits, room
            )


@njit(nogil=True, cache=True, error_model="numpy")
def _write_cells(axes, best_fits, fits, cos_beta):  # type: ignore[no-untyped-def]
    """Write what is left of the best fit of each family, and its cell: of none that was beaten."""
    best, held, owner, _ = best_fits
    for family in range(len(best)):
        if owner[family] >= 0:
            fits[family, 0], fits[family, 1] = best[family, 0], best[family, 1]
            _write_cell(held[family], family, axes[owner[family]], fits[family], cos_beta)


@njit(nogil=True, cache=True, error_model="numpy")
def _fit_beside(strain, target, metrics, design, normal, right, squares):  # type: ignore[no-untyped-def]
    """Fit all groups of four free parameters at once, the last index; write parameters and what is left.

    The same sums as those of :func:`_fit_group`, in an order that the compiler vectorises.
    """
    for row in range(6):
        for column in range(4):
            into = design[row, column]
            into[:] = 0.0
            for element in range(6):
                _add_times(strain[row, element], metrics[column, element], into)
    for i in range(4):
        right[i] = 0.0
        for row in range(6):
            _add_times(target[row], design[row, i], right[i])
        for j in range(i + 1):
            normal[i, j] = 0.0
            for row in range(6):
                _add_product(design[row, i], design[row, j], normal[i, j])
    for i in range(4):
        for j in range(i):
            normal[j, i] = normal[i, j]
    solve_beside(normal, right)
    left = normal[0, 0]
    squares[:] = 0.0
    for row in range(6):
        left[:] = -target[row]
        for column in range(4):
            _add_product(design[row, column], right[column], left)
        _add_product(left, left, squares[0])
        if row in (0, 1, 5):
            _add_product(left, left, squares[1])


@njit(nogil=True, cache=True, error_model="numpy")
def _add_times(factor, values, into):  # type: ignore[no-untyped-def]
    for index in range(len(into)):
        into[index] += factor * values[index]


@njit(nogil=True, cache=True, error_model="numpy")
def _add_product(first, second, into):  # type: ignore[no-untyped-def]
    for index in range(len(into)):
        into[index] += first[index] * second[index]


@njit(nogil=True, cache=True, error_model="numpy")
def _strain_of_metric(basis):  # type: ignore[no-untyped-def]
    # With the true metric G of the direct lattice, B G Bᵀ is the unit matrix; the difference is strain.
    weights = (
        1.0,
        1.0,
        _STRETCH_WEIGHT,
        math.sqrt(2.0) * _SHEAR_WEIGHT,
        math.sqrt(2.0) * _SHEAR_WEIGHT,
        math.sqrt(2.0),
    )
    strain, target = np.empty((6, 6)), np.zeros(6)
    for row in range(6):
        i, j = _ROW[row], _COLUMN[row]
        for element in range(6):
            k, l = _ROW[element], _COLUMN[element]
            value = basis[i, k] * basis[j, l]
            if k != l:
                value += basis[i, l] * basis[j, k]
            strain[row, element] = weights[row] * value
        if i == j:
            target[row] = weights[row]
    return strain, target


@njit(nogil=True, cache=True, error_model="numpy")
def _fit_group(strain, target, family, dimension, group, metrics, axes, best_fits, room):  # type: ignore[no-untyped-def]
    """Fit one group of any number of free parameters; keep it if it is the best of its family."""
    design, normal, right, metric = room
    for row in range(6):
        for column in range(dimension):
            value = 0.0
            for element in range(6):
                value += strain[row, element] * metrics[group, column, element]
            design[row, column] = value
    for i in range(dimension):
        value = 0.0
        for row in range(6):
            value += design[row, i] * target[row]
        right[i, 0] = value
        for j in range(dimension):
            value = 0.0
            for row in range(6):
                value += design[row, i] * design[row, j]
            normal[i, j] = value
    if not solve_small(normal, right, dimension):
        return 0.0
    total, across = 0.0, 0.0
    for row in range(6):
        left = -target[row]
        for column in range(dimension):
            left += design[row, column] * right[column, 0]
        total += left * left
        if row in (0, 1, 5):
            across += left * left
    return _keep_best(total, across, right[:, 0], dimension, family, group, metrics, axes, best_fits, metric)


@njit(nogil=True, cache=True, error_model="numpy")
def _residual(total):  # type: ignore[no-untyped-def]
    """Return the root of what a fit leaves; 0 where the equations had no solution."""
    return max(math.sqrt(total), _RESIDUAL_FLOOR) if total >= 0.0 else 0.0


@njit(nogil=True, cache=True, error_model="numpy")
def _keep_best(total, across, right, dimension, family, group, metrics, axes, best_fits, metric):  # type: ignore[no-untyped-def]
    """Keep a fit that is better than those of its family before; return what it leaves."""
    if not total >= 0.0:
        return 0.0
    best, held, owner, cells = best_fits
    residual, before = _residual(total), best[family, 0]
    # A hexagonal lattice has two kinds of rhombohedral groups that fit alike: the smaller cell counts.
    alike = residual <= before * (1.0 + _TIE)
    if residual >= before * (1.0 - _TIE) and not alike:
        return residual
    for element in range(6):
        value = 0.0
        for column in range(dimension):
            value += right[column] * metrics[group, column, element]
        metric[_ROW[element], _COLUMN[element]] = metric[_COLUMN[element], _ROW[element]] = value
    if not _is_metric(metric):
        return residual
    here = np.nan
    if residual >= before * (1.0 - _TIE):
        if np.isnan(cells[family]):
            cells[family] = _number_of_cells(held[family], family, axes[owner[family]])
        here = _number_of_cells(metric, family, axes[group])
        if here > cells[family] - 0.5:
            return residual
    best[family, 0], best[family, 1] = residual, max(math.sqrt(across), _RESIDUAL_FLOOR)
    held[family], owner[family], cells[family] = metric, group, here
    return residual


@njit(nogil=True, cache=True, error_model="numpy")
def _is_metric(metric):  # type: ignore[no-untyped-def]
    """Tell whether lengths and volume are positive, by LAPACK only where a plain sum might be mistaken."""
    a, b, c = metric[0, 0], metric[1, 1], metric[2, 2]
    if not (a > 0.0 and b > 0.0 and c > 0.0):
        return False
    volume = determinant(metric)
    # Rounding moves both by less than a hundred times 1e-16 of the largest products.
    size = max(a, b, c, abs(metric[0, 1]), abs(metric[0, 2]), abs(metric[1, 2]))
    if abs(volume) > 1e-12 * size * size * size:
        return volume > 0.0
    return np.linalg.det(metric) > 0.0


@njit(nogil=True, cache=True, error_model="numpy")
def _number_of_cells(metric, family, axes):  # type: ignore[no-untyped-def]
    fit = np.empty(6)
    _write_cell(metric, family, axes, fit, np.empty(1))
    return fit[5]


@njit(nogil=True, cache=True, error_model="numpy")
def _write_cell(metric, family, axes, fit, cos_beta):  # type: ignore[no-untyped-def]
    """Write the conventional cell of a metric, its number of primitive cells, and a monoclinic angle."""
    squares = np.empty(3)
    for axis in range(3):
        squares[axis] = max(axes[axis] @ metric @ axes[axis], 0.0)
    if family == _MONOCLINIC:
        b = math.sqrt(squares[0])
        aa, cc, ac = _reduce_plane_metric(squares[1], squares[2], axes[1] @ metric @ axes[2])
        a, c = math.sqrt(aa), math.sqrt(cc)
        cos_beta[0] = abs(ac) / (a * c)
        volume = b * math.sqrt(max(aa * cc - ac * ac, 0.0))
    elif family == _ORTHORHOMBIC:
        a, b, c = np.sort(np.sqrt(squares))
        volume = a * b * c
    elif family == _CUBIC:
        a = b = c = math.sqrt(squares[0])
        volume = a * b * c
    else:
        a = b = math.sqrt(squares[1])
        c = math.sqrt(squares[0])
        volume = a * b * c * (1.0 if family == _TETRAGONAL else math.sqrt(0.75))
    fit[2], fit[3], fit[4] = a, b, c
    fit[5] = volume / math.sqrt(np.linalg.det(metric))


@njit(nogil=True, cache=True, error_model="numpy")
def _reduce_plane_metric(aa, cc, ac):  # type: ignore[no-untyped-def]
    """Return squares and product of the two shortest vectors of a plane lattice (Lagrange)."""
    for _ in range(50):
        if aa > cc:
            aa, cc = cc, aa
        turns = np.rint(ac / aa)
        if turns == 0.0:
            break
        cc += turns * (turns * aa - 2.0 * ac)
        ac -= turns * aa
    return aa, cc, ac


@njit(nogil=True, cache=True, error_model="numpy")
def _reduce(vectors):  # type: ignore[no-untyped-def]
    """Reduce rows after Minkowski: each is the shortest that its predecessors leave (Semaev 2001)."""
    for _ in range(100):
        order = np.argsort((vectors * vectors).sum(axis=1))
        vectors = vectors[order]
        a, b, c = vectors[0].copy(), vectors[1].copy(), vectors[2].copy()
        turns = np.rint((a @ b) / (a @ a))
        b -= turns * a
        aa, bb, ab, ac, bc = a @ a, b @ b, a @ b, a @ c, b @ c
        determinant = aa * bb - ab * ab
        u, v = np.rint((ac * bb - bc * ab) / determinant), np.rint((bc * aa - ac * ab) / determinant)
        shortest, best = c.copy(), c @ c
        for i in (-1.0, 0.0, 1.0):
            for j in (-1.0, 0.0, 1.0):
                candidate = c - (u + i) * a - (v + j) * b
                square = candidate @ candidate
                if square < best * (1.0 - 1e-12):
                    shortest, best = candidate, square
        settled = turns == 0.0 and best == c @ c
        vectors[1], vectors[2] = b, shortest
        if settled:
            break
    return vectors
