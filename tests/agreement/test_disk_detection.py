"""Our disk detection and py4DSTEM's own find the same peaks, to a millionth of a pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from py4DSTEM.braggvectors import Probe
from py4DSTEM.braggvectors.diskdetection import _find_Bragg_disks_stack
from py4DSTEM.preprocess.utils import filter_2D_maxima

from diffractory.scan.detection.disk_detection import DiskKernel, detect_block, passing
from diffractory.scan.detection.probe_template import ProbeTemplate, disk_template, kernel_of
from diffractory.specs import DetectionSpec
from frame_scans import frames_of, lattice_patterns


def frames(shape, **effects):
    scan, truth = frames_of(lattice_patterns(3), (1, 3), frame_shape=shape, electrons=3e5, **effects)
    return scan.frames.to_numpy().reshape(-1, *shape), truth


def theirs(stack, kernel, spec):
    return _find_Bragg_disks_stack(
        stack, kernel.values, corrPower=spec.corr_power, sigma_cc=spec.sigma, subpixel=spec.subpixel,
        upsample_factor=spec.upsample_factor, minAbsoluteIntensity=spec.min_absolute_intensity,
        minRelativeIntensity=spec.min_relative_intensity, minPeakSpacing=spec.min_spacing,
        edgeBoundary=spec.edge_boundary, maxNumPeaks=spec.max_peaks,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((96, 96), {"sigma": 2.0}),
        ((96, 96), {"sigma": 1.0, "corr_power": 0.8}),
        ((97, 90), {"sigma": 0.0, "trench": 3.0}),
        ((90, 97), {"sigma": 1.0, "upsample_factor": 7, "max_peaks": 12}),
        ((95, 95), {"sigma": 2.0, "subpixel": "poly"}),
        ((96, 80), {"sigma": 1.0, "subpixel": "pixel", "min_absolute_intensity": 5.0}),
        ((96, 96), {"trench": 0.0, "sigma": 2.0, "corr_power": 0.9}),
        ((96, 96), {"sigma": 2.0, "corr_power": 0.0, "max_peaks": 20}),
    ],
)
def test_same_peaks_as_py4dstem(shape, options):
    stack, truth = frames(shape)
    chosen = {"edge_boundary": 4, "min_spacing": 5.0, "min_relative_intensity": 0.002, "max_peaks": 70}
    spec = DetectionSpec(**{**chosen, **options})
    kernel = kernel_of(disk_template(shape, truth.effects.disk_radius, "test"), spec.trench)
    ours = detect_block(stack, kernel, spec)
    compared = 0
    for index, reference in enumerate(theirs(stack, kernel, spec)):
        q, intensity = ours.pattern(index)
        assert len(q) == len(reference.data)
        places = np.stack([reference.data["qx"], reference.data["qy"]], axis=1)
        np.testing.assert_allclose(q, places, atol=1e-6)
        np.testing.assert_allclose(intensity, reference.data["intensity"], rtol=1e-9)
        compared += len(q)
    assert compared > 20


def test_same_peaks_with_a_kernel_of_the_users_own():
    stack, _ = frames((96, 96))
    values = np.zeros((96, 96))
    values[:4, :3] = 1.0
    spec = DetectionSpec(sigma=1.5, edge_boundary=3, min_spacing=4.0, min_relative_intensity=0.01)
    kernel = DiskKernel(values, 2.0)
    ours = detect_block(stack, kernel, spec)
    for index, reference in enumerate(theirs(stack, kernel, spec)):
        places = np.stack([reference.data["qx"], reference.data["qy"]], axis=1)
        np.testing.assert_allclose(ours.pattern(index)[0], places, atol=1e-6)


@pytest.mark.parametrize("center", [(48.0, 40.0), (47.3, 40.62), (20.5, 70.1)])
@pytest.mark.parametrize("shape", [(96, 80), (97, 81), (96, 81)])
def test_same_kernels_as_py4dstem(shape, center):
    rows, columns = np.indices(shape)
    distance = np.hypot(rows - center[0], columns - center[1])
    template = ProbeTemplate(np.exp(-((distance / 4.0) ** 4)) * (1.0 + 0.05 * rows), center, 4.4, "test")
    flat, trench = kernel_of(template, 1.0).values, kernel_of(template, 2.2).values
    np.testing.assert_allclose(flat, Probe.get_probe_kernel_flat(template.image, origin=center), atol=1e-14)
    theirs = Probe.get_probe_kernel_edge_sigmoid(template.image, (4.4, 2.2 * 4.4), origin=center)
    np.testing.assert_allclose(trench, theirs, atol=1e-14)
    assert abs(flat.sum() - 1.0) < 1e-12
    assert abs(trench.sum()) < 1e-12


@given(
    places=arrays(np.int64, st.tuples(st.integers(0, 25), st.just(2)), elements=st.integers(0, 12)),
    absolute=st.sampled_from([0.0, 4.0]),
    relative=st.sampled_from([0.0, 0.3]),
    spacing=st.sampled_from([0.0, 1.0, 2.5, 5.0]),
    most=st.sampled_from([1, 4, 100]),
    seed=st.integers(0, 9),
)
def test_same_filters_as_py4dstem(places, absolute, relative, spacing, most, seed):
    maxima = np.zeros(len(places), dtype=[("x", float), ("y", float), ("intensity", float)])
    maxima["x"], maxima["y"] = places.T
    heights = np.random.default_rng(seed).integers(1, 12, len(places))
    maxima["intensity"] = np.sort(heights)[::-1]
    spec = DetectionSpec(
        min_absolute_intensity=absolute,
        min_relative_intensity=relative,
        min_spacing=spacing,
        max_peaks=most,
    )
    theirs = filter_2D_maxima(
        maxima,
        minAbsoluteIntensity=absolute,
        minRelativeIntensity=relative,
        minSpacing=spacing,
        maxNumPeaks=most,
    )
    np.testing.assert_array_equal(maxima[passing(maxima, spec)], theirs)
