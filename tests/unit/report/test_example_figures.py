"""Recorded frames below the peaks of example patterns."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from diffractory.patterns.peak_table import PeakTable
from diffractory.report import map_report
from diffractory.report.example_figures import figure_of_examples
from diffractory.report.frame_image import draw_frame
from diffractory.report.map_report import write_map_report
from diffractory.report.style import save_figure
from diffractory.scan.frame_places import ExampleFrames, FramePlaces
from diffractory.scan.mapping.examples import example_positions
from diffractory.scan.mapping.label_map import to_dataset
from diffractory.specs import MapSpec
from particle_examples import prediction, scan

ROWS, COLUMNS, PIXEL = 48, 64, 0.025
#: Stretches by 5 % along a direction that is no axis.
MATRIX = np.array([[1.03, 0.02], [0.02, 0.98]]) / PIXEL
Q = np.array([[0.0, 0.0], [0.3, 0.1], [-0.2, 0.4], [0.1, -0.5]])


def example():
    return to_dataset(scan(20.0), prediction(), MapSpec(), {"plan_id": "p17"})


def peaks():
    return PeakTable.from_detected([Q] * 24, [np.ones(len(Q))] * 24)


def frame_with_disks(center, pixels_of_peaks, value):
    """A frame whose background tells which it is, with a disk on each peak, the direct beam's brightest."""
    row, column = np.mgrid[:ROWS, :COLUMNS]
    image = np.full((ROWS, COLUMNS), 1.0 + 0.01 * value)
    for number, (y, x) in enumerate(pixels_of_peaks):
        image[np.hypot(row - y, column - x) <= 2.0] = 1000.0 if number == 0 else 20.0
    return image


@pytest.fixture(scope="module")
def placed():
    """Frames whose direct beam drifts by several pixels."""
    drift = np.stack([20.0 + 0.3 * np.arange(24), 40.0 - 0.5 * np.arange(24)], axis=1)
    places = FramePlaces(drift, MATRIX, (ROWS, COLUMNS), 2.0)
    found = {}
    for position in example_positions(example()).ravel().tolist():
        found[position] = places.place(
            position, frame_with_disks(drift[position], drift[position] + Q @ MATRIX.T, position)
        )
    return found


def test_two_positions_of_every_system_are_chosen():
    dataset = example()
    chosen = example_positions(dataset)
    labels = dataset["crystal_system"].to_numpy().ravel()
    assert chosen.shape == (2, len(np.unique(labels[labels >= 0])))
    assert (labels[chosen[0]] == labels[chosen[1]]).all()


def test_each_panel_holds_the_frame_of_its_position_with_circles_on_its_disks(placed, tmp_path):
    dataset = example()
    figure = figure_of_examples(peaks(), dataset, placed)
    chosen = example_positions(dataset).ravel().tolist()
    assert len(figure.axes) == len(chosen)
    for axes, position in zip(figure.axes, chosen, strict=True):
        y, x = divmod(position, 6)
        assert any(text.get_text().startswith(f"y {y}, x {x}:") for text in axes.texts)
        (image,) = axes.images
        pixels = placed[position].pixels
        # As many pixels at the frame's own places: the scale keeps their order.
        shown = np.asarray(image.get_array())
        assert shown.shape == pixels.shape
        assert len(np.unique(shown)) == 3
        left, right, bottom, top = image.get_extent()
        offsets = np.asarray(axes.collections[0].get_offsets())
        column = (offsets[:, 0] - left) / (right - left) * COLUMNS - 0.5
        row = (offsets[:, 1] - top) / (bottom - top) * ROWS - 0.5
        np.testing.assert_allclose(
            np.stack([row, column], -1), placed[position].origin + Q @ MATRIX.T, atol=1e-9
        )
        assert (pixels[np.rint(row).astype(int), np.rint(column).astype(int)] >= 20.0).all()
        # The direct beam is in the middle of the panel, and rows run down.
        assert np.abs(offsets[0]).max() < 1e-9
        assert axes.get_ylim()[0] > axes.get_ylim()[1]
        edges = np.abs([left, right, bottom, top])
        assert edges.max() <= axes.get_xlim()[1] + 1e-9
        face = axes.collections[0].get_facecolor()
        assert len(face) == 0 or not face[:, 3].any()
    assert len({tuple(axes.collections[0].get_edgecolor()[0]) for axes in figure.axes}) == 1
    first, second = figure.axes[0].collections[0].get_edgecolor()[:2]
    assert tuple(first) != tuple(second)
    save_figure(figure, tmp_path / "examples.png", dpi=50)


