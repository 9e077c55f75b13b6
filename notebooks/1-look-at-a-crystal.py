# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1. Look at a crystal
#
# You have a crystal and want to know what a microscope would show of it: how its pattern changes with the
# thickness and the tilt of the foil, what multiple scattering does to it, and what precession mends.
#
# Strontium titanate is the example. Any [pymatgen](https://pymatgen.org) structure will do:
# `Structure.from_file("mine.cif")`.

# %%
import numpy as np
from pymatgen.core import Lattice, Structure

import diffractory
from diffractory.report.pattern_figures import figure_of_disks, figure_of_patterns, figure_of_thickness
from diffractory.units import electron_wavelength

structure = Structure.from_spacegroup(
    "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
)
crystal = diffractory.Crystal.from_structure(structure)
structure.composition.reduced_formula, structure.get_space_group_info()

# %% [markdown]
# ## Patterns against thickness
#
# A `SimulationSpec` holds the physics: 300 keV, beams up to 2 Å⁻¹, absorption. Thicknesses cost next to
# nothing, so we take a hundred of them. An orientation is a matrix whose columns are the axes x, y, z of the
# laboratory in the frame of the crystal; its third column, here [001], points against the beam.

# %%
spec = diffractory.SimulationSpec(thicknesses=np.arange(10.0, 1001.0, 10.0))
along_001 = np.eye(3)
(pattern,) = diffractory.simulate(crystal, along_001[None], spec)
pattern.hkl.shape, pattern.q.shape, pattern.intensity.shape

# %%
shown = (50.0, 200.0, 500.0, 1000.0)
at = [spec.thicknesses.index(thickness) for thickness in shown]
figure_of_patterns([pattern.q] * 4, [pattern.intensity[i] for i in at], [f"{t:g} Å" for t in shown])

# %% [markdown]
# The area of a spot grows with the logarithm of its intensity, over five decades; the direct beam is orange.
# The spots are in the same places at every thickness, but which of them are bright changes: electrons are
# scattered again and again on their way through the foil, and exchanged between the beams.
#
# ## Kinematical beside dynamical
#
# Textbooks begin with single scattering, because it is simple: each beam is |F|² times a function of the
# shape of the foil. How far does that hold? The same beams, with and without multiple scattering:

# %%
(kinematic,) = diffractory.simulate_kinematic(crystal, along_001[None], spec)


def beams(peaks, *wanted):
    """Return the intensities of some beams against thickness, by their indices."""
    rows = {tuple(hkl): row for row, hkl in enumerate(peaks.hkl.tolist())}
    return {"".join(map(str, hkl)): peaks.intensity[:, rows[hkl]] for hkl in wanted}


names = [(0, 0, 0), (1, 1, 0), (2, 0, 0), (2, 2, 0)]
figure_of_thickness(spec.thicknesses, beams(pattern, *names), beams(kinematic, *names[1:]))

# %% [markdown]
# Solid lines: dynamical. Dashed: kinematical, where every beam is scattered once, out of a direct beam that
# never gets weaker. At 10 Å the two agree within a tenth; in a foil of 50 Å they no longer do, although no
# atom of this crystal is heavy. This is why the models of this package are trained on Bloch-wave patterns.

# %%
single, multiple = beams(kinematic, *names), beams(pattern, *names)
for thickness in (10.0, 50.0, 200.0):
    row = spec.thicknesses.index(thickness)
    ratios = ", ".join(f"{hkl} {single[hkl][row] / multiple[hkl][row]:.2f}" for hkl in ("110", "200", "220"))
    print(f"kinematical / dynamical at {thickness:g} Å: {ratios}")

# %% [markdown]
# ## Tilt
#
# Lean the crystal by a degree or two about one axis, and the symmetry of the pattern is gone: spots are
# bright along the circle where the Ewald sphere cuts the lattice.


# %%
def leaned(degrees):
    """Return the orientation [001], turned about the laboratory's y axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return along_001 @ np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


tilts = (0.0, 0.5, 1.0, 2.0)
tilted = diffractory.simulate(crystal, np.array([leaned(t) for t in tilts]), spec)
figure_of_patterns(
    [p.q for p in tilted], [p.intensity[at[1]] for p in tilted], [f"{t:g}°, 200 Å" for t in tilts]
)

# %% [markdown]
# Many tilts of the *beam* make a convergent-beam pattern: every spot becomes a disk, and every tilt is one
# point of all disks. `simulate_tilts` solves them together, 441 tilts in well under a second.

# %%
grid = np.linspace(-0.13, 0.13, 25)
cone = np.array([(x, y) for x in grid for y in grid if np.hypot(x, y) <= 0.133])
disks = diffractory.simulate_tilts(
    crystal, along_001, cone, spec.model_copy(update={"thicknesses": (1000.0,), "q_max": 1.2})
)
figure_of_disks(disks.q, cone, disks.intensity[:, 0], electron_wavelength(spec.energy_ev), reach=0.75)

# %% [markdown]
# Half-angle 0.13° = 2.3 mrad, 1000 Å. What happens in the disks is multiple scattering again, seen against
# the tilt. The symmetry of the whole is that of the crystal along this axis: four-fold, with mirrors.
#
# ## Precession
#
# A precessed beam runs around a cone, and the detector sees the mean over all its directions. That evens out
# the dependence on thickness and orientation, and brings out spots far from the middle.

# %%
half_angles = (0.0, 0.5, 1.0, 2.0)
at_500 = spec.model_copy(update={"thicknesses": (500.0,)})
precessed = [
    diffractory.simulate(crystal, leaned(0.5)[None], at_500.model_copy(update={"precession_deg": angle}))[0]
    for angle in half_angles
]
figure_of_patterns(
    [p.q for p in precessed], [p.intensity[0] for p in precessed], [f"precession {a:g}°" for a in half_angles]
)


# %%
def asymmetry(peaks):
    """Return how far the intensities of g and −g differ, as a share of their sum."""
    intensity = {tuple(hkl): value for hkl, value in zip(peaks.hkl.tolist(), peaks.intensity[0], strict=True)}
    pairs = [
        (value, intensity[tuple(-np.array(hkl))])
        for hkl, value in intensity.items()
        if hkl > (0, 0, 0) and tuple(-np.array(hkl)) in intensity
    ]
    return np.abs(np.subtract(*np.transpose(pairs))).sum() / np.sum(pairs)


for angle, peaks in zip(half_angles, precessed, strict=True):
    print(f"precession {angle:g}°: I(g) and I(−g) differ by {100 * asymmetry(peaks):.0f} %")

# %% [markdown]
# The crystal leans by half a degree in all four pictures: without precession I(g) and I(−g), which are equal
# in a crystal along its axis, differ widely; the wider the cone, the less.
#
# **Next:** [notebook 2](2-build-a-dataset-and-train.ipynb) makes thousands of such patterns and learns from
# them.
