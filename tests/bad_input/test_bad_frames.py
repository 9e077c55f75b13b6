"""Raw frames that cannot be worked with, and options of `diffractory detect` that make no sense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cli_runs import refused
from frame_scans import frames_of, lattice_patterns

INLINE = ("--cluster", "inline")
PIXEL = ("--pixel-size", "0.03")
BEAM = ("--pixel-size", "beam")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frames") / "frames.npy"
    np.save(path, frames_of(lattice_patterns(6), (3, 4))[0].frames.to_numpy())
    return path


def _refused(file: Path, tmp_path: Path, *options: object, says: tuple[str, ...]) -> None:
    out = tmp_path.with_name(f"{tmp_path.name}-out") / "scan.h5"
    command = ("detect", file, "--out", out, *options, *INLINE)
    refused(*command, untouched=tmp_path, says=says)
    assert not out.exists()


def _saved(path: Path, array: np.ndarray) -> Path:
    np.save(path / "bad.npy", array)
    return path / "bad.npy"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            (),
            (
                "how large a detector pixel is",
                "--pixel-size",
                "--material",
                "--lattice",
                "beam",
                "--semiangle",
            ),
        ),
        (("--pixel-size", "wide"), ("--pixel-size 'wide'", "0.013", "beam")),
        (("--pixel-size", "beam"), ("frames.npy", "Give --semiangle (in mrad) and --energy (in keV)")),
        ((*BEAM, "--energy", "200"), ("semi-convergence angle", "Give --semiangle (in mrad)")),
        ((*BEAM, "--semiangle", "2"), ("beam energy", "Give --energy (in keV)")),
        ((*BEAM, "--energy", "200", "--semiangle", "400"), ("half a frame", "Check --semiangle")),
        ((*BEAM, "--lattice", "4.05:F"), ("lattice 4.05:F", "Leave out --pixel-size beam")),
        (("--pixel-size", "-1"), ("--pixel-size -1", "above 0")),
        (("--pixel-size", "9"), ("calibration is wrong", "--pixel-size")),
        ((*PIXEL, "--energy", "nan"), ("--energy nan", "in keV")),
        ((*PIXEL, "--vacuum", "0", "50", "0", "2"), ("--vacuum 0 50 0 2", "3 × 4")),
        ((*PIXEL, "--probe", "no.npy"), ("no.npy", "cannot read the probe")),
        ((*PIXEL, "--disk-radius", "0.5"), ("0.5 pixels", "--disk-radius")),
        ((*PIXEL, "--disk-radius", "90"), ("90 pixels", "a quarter")),
        ((*PIXEL, "--sigma", "-2"), ("sigma", "greater than or equal to 0")),
        ((*PIXEL, "--corr-power", "7"), ("corr_power", "less than or equal to 1")),
        ((*PIXEL, "--max-peaks", "0"), ("max_peaks", "greater than or equal to 1")),
        ((*PIXEL, "--significance", "nan"), ("min_significance",)),
        ((*PIXEL, "--significance", "900"), ("no disk was found in any of 12 frames", "12 no peaks")),
        ((*PIXEL, "--center", "nan", "3"), ("--center", "finite")),
        ((*PIXEL, "--ellipse", "round"), ("--ellipse 'round'", "fit")),
        ((*PIXEL, "--ellipse", "9,0"), ("--ellipse 9 0", "between")),
        ((*PIXEL, "--ellipse", "fit", "--ring", "900", "901"), ("no ring", "--ellipse none")),
        ((*PIXEL, "--lattice", "gold"), ("--lattice 'gold'", "4.078:F")),
        ((*PIXEL, "--lattice", "4:F", "--material", "x.cif"), ("two materials",)),
        ((*PIXEL, "--material", "x.cif"), ("x.cif does not exist",)),
        ((*PIXEL, "--lattice", "2.9:F", "--ellipse", "none"), ("material",)),
        ((*PIXEL, "--saturation", "0"), ("saturated", "--saturation")),
    ],
)
def test_options_that_make_no_sense(
    frames: Path, tmp_path: Path, options: tuple[str, ...], says: tuple[str, ...]
) -> None:
    _refused(frames, tmp_path, *options, says=says)


def test_a_probe_without_an_image(frames: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "empty.npy", np.zeros((0, 96, 96)))
    says = ("empty.npy does not fit", "(0, 96, 96)")
    _refused(frames, tmp_path, *PIXEL, "--probe", tmp_path / "empty.npy", says=says)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    _refused(tmp_path / "no.npy", tmp_path, *PIXEL, says=("no.npy",))


def test_a_file_that_is_cut_off(frames: Path, tmp_path: Path) -> None:
    data = frames.read_bytes()
    (tmp_path / "cut.npy").write_bytes(data[: len(data) // 2])
    _refused(tmp_path / "cut.npy", tmp_path, *PIXEL, says=("cut.npy",))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (0, ("no usable frame", "empty", "inspect")),
        (65535, ("no usable frame", "saturated")),
        (7, ("no usable frame", "empty")),
    ],
)
def test_frames_all_alike(tmp_path: Path, value: int, says: tuple[str, ...]) -> None:
    _refused(_saved(tmp_path, np.full((3, 4, 32, 32), value, np.uint16)), tmp_path, *PIXEL, says=says)


def test_frames_that_are_no_numbers(tmp_path: Path) -> None:
    bad = _saved(tmp_path, np.full((3, 4, 32, 32), np.nan, np.float32))
    _refused(bad, tmp_path, *PIXEL, says=("no usable frame", "not finite"))


def test_noise_alone(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).poisson(4.0, (3, 4, 64, 64)).astype(np.uint16)
    _refused(
        _saved(tmp_path, noise),
        tmp_path,
        *PIXEL,
        "--disk-radius",
        "4",
        says=("may be noise", "--significance"),
    )


def test_a_stack_without_a_scan(tmp_path: Path) -> None:
    _refused(_saved(tmp_path, np.ones((12, 32, 32))), tmp_path, *PIXEL, says=("--scan-shape",))


def test_no_direct_beam_in_any_frame(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    scan, _ = frames_of(lattice_patterns(12), (3, 4))
    array = scan.frames.to_numpy()
    for y, x in np.ndindex(3, 4):
        array[y, x] = np.roll(array[y, x], generator.integers(20, 70, 2), axis=(0, 1))
    _refused(_saved(tmp_path, array), tmp_path, *PIXEL, says=("no direct beam", "--center"))


def test_outputs_that_cannot_be(frames: Path, tmp_path: Path) -> None:
    command = ("detect", frames, *PIXEL, *INLINE, "--out")
    refused(*command, tmp_path, untouched=tmp_path, says=("it is a folder",))
    refused(*command, frames, untouched=frames.parent, says=("is the input",))
    (tmp_path / "file").write_text("mine")
    refused(*command, tmp_path / "file" / "scan.h5", untouched=tmp_path, says=("is a file, not a folder",))
