"""Absorptive form factors: electrons lost to phonons and to core excitations.

Both follow from Weickenmeier and Kohl's elastic fit in closed form. The loss to phonons is

    Σ_ij a_i a_j [exp(−u²G²/2) I(0, b_i; 0, b_j) − I(u²/2, b_i + u²/2; u²/2, b_j + u²/2)],

where I(α₁, α₂; β₁, β₂) integrates π/(α + β) · exp(−αβ G²/(α + β)) over α and β: what remains of two shifted
Gaussians after integrating over all directions of the lost electron. With x = αG² and y = βG²,

    p(x, y) = e⁻ˣ Ei(x²/(x+y)) + e⁻ʸ Ei(y²/(x+y)) − 2 Ei(−xy/(x+y))

has ∂²p/∂x∂y = e^(−xy/(x+y))/(x+y), so I is π/G² times the mixed difference of p at the four corners. G is in
physicists' units (2π in it) here and nowhere else.

py4DSTEM takes two terms of a series below bG² = 0.1, and above 20 it takes Ei from 21 numbers, between which
it goes by a tenth of the step it should; f″ is off by up to 7e-4 of its largest value for that, and jumps by
as much. The paper's patterns have it, so the default models do the same.

References
----------
Weickenmeier and Kohl, Acta Cryst. A47, 590 (1991).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import exp1, expi

from diffractory.units import electron_wavelength

#: Bohr radius in Å, as EMsoft and py4DSTEM have it.
_BOHR = 0.5289
#: x e⁻ˣ Ei(x) at 1/x = 0, 0.005, … 0.1, from Abramowitz and Stegun by way of EMsoft.
_SCALED_EI = np.array(
    [
        1.000000, 1.005051, 1.010206, 1.015472, 1.020852, 1.026355, 1.031985, 1.037751, 1.043662, 1.049726,
        1.055956, 1.062364, 1.068965, 1.075780, 1.082830, 1.090140, 1.097737, 1.105647, 1.113894, 1.122497,
        1.131470,
    ]
)  # fmt: skip


def absorptive_form_factor(
    g: NDArray[np.float64],
    number: int,
    amplitudes: NDArray[np.float64],
    widths: NDArray[np.float64],
    energy_ev: float,
    thermal_sigma: float,
    *,
    exact: bool,
) -> NDArray[np.float64]:
    """Return the imaginary part of an atom's form factor, as the routine of Weickenmeier and Kohl scales it.

    Parameters
    ----------
    g : ndarray of shape (n,)
        |g| in Å⁻¹.
    number : int
        Atomic number.
    amplitudes, widths : ndarray of shape (4,)
        Weickenmeier-Kohl's A_i (Å⁻¹) and B_i (Å²).
    energy_ev : float
        Beam energy in eV.
    thermal_sigma : float
        Root-mean-square displacement in Å.
    exact : bool
        Evaluate the integrals, instead of approximating them as py4DSTEM does.

    Returns
    -------
    ndarray of shape (n,)
        On the scale on which the elastic part is 4π Σ A_i (1 − exp(−B_i s²))/s². An electron of γ times its
        rest mass sees γ times that, and γ² times what is returned here.
    """
    squared = (2.0 * np.pi * g) ** 2
    wave_number = 2.0 * np.pi / electron_wavelength(energy_ev)
    damping = np.exp(-0.5 * thermal_sigma**2 * squared)
    core = _core_loss(2.0 * np.pi * g, number, energy_ev, wave_number)
    phonons = np.zeros_like(squared)
    if thermal_sigma > 0.0:
        strength, width = (4.0 * np.pi) ** 2 * amplitudes, widths / (4.0 * np.pi) ** 2
        at_rest = _lost_pairs(squared, strength, width, 0.0, exact)
        phonons = damping * at_rest - _lost_pairs(squared, strength, width, 0.5 * thermal_sigma**2, exact)
    lost: NDArray[np.float64] = (damping * core + phonons) / wave_number
    return lost


def _core_loss(
    g: NDArray[np.float64], number: int, energy_ev: float, wave_number: float
) -> NDArray[np.float64]:
    """Return the loss to core excitations of a Yukawa atom, g with 2π in it."""
    kev = energy_ev / 1e3
    screening = 0.885 * _BOHR / number ** (1.0 / 3.0)
    unit_angle = 1.0 / (wave_number * screening)
    # 6 eV for each electron, as an angle in units of the screening angle.
    loss = 6e-3 * number / (2.0 * kev) * (2.0 * kev + 1022.0) / (kev + 1022.0) / unit_angle
    angle = g * screening
    turned = np.sqrt(angle**2 + 4.0 * loss**2)
    first = angle / ((1.0 + angle**2) * turned) * np.arcsinh(angle / (2.0 * loss))
    root = np.sqrt((1.0 + angle**2) ** 2 + 4.0 * loss**2 * angle**2)
    second = np.log((1.0 + 2.0 * loss**2 + angle**2 + root) / (2.0 * loss * np.sqrt(1.0 + loss**2))) / root
    half = 2.0 * np.sqrt(1.0 + loss**2)
    # arcsinh(t)/t → 1 as t → 0.
    t = np.maximum(angle, 1e-9) / half
    third = np.arcsinh(t) / t / (half * np.sqrt(angle**2 + half**2))
    amount = 2.0 * number / unit_angle**2 * (second - first - third)
    total: NDArray[np.float64] = 8.0 * np.pi / (_BOHR * wave_number) ** 2 * amount
    return total


def _lost_pairs(
    squared: NDArray[np.float64],
    strength: NDArray[np.float64],
    width: NDArray[np.float64],
    offset: float,
    exact: bool,
) -> NDArray[np.float64]:
    """Return Σ_ij a_i a_j I(v, b_i + v; v, b_j + v) at all G², v being the offset."""
    ends = np.concatenate([[0.0], width]) + offset
    closed, near = {}, {}
    # Where p is not asked for, it must not be evaluated at 0 either.
    away = np.maximum(squared, 1e-8)
    for k in range(len(ends)):
        for m in range(k + 1):
            closed[k, m] = closed[m, k] = _corner(ends[k], ends[m], away, exact)
            near[k, m] = near[m, k] = _corner_of_series(ends[k], ends[m])
    total = np.zeros_like(squared)
    for i in range(1, len(ends)):
        for j in range(1, i + 1):
            closed_form = closed[i, j] - closed[0, j] - closed[i, 0] + closed[0, 0]
            at_zero, slope = near[i, j] - near[0, j] - near[i, 0] + near[0, 0]
            widest = max(width[i - 1], width[j - 1], 2.0 * offset) * squared
            value = np.where(
                widest <= (1e-4 if exact else 0.1), at_zero - slope * squared, closed_form / away
            )
            total += (1.0 if i == j else 2.0) * strength[i - 1] * strength[j - 1] * np.pi * value
    return total


def _corner(alpha: float, beta: float, squared: NDArray[np.float64], exact: bool) -> NDArray[np.float64]:
    """Return p(αG², βG²) at all G² > 0."""
    total = alpha + beta
    if total == 0.0:
        return np.zeros_like(squared)
    if alpha * beta == 0.0:
        x = total * squared
        alone: NDArray[np.float64] = _scaled_ei(x, exact) - np.log(x) - np.euler_gamma
        return alone
    reduced = alpha * beta / total * squared
    scaled = _scaled_ei(alpha**2 / total * squared, exact) + _scaled_ei(beta**2 / total * squared, exact)
    value: NDArray[np.float64] = np.exp(-reduced) * scaled + 2.0 * exp1(reduced)
    return value


def _corner_of_series(alpha: float, beta: float) -> NDArray[np.float64]:
    """Return what takes the place of p/G² near G = 0: a corner's share of I/π and of its slope in −G²."""
    total = alpha + beta
    if total == 0.0:
        return np.zeros(2)
    log = np.log(total)
    return np.array([total * log, 0.5 * (alpha**2 + beta**2) * log - 0.5 * alpha * beta])


def _scaled_ei(x: NDArray[np.float64], exact: bool) -> NDArray[np.float64]:
    """Return e⁻ˣ Ei(x) for x > 0."""
    large = x > (50.0 if exact else 20.0)
    value = np.empty_like(x)
    value[~large] = np.exp(-x[~large]) * expi(x[~large])
    inverse = 1.0 / x[large]
    if exact:
        # Σ k!/xᵏ⁺¹: twenty terms are all the digits there are, from 50 on.
        tail = np.zeros_like(inverse)
        for k in range(20, 0, -1):
            tail = (1.0 + tail) * k * inverse
        value[large] = (1.0 + tail) * inverse
    else:
        place = 200.0 * inverse
        entry = place.astype(np.int64)
        # A straight line would be entered at place - entry.
        steps = place - 0.1 * entry
        value[large] = (_SCALED_EI[entry] + np.diff(_SCALED_EI)[entry] * steps) * inverse
    return value
