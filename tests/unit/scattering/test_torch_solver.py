from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from diffractory import Crystal, SimulationSpec
from diffractory.errors import SimulationError
from diffractory.scattering.simulate import Scatterer
from diffractory.scattering.torch_solver import solve_batched
from zoo import ZOO, random_rotation

torch = pytest.importorskip("torch")

from diffractory.scattering import chebyshev, torch_batches, torch_series, torch_solver  # noqa: E402
from diffractory.scattering.torch_batches import batches, problem_bytes  # noqa: E402

#: Centric and acentric, orthogonal and skew, 14 to 260 beams.
NAMES = [
    "cubic-F-c-copper",
    "cubic-P-a-FeSi",
    "cubic-skew-primitive-a-GaAs",
    "trigonal-skew-primitive-c-corundum",
    "trigonal-P-a-quartz",
    "monoclinic-P-c-zirconia",
    "triclinic-P-a-invented",
    "triclinic-P-c-invented",
]
Work = list[tuple[Scatterer, np.ndarray]]


def prepared(name: str, spec: SimulationSpec) -> Scatterer:
    structure = ZOO[name]
    crystal = Crystal(structure.lattice.matrix, structure.atomic_numbers, structure.frac_coords)
    return Scatterer.prepare(crystal, spec)


def mixed(spec: SimulationSpec, names: list[str] = NAMES) -> Work:
    """Each crystal at random and down a zone axis, in no order of size."""
    work = [(s, o) for s in (prepared(n, spec) for n in names) for o in (random_rotation(5), np.eye(3))]
    return [work[i] for i in np.random.default_rng(0).permutation(len(work))]


def assert_equals_the_cpu(work: Work, memory_bytes: int | None = None, solver: str = "chebyshev") -> None:
    found = list(solve_batched(work, "cpu", memory_bytes))
    assert len(found) == len(work)
    for pattern, (scatterer, orientation) in zip(found, work, strict=True):
        expected = scatterer.solve(orientation)
        assert_array_equal(pattern.hkl, expected.hkl)
        assert_array_equal(pattern.q, expected.q)
        assert_allclose(pattern.intensity, expected.intensity, rtol=0, atol=1e-5)
        assert pattern.intensity.dtype == np.float64
        assert pattern.solver == solver


