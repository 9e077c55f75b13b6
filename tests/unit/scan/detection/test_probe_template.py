import numpy as np
import pytest

from diffractory.errors import ScanError
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.detection.disk_radius import measure_radius
from diffractory.scan.detection.probe_template import (
    align_frames,
    disk_template,
    image_template,
    kernel_of,
    measure_disk,
    read_probe,
    vacuum_template,
)
from frame_scans import frames_of, lattice_patterns

SHAPE = (96, 96)


def stack(patterns=None, shape=(6, 2), **effects):
    scan, truth = frames_of(patterns or lattice_patterns(6), shape, frame_shape=SHAPE, **effects)
    return scan.frames.to_numpy().reshape(-1, *SHAPE), truth


def vacuum(**effects):
    return stack(PeakTable.from_detected([np.zeros((1, 2))], [np.ones(1)]), (4, 3), **effects)


@pytest.mark.parametrize("radius", [2.0, 3.0, 5.0, 8.0])
def test_radius_from_the_frames(radius):
    frames, _ = stack(disk_radius=radius, drift=4.0)
    assert measure_radius(frames).radius == pytest.approx(radius, abs=max(0.4, 0.1 * radius))


def test_radius_from_few_electrons():
    frames, _ = stack(disk_radius=4.0, electrons=3e3)
    assert measure_radius(frames).radius == pytest.approx(4.0, abs=0.6)


def test_a_halo_and_saturation_do_not_widen_the_disks():
    frames, truth = stack(disk_radius=3.0, background=0.0, poisson=False)
    distance = np.hypot(*(np.indices(SHAPE) - truth.center[0, 0][:, None, None]))
    frames = frames + 3000.0 * np.exp(-((distance / 7.0) ** 2))
    measured = measure_radius(np.minimum(frames, 1500.0))
    assert measured.radius == pytest.approx(3.0, abs=0.7)
    assert "diffracted" in measured.origin


def test_the_disk_of_an_image():
    frames, truth = vacuum(disk_radius=6.0, drift=0.0, center=(40.3, 51.7))
    radius, row, column = measure_disk(frames.mean(axis=0))
    assert radius == pytest.approx(6.0, abs=0.2)
    np.testing.assert_allclose([row, column], truth.center[0, 0], atol=0.1)


@pytest.mark.parametrize("image", [np.zeros(SHAPE), np.ones(SHAPE)])
def test_no_disk_in_a_flat_image(image):
    with pytest.raises(ScanError, match="no direct beam"):
        measure_disk(image)


def test_alignment_takes_out_the_drift():
    frames, _ = vacuum(disk_radius=4.0, drift=9.0, poisson=False)
    assert measure_disk(align_frames(frames))[0] == pytest.approx(4.0, abs=0.35)
    assert np.ptp(align_frames(frames)) > 1.1 * np.ptp(frames.mean(axis=0))


def test_template_from_vacuum_is_the_disk_alone():
    frames, _ = vacuum(disk_radius=4.0, drift=3.0, background=0.5)
    template = vacuum_template(frames)
    assert template.radius == pytest.approx(4.0, abs=0.35)
    distance = np.hypot(*(np.indices(SHAPE) - np.array(template.center)[:, None, None]))
    assert template.image[distance > 8.0].max() == 0.0
    assert template.image[distance < 2.0].min() > 0.8 * template.image.max()
    assert "12 frames" in template.origin


def test_template_from_a_file(tmp_path):
    frames, _ = vacuum(disk_radius=4.0, drift=0.0)
    np.save(tmp_path / "one.npy", frames[0])
    np.save(tmp_path / "many.npy", frames)
    assert read_probe(tmp_path / "one.npy", SHAPE).radius == pytest.approx(4.0, abs=0.4)
    assert read_probe(tmp_path / "many.npy", SHAPE).origin == "many.npy"


def test_probe_files_that_do_not_do(tmp_path):
    np.save(tmp_path / "small.npy", np.zeros((5, 5)))
    np.save(tmp_path / "nan.npy", np.full(SHAPE, np.nan))
    (tmp_path / "text.npy").write_text("probe")
    for name, words in (
        ("small", "does not fit"),
        ("nan", "finite"),
        ("text", "cannot read"),
        ("no", "cannot read"),
    ):
        with pytest.raises(ScanError, match=words):
            read_probe(tmp_path / f"{name}.npy", SHAPE)


@pytest.mark.parametrize("radius", [0.3, 30.0, np.nan])
def test_radii_that_cannot_be_worked_with(radius):
    with pytest.raises(ScanError, match="--disk-radius"):
        disk_template(SHAPE, radius, "test")


@pytest.mark.parametrize("shape", [(96, 96), (97, 95), (512, 300)])
def test_a_plain_disk_is_round_and_even_on_any_frame(shape):
    template = disk_template(shape, 5.0, "test")
    kernel = kernel_of(template, 2.0).values
    np.testing.assert_allclose(kernel, np.roll(kernel[::-1, ::-1], (1, 1), axis=(0, 1)), atol=1e-12)
    assert template.image.sum() == pytest.approx(np.pi * 25.0, rel=0.03)


def test_kernels_sum_to_nothing_or_to_one_and_lie_at_the_origin():
    template = disk_template(SHAPE, 4.0, "test")
    trench, flat = kernel_of(template, 2.0).values, kernel_of(template, 0.0).values
    assert trench.sum() == pytest.approx(0.0, abs=1e-12)
    assert flat.sum() == pytest.approx(1.0)
    for kernel in (trench, flat):
        assert kernel[0, 0] > 0.9 * kernel.max()
        np.testing.assert_allclose(kernel[1:4, 0], kernel[-1:-4:-1, 0], atol=1e-3)
    measured = image_template(template.image, "again")
    np.testing.assert_allclose(kernel_of(measured, 2.0).values, trench, atol=2e-3)
