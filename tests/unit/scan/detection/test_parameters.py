import numpy as np
import pytest

from diffractory.scan.detection.disk_detection import Correlator, DiskKernel, detect_block
from diffractory.scan.detection.parameters import (
    choose_parameters,
    choose_trench,
    measure_noise,
    significance_for,
    significance_of_maxima,
)
from diffractory.scan.detection.probe_template import disk_template, kernel_of
from diffractory.specs import DetectionSpec
from frame_scans import frames_of, lattice_patterns

SHAPE = (96, 96)
KERNEL = kernel_of(disk_template(SHAPE, 3.0, "test"), 2.0)


def pairs(n=12, **effects):
    scan, _ = frames_of(lattice_patterns(n), (n, 2), frame_shape=SHAPE, **effects)
    frames = scan.frames.to_numpy()
    return frames[:, 0], frames[:, 1]


@pytest.mark.parametrize("electrons", [300.0, 1e4, 1e5])
def test_counting_noise_has_a_gain_of_one(electrons):
    noise = measure_noise(*pairs(electrons=electrons), KERNEL, DetectionSpec())
    assert noise.gain == pytest.approx(1.0, abs=0.12)
    assert noise.variance < 0.1 * np.median(noise.measured)


def test_the_gain_is_that_of_the_camera():
    first, second = pairs()
    noise = measure_noise(first * 20.0, second * 20.0, KERNEL, DetectionSpec(sigma=1.0))
    assert noise.gain == pytest.approx(20.0, rel=0.15)


def test_readout_noise_is_a_constant():
    generator = np.random.default_rng(0)
    first, second = (f + generator.normal(0.0, 3.0, f.shape) for f in pairs(electrons=1e4))
    noise = measure_noise(first, second, KERNEL, DetectionSpec())
    expected = 9.0 * float((KERNEL.values**2).sum())
    assert noise.variance == pytest.approx(expected, rel=0.15)


def test_a_pedestal_is_no_intensity():
    first, second = (np.clip(f + 30.0, 0.0, None) for f in pairs(electrons=1e5))
    noise = measure_noise(first, second, KERNEL, DetectionSpec())
    squared = float((KERNEL.values**2).sum())
    assert noise.gain == pytest.approx(1.0, abs=0.12)
    assert noise.pedestal == pytest.approx(30.0 * squared, rel=0.15)
    assert noise.at(30.0 * squared) < 0.5 * squared
    spec, _ = choose_parameters(first, second, KERNEL, {})
    assert spec.noise_pedestal == noise.pedestal
    deviation = Correlator(KERNEL, spec).with_noise(first[0])[1]
    local = Correlator(DiskKernel(KERNEL.values**2, KERNEL.radius), DetectionSpec()).signed(first[0])
    np.testing.assert_allclose(deviation**2, noise.at(local), rtol=1e-6, atol=1e-12)


def test_the_trench_of_small_disks_is_wider():
    assert choose_trench(2.0) == 3.0
    assert choose_trench(10.0) == 2.2


def test_grains_that_change_are_no_noise():
    scan, _ = frames_of(lattice_patterns(24), (12, 2), frame_shape=SHAPE)  # no two neighbours alike
    frames = scan.frames.to_numpy()
    noise = measure_noise(frames[:, 0], frames[:, 1], KERNEL, DetectionSpec())
    assert 0.9 < noise.gain < 1.5


def test_where_noise_is_no_line_it_is_not_understated():
    generator = np.random.default_rng(0)
    dark = np.linspace(1.0, 6.0, 96)[None, :] ** 2  # the darker, the noisier
    first, second = (50.0 / dark + generator.normal(0.0, dark, (6, *SHAPE)) for _ in range(2))
    noise = measure_noise(first, second, KERNEL, DetectionSpec())
    assert (noise.variance + noise.gain * noise.local >= 0.9 * noise.measured).mean() > 0.8


def test_no_noise_no_pairs():
    first, _ = pairs(n=2, poisson=False)
    assert measure_noise(first, first, KERNEL, DetectionSpec()).gain == 0.0
    alone, noise = choose_parameters(pairs(n=4)[0], first[:0], KERNEL, {})
    assert noise.gain == pytest.approx(1.0, abs=0.25)
    assert alone.noise_gain == noise.gain
    assert alone.min_significance > 4.0
    blank, _ = choose_parameters(np.zeros((2, *SHAPE)), np.zeros((2, *SHAPE)), KERNEL, {})
    assert (blank.min_significance, blank.noise_gain) == (0.0, 0.0)
    assert blank.min_relative_intensity > 0.0


@pytest.mark.parametrize("false_peaks", [0.05, 1.0])
@pytest.mark.parametrize("trench", [2.0, 0.0])
def test_noise_alone_gives_as_many_peaks_as_were_accepted(false_peaks, trench):
    generator = np.random.default_rng(1)
    kernel = kernel_of(disk_template(SHAPE, 3.0, "test"), 2.0)
    frames = generator.normal(0.0, 1.0, (120, *SHAPE))
    variance = float((kernel.values**2).sum())
    spec = DetectionSpec(noise_variance=variance, min_significance=4.0, subpixel="pixel", trench=trench)
    spec = spec.model_copy(update={"min_significance": significance_for(false_peaks, kernel, spec)})
    a_frame = detect_block(frames, kernel, spec).counts.mean()
    assert 0.4 * (false_peaks - 0.05) < a_frame < 1.5 * false_peaks


def test_rules_and_what_the_user_sets():
    first, second = pairs()
    spec, _ = choose_parameters(first, second, KERNEL, {})
    assert (spec.min_spacing, spec.edge_boundary) == (4.5, 3)
    assert 4.0 < spec.min_significance < 5.5
    more, _ = choose_parameters(first, second, KERNEL, {}, false_peaks=5.0)
    assert more.min_significance < spec.min_significance
    chosen = {"min_spacing": 7.0, "min_significance": 9.0, "noise_gain": 3.0}
    own, _ = choose_parameters(first, second, KERNEL, chosen)
    assert (own.min_spacing, own.min_significance, own.noise_gain, own.edge_boundary) == (7.0, 9.0, 3.0, 3)


def test_significance_of_maxima_shows_both_sides_of_the_threshold():
    first, second = pairs(n=4)
    spec, _ = choose_parameters(first, second, KERNEL, {})
    shown = significance_of_maxima(first, KERNEL, spec)
    above = int((shown >= spec.min_significance).sum())
    plain = spec.model_copy(update={"subpixel": "pixel", "min_relative_intensity": 0.0})
    assert above == len(detect_block(first, KERNEL, plain).intensity)
    assert (shown < spec.min_significance).sum() > 1.5 * above
    assert significance_of_maxima(first, KERNEL, DetectionSpec()).size == 0


def test_places_that_no_electron_reached_have_no_significance():
    """Maxima there are rounding, over a noise of zero: infinitely significant, which no axis can show."""
    rows, columns = np.indices(SHAPE)
    disk = np.hypot(rows - 40.0, columns - 50.0) < 3.0
    frames = np.where(disk, np.random.default_rng(0).poisson(200.0, (4, *SHAPE)), 0.0)
    spec = DetectionSpec(min_significance=5.0, noise_gain=1.0)
    shown = significance_of_maxima(frames, KERNEL, spec)
    assert shown.size >= 4
    assert shown.max() < 200.0