@pytest.fixture
def batch_shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Number and padded size of the problems of each batch."""
    shapes: list[tuple[int, int]] = []
    solve = torch_batches.solve_matrices

    def recorded(matrix: torch.Tensor, *arguments: object) -> torch.Tensor | None:
        shapes.append(tuple(matrix.shape[:2]))
        return solve(matrix, *arguments)

    monkeypatch.setattr(torch_batches, "solve_matrices", recorded)
    return shapes


@pytest.mark.parametrize("thicknesses", [(200.0,), (0.01, 13.7, 200.0, 533.3), tuple(range(20, 2001, 20))])
def test_batches_of_mixed_crystals_equal_the_cpu_one_by_one(
    thicknesses: tuple[float, ...], batch_shapes: list[tuple[int, int]]
) -> None:
    work = mixed(SimulationSpec(thicknesses=thicknesses))
    sizes = [np.count_nonzero(scatterer.select_beams(orientation)[0]) for scatterer, orientation in work]
    assert max(sizes) > 10 * min(sizes)
    assert_equals_the_cpu(work)
    assert len(batch_shapes) < len(work)


def test_a_tilted_foil_equals_the_cpu() -> None:
    assert_equals_the_cpu(mixed(SimulationSpec(foil_tilt_deg=(20.0, -10.0)), NAMES[3:6]))


def test_a_few_beams_or_one_equal_the_cpu() -> None:
    work = mixed(SimulationSpec(s_max=1e-9), NAMES[:2]) + mixed(SimulationSpec(s_max=2e-3), NAMES[:2])
    sizes = {len(pattern) for pattern in solve_batched(work, "cpu")}
    assert min(sizes) == 1
    assert min(sizes - {1}) < 10
    assert_equals_the_cpu(work)


def test_specs_with_other_thicknesses_and_energies_may_be_mixed() -> None:
    specs = [
        SimulationSpec(energy_ev=e, thicknesses=t) for e in (80e3, 300e3) for t in (100.0, (50.0, 100.0))
    ]
    assert_equals_the_cpu([pair for spec in specs for pair in mixed(spec, NAMES[:1])])


def test_intensities_are_right_beside_double_precision() -> None:
    spec = SimulationSpec(thicknesses=(200.0, 1000.0))
    work = mixed(spec, ["tetragonal-P-a-BaTiO3", "triclinic-P-a-invented"])
    for pattern, (scatterer, orientation) in zip(solve_batched(work, "cpu"), work, strict=True):
        expected = scatterer.solve(orientation, "dense", "double")
        assert_allclose(pattern.intensity, expected.intensity, rtol=0, atol=5e-6)


@given(
    sizes=st.lists(st.integers(1, 1500), min_size=1, max_size=60),
    n_thicknesses=st.integers(1, 100),
    budget=st.integers(10**6, 10**9),
)
def test_batches_hold_each_problem_once_and_keep_their_bounds(
    sizes: list[int], n_thicknesses: int, budget: int
) -> None:
    n = np.array(sizes)
    groups = batches(n, n_thicknesses, budget)
    assert_array_equal(np.sort(np.concatenate(groups)), np.arange(len(n)))
    for group in groups:
        assert len(group) == 1 or len(group) * problem_bytes(n[group].max(), n_thicknesses) <= budget
        width = -(-n[group].max() // 16) * 16
        own = -(-n[group] // 16) * 16
        assert np.all((width == own) | (width**2 <= 1.12 * n[group] ** 2))


def test_a_small_budget_makes_small_batches(batch_shapes: list[tuple[int, int]]) -> None:
    scatterer = prepared("cubic-P-a-FeSi", SimulationSpec())
    work = [(scatterer, random_rotation(seed)) for seed in range(6)]
    table = 8 * scatterer.factors.table.size + 8
    assert_equals_the_cpu(work)
    assert max(count for count, _ in batch_shapes) >= 3
    batch_shapes.clear()
    largest = max(problem_bytes(len(s.solve(o)), 1) for s, o in work)
    assert_equals_the_cpu(work, table + 2 * largest)
    assert len(batch_shapes) >= 3
    assert max(count for count, _ in batch_shapes) == 2


def test_work_is_taken_up_as_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_solver, "_WINDOW", 3)
    taken = 0

    def endless() -> Iterator[tuple[Scatterer, np.ndarray]]:
        nonlocal taken
        scatterer = prepared("cubic-F-c-copper", SimulationSpec())
        while True:
            taken += 1
            yield scatterer, random_rotation(taken)

    patterns = solve_batched(endless(), "cpu")
    assert taken == 0
    for _ in range(4):
        next(patterns)
    assert taken == 7


def test_one_orientation_beyond_the_budget_is_refused_after_those_before_it() -> None:
    spec = SimulationSpec()
    small, large = prepared("cubic-F-c-copper", spec), prepared("triclinic-P-a-invented", spec)
    budget = 8 * large.factors.table.size + 100_000
    patterns = solve_batched([(small, np.eye(3)), (large, np.eye(3))], "cpu", budget)
    assert len(next(patterns)) > 1
    with pytest.raises(SimulationError, match=r"231 beams needs 1\.\d MB .* kB may be used.*q_max"):
        next(patterns)


def diverging_for(width: int) -> Callable[..., object]:
    solve = torch_batches.solve_matrices
    return lambda matrix, sizes, *rest: None if width in sizes else solve(matrix, sizes, *rest)


def test_what_diverges_comes_from_the_reference_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SimulationSpec()
    work = [(prepared("cubic-P-a-FeSi", spec), random_rotation(seed)) for seed in range(5)]
    sizes = [np.count_nonzero(s.select_beams(o)[0]) for s, o in work]
    monkeypatch.setattr(torch_batches, "solve_matrices", diverging_for(sizes[2]))
    found = list(solve_batched(work, "cpu"))
    assert [p.solver == "dense" for p in found] == [size == sizes[2] for size in sizes]
    for pattern, (scatterer, orientation) in zip(found, work, strict=True):
        assert_allclose(pattern.intensity, scatterer.solve(orientation).intensity, rtol=0, atol=1e-5)


def scaled(factor: float) -> Callable[..., torch_series._Spectra]:
    """The estimate of the spectra, its interval multiplied by a factor."""
    estimate = torch_series._spectra_of

    def spectra(*arguments: object) -> torch_series._Spectra:
        found = estimate(*arguments)
        return dataclasses.replace(found, half_width=factor * found.half_width)

    return spectra


@pytest.mark.parametrize("thicknesses", [(400.0,), tuple(range(20, 401, 20))])
def test_series_whose_terms_grow_go_on_in_shorter_pieces(
    thicknesses: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = mixed(SimulationSpec(thicknesses=thicknesses), NAMES[1:4])
    monkeypatch.setattr(torch_series, "_spectra_of", scaled(0.9))
    assert_equals_the_cpu(work)


def test_series_that_diverge_for_good_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_series, "_spectra_of", scaled(1e-3))
    assert_equals_the_cpu(mixed(SimulationSpec(), NAMES[:2]), solver="dense")


def test_a_path_too_long_for_one_series_is_crossed_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chebyshev, "MAX_PHASE", 80.0)
    assert_equals_the_cpu(mixed(SimulationSpec(thicknesses=(100.0, 900.0, 950.0)), NAMES[:3]))


def test_numbers_that_are_not_finite_spoil_no_others() -> None:
    spec = SimulationSpec()
    good, bad = prepared("cubic-P-a-FeSi", spec), prepared("cubic-P-a-FeSi", spec)
    work = [(good, random_rotation(1)), (bad, random_rotation(2)), (good, random_rotation(2))]
    bad.factors.table[:, :, bad.factors.origin[2] + 1] = np.nan
    window = next(torch_solver._windows(torch_batches, work, 10**9))
    beam_sets = [item.beams for item in window.items]
    found = torch_batches.solve_beam_sets(beam_sets, window.tables, (200.0,), torch.device("cpu"), 10**9)
    assert [intensity is None for intensity in found] == [False, True, False]
    with np.errstate(invalid="ignore"), pytest.raises(SimulationError, match="not finite"):
        list(solve_batched(work, "cpu"))


def test_a_batch_that_runs_out_of_memory_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    solve, tried = torch_batches.solve_matrices, []

    def short_of_memory(matrix: torch.Tensor, *arguments: object) -> torch.Tensor | None:
        tried.append(len(matrix))
        if len(matrix) > 2:
            raise torch.OutOfMemoryError("no more")
        return solve(matrix, *arguments)

    monkeypatch.setattr(torch_batches, "solve_matrices", short_of_memory)
    spec = SimulationSpec()
    assert_equals_the_cpu([(prepared("cubic-F-c-copper", spec), random_rotation(seed)) for seed in range(7)])
    assert max(tried) > 2
    assert sum(count for count in tried if count <= 2) == 7


def test_one_orientation_beyond_the_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("no more")

    work = [(prepared("cubic-F-c-copper", SimulationSpec()), np.eye(3))]
    monkeypatch.setattr(torch_batches, "solve_matrices", out_of_memory)
    with pytest.raises(SimulationError, match=r"beams needs .* cpu ran out of memory"):
        list(solve_batched(work, "cpu"))
    monkeypatch.setattr(torch_batches._Stock, "upload", out_of_memory)
    with pytest.raises(SimulationError, match=r"beams needs .* cpu ran out of memory"):
        list(solve_batched(work, "cpu"))


def test_precession_is_left_to_the_cpu() -> None:
    work = [(prepared("cubic-F-c-copper", SimulationSpec(precession_deg=1.0)), np.eye(3))]
    with pytest.raises(SimulationError, match=r"precession_deg is 1.*CPU engine"):
        list(solve_batched(work, "cpu"))


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "meta", ""])
def test_a_device_that_is_none_is_refused_at_once(name: str) -> None:
    with pytest.raises(SimulationError, match=r"PyTorch .* sees .*Give cuda, cuda:1 or cpu"):
        solve_batched([], name)


def test_a_gpu_that_is_not_there_is_refused_and_those_there_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SimulationError, match=r"sees no CUDA device.*CPU engine"):
        solve_batched([], "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    with pytest.raises(SimulationError, match=r"sees cuda:0 \(Some GPU\)"):
        solve_batched([], "cuda:1")
    assert torch_batches.usable_device("cuda:0").type == "cuda"


def test_four_fifths_of_what_is_free_on_a_gpu_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (700, 2000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 400)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 100)
    assert torch_batches.default_memory(torch.device("cuda")) == 800


def test_without_pytorch_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("diffractory.scattering.torch_batches")
    monkeypatch.delitem(sys.modules, "diffractory.scattering.torch_batches")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SimulationError, match=r"pip install 'diffractory\[gpu\]'"):
        solve_batched([], "cpu")


def test_pytorch_is_not_loaded_before_it_is_asked_for() -> None:
    code = "import sys; import diffractory.scattering.torch_solver; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_products_are_in_full_precision_whatever_the_process_has_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matmul, seen = torch.backends.cuda.matmul, []
    monkeypatch.setattr(
        torch_batches,
        "solve_matrices",
        lambda *_: seen.append(matmul.fp32_precision) or torch.zeros(1, 1, 64),
    )
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"
        list(solve_batched([(prepared("cubic-F-c-copper", SimulationSpec()), np.eye(3))], "cpu"))
        assert (seen, matmul.fp32_precision) == (["ieee"], "tf32")
    finally:
        matmul.fp32_precision = before