def test_the_drawn_frame_is_that_of_the_position(placed):
    dataset = example()
    chosen = example_positions(dataset).ravel().tolist()
    marked = {}
    for position in chosen:
        pixels = placed[position].pixels.copy()
        pixels[0, position] = 500.0
        places = FramePlaces(np.tile(placed[position].origin, (24, 1)), MATRIX)
        marked[position] = places.place(position, pixels)
    figure = figure_of_examples(peaks(), dataset, marked)
    for axes, position in zip(figure.axes, chosen, strict=True):
        assert int(np.asarray(axes.images[0].get_array())[0].argmax()) == position


def test_a_position_without_frame_shows_its_peaks_alone(placed):
    dataset = example()
    first = int(example_positions(dataset)[0, 0])
    figure = figure_of_examples(peaks(), dataset, {k: v for k, v in placed.items() if k != first})
    assert [len(axes.images) for axes in figure.axes] == [0, 1, 1, 1]
    # Disks, whose area tells intensity.
    assert figure.axes[0].collections[0].get_facecolor().any()


def grey_of(pixels):
    axes = Figure().subplots()
    draw_frame(axes, pixels)
    image = axes.images[0]
    return image.norm(np.ma.asarray(image.get_array()))


def test_hot_pixels_do_not_rule_the_scale_and_weak_disks_show():
    generator = np.random.default_rng(0)
    image = generator.poisson(3.0, (128, 128)).astype(float)
    image[60:68, 60:68] = 5000.0
    image[30:35, 90:95] += 12.0
    before = grey_of(image)
    weak, around = before[30:35, 90:95].mean(), before[20:50, 80:88].mean()
    assert weak - around > 0.1
    image[5, 5] = image[100, 7] = 1e9
    np.testing.assert_allclose(grey_of(image)[30:35, 90:95], before[30:35, 90:95], atol=0.01)
    image[7, 7] = np.nan
    assert np.ma.count_masked(np.ma.masked_invalid(grey_of(image))) == 1


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_frames_of_one_value_are_drawn(value, tmp_path):
    figure = Figure()
    draw_frame(figure.subplots(), np.full((8, 8), value))
    save_figure(figure, tmp_path / "frame.png", dpi=40)


@pytest.mark.parametrize(
    ("examples", "told"),
    [
        (None, "not the detector's image."),
        (
            ExampleFrames(missing="their frames are not shown, as a.npy has changed"),
            "not the detector's image: their frames are not shown, as a.npy has changed.",
        ),
    ],
)
def test_the_page_says_why_there_are_peaks_alone(tmp_path, monkeypatch, examples, told):
    monkeypatch.setattr(map_report, "_draw", lambda _, path: path.with_suffix(".png").write_bytes(b""))
    write_map_report(tmp_path, example(), peaks(), np.zeros((3, 2)), examples=examples)
    page = (tmp_path / "map.html").read_text().replace("&#x27;", "'")
    assert told in page
    assert "Recorded frames" not in page


def test_the_page_says_whose_frames_are_shown(tmp_path, monkeypatch, placed):
    drawn = {}
    monkeypatch.setattr(
        map_report, "_draw", lambda figure, path: (
            drawn.update({path.name: figure}), path.with_suffix(".png").write_bytes(b"")
        ),
    )  # fmt: skip
    write_map_report(
        tmp_path, example(), peaks(), np.zeros((3, 2)), examples=ExampleFrames(placed, "scan.blo")
    )
    assert "Recorded frames (of scan.blo)" in (tmp_path / "map.html").read_text()
    assert all(len(axes.images) == 1 for axes in drawn["examples"]().axes)
