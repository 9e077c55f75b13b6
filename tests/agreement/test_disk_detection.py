"""Our disk detection and py4DSTEM's own find the same peaks, to a millionth of a pixel."""

import numpy as np
import pytest
from py4DSTEM.braggvectors.diskdetection import _find_Bragg_disks_stack

from diffractory.scan.detection.disk_detection import DiskKernel, detect_block
from diffractory.scan.detection.probe_template import disk_template, kernel_of
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
