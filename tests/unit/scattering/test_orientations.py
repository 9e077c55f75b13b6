from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from py4DSTEM.process.diffraction import Crystal as ReferenceCrystal
from pymatgen.core import Structure
from pymatgen.symmetry.groups import SpaceGroup
from scipy.spatial.transform import Rotation

from diffractory.errors import OrientationError
from diffractory.scattering import zone_axes
from diffractory.scattering.orientations import minimal_rotations, sample_orientations, sample_zone_axes
from diffractory.scattering.zone_axes import fold_into_zone
from diffractory.specs import OrientationSpec
from laue_groups import GROUPS, fingerprints, operations
from zoo import ZOO

#: What processors before AVX-512, and before fused multiplication, lack; as NumPy calls it.
AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"
AVX2 = f"{AVX512} AVX2 FMA3"


def angles(ops: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles between directions modulo symmetry, by brute force."""
    cosine = np.max([a @ op @ b.T for op in ops], axis=0)
    return np.arccos(np.clip(cosine, -1.0, 1.0))


@pytest.mark.parametrize("count", [1, 2, 3, 20, 100])
@pytest.mark.parametrize("group", GROUPS)
def test_axes_are_exactly_n_unique_and_near_uniform(group: str, count: int) -> None:
    ops = operations(group)
    axes = sample_zone_axes(ops, count)
    assert axes.shape == (count, 3)
    assert_allclose(np.linalg.norm(axes, axis=1), 1.0)
    if count < 20:
        return
    apart = angles(ops, axes, axes)
    np.fill_diagonal(apart, np.pi)
    nearest = apart.min(axis=1)
    probe = np.random.default_rng(0).normal(size=(3000, 3))
    probe /= np.linalg.norm(probe, axis=1)[:, None]
    hole = angles(ops, probe, axes).min(axis=1).max()
    # Distance of neighbours if the zone's area were tiled by hexagons.
    ideal = np.sqrt(4.0 * np.pi / len(ops) / count * 2.0 / np.sqrt(3.0))
    assert nearest.min() > 0.65 * ideal
    assert nearest.max() < 1.6 * ideal
    assert hole < 1.0 * ideal


@pytest.mark.parametrize(
    ("group", "corners"),
    [
        ("Pm-3m", [[0, 0, 1], [0, 1, 1], [1, 1, 1]]),
        ("P6/mmm", [[0, 0, 1], [1, 0, 0], [3**0.5, 1, 0]]),
        ("Pmmm", [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ("P2/m", [[0, 1, 0]]),
    ],
)
def test_corners_and_edges_are_included(group: str, corners: list[list[float]]) -> None:
    ops = operations(group)
    axes = sample_zone_axes(ops, 30)
    wanted = np.array(corners, dtype=float) / np.linalg.norm(corners, axis=1)[:, None]
    assert angles(ops, wanted, axes).min(axis=1).max() < 1e-5
    mirrors = [op for op in ops if np.isclose(np.trace(op), 1.0) and np.linalg.det(op) < 0]
    on_edge = np.any([np.linalg.norm(axes @ m.T - axes, axis=1) < 1e-5 for m in mirrors], axis=0)
    assert on_edge.sum() >= 6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("group", [g for g in GROUPS if g not in ("P-1",)])
def test_axes_lie_in_the_zone_and_frames_of_py4dstems_plan(group: str) -> None:
    structure = Structure.from_spacegroup(group, GROUPS[group], ["Si", "O"], [[0, 0, 0], [0.11, 0.23, 0.37]])
    reference = ReferenceCrystal(
        structure.frac_coords, np.array(structure.atomic_numbers), structure.lattice.matrix
    )
    reference.setup_diffraction(300e3)
    reference.calculate_structure_factors(1.0)
    reference.orientation_plan("auto", angle_step_zone_axis=5.0, calculate_correlation_array=False)
    plan = np.asarray(reference.orientation_vecs)
    ours = sample_zone_axes(operations(group), 60)
    # Every axis of ours lies inside the plan's zone: a direction of the plan is within its step.
    assert np.rad2deg(np.arccos(np.clip(ours @ plan.T, -1, 1)).min(axis=1).max()) < 5.0
    assert_allclose(minimal_rotations(plan), reference.orientation_rotation_matrices, atol=1e-12)


@given(st.integers(0, 10**6), st.sampled_from(list(GROUPS)))
def test_folding_gives_one_representative(seed: int, group: str) -> None:
    vector = np.random.default_rng(seed).normal(size=3)
    vector /= np.linalg.norm(vector)
    ops = operations(group)
    images = fold_into_zone(np.array([op @ vector for op in ops]), ops)
    assert angles(ops, images, vector[None]).max() < 1e-3
    assert_allclose(images, np.broadcast_to(images[0], images.shape), atol=1e-6)


def test_random_frames_are_seeded_by_crystal_and_index() -> None:
    ops = operations("Pmmm")
    spec = OrientationSpec(count=6, in_plane="random", seed=3)
    first = sample_orientations(ops, spec, "mp-1")
    assert_allclose(first, sample_orientations(ops, spec, "mp-1"))
    other = sample_orientations(ops, spec, "mp-2")
    plan = sample_orientations(ops, OrientationSpec(count=6))
    for matrices in (first, other, plan):
        assert_allclose(
            matrices @ matrices.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (6, 3, 3)), atol=1e-12
        )
        assert_allclose(matrices[:, :, 2], plan[:, :, 2], atol=1e-12)
    assert np.abs(first - other).max() > 0.1


def test_random_axes_are_drawn_for_each_crystal_from_all_directions_alike() -> None:
    ops, spec = operations("Pm-3m"), OrientationSpec(count=4000, axes="random", seed=3)
    matrices = sample_orientations(ops, spec, "mp-1")
    axes = matrices[:, :, 2]
    assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (4000, 3, 3)), atol=1e-12
    )
    # Means over a sphere: 0 of each coordinate, 1/3 of its square, 1/5 of its fourth power; four deviations.
    assert np.abs(axes.mean(axis=0)).max() < 4.0 * (1 / 3 / 4000) ** 0.5
    assert np.abs((axes**2).mean(axis=0) - 1 / 3).max() < 4.0 * (4 / 45 / 4000) ** 0.5
    assert np.abs((axes**4).mean(axis=0) - 1 / 5).max() < 4.0 * (16 / 225 / 4000) ** 0.5
    assert_allclose(matrices, minimal_rotations(axes), atol=0.0)
    fewer = spec.model_copy(update={"count": 5})
    np.testing.assert_array_equal(sample_orientations(ops, fewer, "mp-1"), matrices[:5])
    np.testing.assert_array_equal(sample_orientations(operations("P-1"), fewer, "mp-1"), matrices[:5])
    for other in (("mp-2", {}), ("mp-1", {"seed": 4})):
        elsewhere = sample_orientations(ops, fewer.model_copy(update=other[1]), other[0])
        assert np.abs(elsewhere - matrices[:5]).max() > 0.1
    turned = sample_orientations(ops, fewer.model_copy(update={"in_plane": "random"}), "mp-1")
    assert_allclose(turned[:, :, 2], axes[:5], atol=1e-12)
    assert np.abs(turned - matrices[:5]).max() > 0.1


@pytest.mark.parametrize(
    ("kernels", "disabled"), [("Haswell", AVX512), ("Sandybridge", f"{AVX512} AVX2 FMA3")]
)
def test_every_machine_has_the_same_orientations_to_the_last_bit(kernels: str, disabled: str) -> None:
    # Another process does as an older processor would, in BLAS, NumPy's own loops and the C library.
    environment = os.environ | {"OPENBLAS_CORETYPE": kernels, "NPY_DISABLE_CPU_FEATURES": disabled}
    environment["GLIBC_TUNABLES"] = "glibc.cpu.hwcaps=-AVX2,-FMA"
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    there = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import laue_groups; print(laue_groups.fingerprints())"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == str(fingerprints())


@pytest.mark.parametrize("group", ["P-1", "P4/m", "P-3m1", "Pm-3m"])
def test_operations_with_opposite_images_change_nothing_by_sharing_products(
    group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = Rotation.from_euler("zxz", [0.3, 1.1, 2.5]).as_matrix()
    for ops in (operations(group), frame @ operations(group) @ frame.T):
        assert len(zone_axes._opposites(ops)) == len(ops) // 2
        given = ops.tobytes(), len(ops), 7
        shared = zone_axes._sample.__wrapped__(*given)
        with monkeypatch.context() as patch:
            patch.setattr(zone_axes, "_opposites", lambda _: {})
            np.testing.assert_array_equal(zone_axes._sample.__wrapped__(*given), shared)


def test_the_same_zone_axes_in_a_turned_frame_are_still_unique() -> None:
    structure = ZOO["cubic-turned-frame-c-copper"]
    cell = structure.lattice.matrix.T
    ops = np.array(
        [cell @ op.rotation_matrix @ np.linalg.inv(cell) for op in SpaceGroup("Fm-3m").symmetry_ops]
    )
    ops = np.unique(np.round(ops, 9), axis=0)
    axes = sample_zone_axes(ops, 40)
    apart = angles(ops, axes, axes) + np.eye(40)
    assert apart.min() > np.deg2rad(2.0)


@pytest.mark.parametrize(
    "given",
    [
        np.eye(3)[None],
        np.eye(3),
        np.full((2, 3, 3), np.nan),
        np.stack([np.eye(3)] * 4),
        np.stack([np.diag(d) for d in ([1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1])]).astype(float),
    ],
)
def test_operations_of_no_laue_group_are_refused(given: np.ndarray) -> None:
    with pytest.raises(OrientationError, match="Laue group"):
        sample_orientations(given, OrientationSpec(count=3))
