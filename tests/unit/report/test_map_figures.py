import numpy as np
import pytest
from matplotlib.colors import to_rgb

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.errors import DiffractoryError, ScanError
from diffractory.patterns.peak_table import PeakTable
from diffractory.report.map_figures import (
    figure_of_domain,
    figure_of_lattice,
    figure_of_systems,
    figure_of_truth,
)
from diffractory.report.pattern_figures import figure_of_patterns
from diffractory.report.style import SYSTEM_COLOURS, UNLABELLED_COLOUR, save_figure
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.mapping.label_map import (
    ScanPrediction,
    SystemBlock,
    WithinBlock,
    filter_labels,
    to_dataset,
)
from diffractory.scan.synthetic.scans import score_map
from diffractory.specs import MapSpec

SHAPE = (6, 9)


def example(shape=SHAPE, step=20.0, labelled=True, status=None):
    n = shape[0] * shape[1]
    system = np.full(n, 6, dtype=np.int8)
    system[: n // 3] = 3
    system[-2:] = -1
    if not labelled:
        system[:] = -1
    asked = system >= 0
    share = np.zeros((n, 2), dtype=np.float32)
    confidence = np.where(asked, np.linspace(1.0, 0.5, n), np.nan)
    share[asked, (system[asked] == 6).astype(int)] = confidence[asked]
    share[asked, (system[asked] != 6).astype(int)] = 1.0 - confidence[asked]
    outside = asked & (np.arange(n) % 4 == 0)
    coordinates = np.where(asked[:, None], np.linspace(-2.0, 2.0, n)[:, None] * [1.0, 0.5], np.nan)
    difference = np.where(asked, 0.2, np.nan)
    block = SystemBlock(share, system, confidence, difference, outside, coordinates)
    lattice = np.where(asked[:, None], np.linspace(3.9, 4.1, n)[:, None] + [0.0, 0.0, 1.0], np.nan)
    within = WithinBlock(np.zeros(n, np.int16), np.full(n, np.nan), np.full(n, np.nan), lattice)
    map_spec = MapSpec(median_size=1)
    labels, reason = filter_labels(block, shape, map_spec)
    table = PeakTable.from_detected([np.zeros((1, 2))] * n, [np.ones(1)] * n)
    prediction = ScanPrediction(block, labels, reason, within, (3, 6))
    return to_dataset(BraggScan(table, shape, step, status=status), prediction, map_spec)


def truth_of(dataset):
    codes = dataset["crystal_system"].to_numpy().copy()
    codes[0, 0] = 6
    codes[-1, -1] = -1
    truth = dataset[["crystal_system", "a", "b", "c"]].copy(deep=True)
    truth["crystal_system"][:] = codes
    return truth


def texts(figure):
    return " | ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def assert_drawn(figure, path):
    save_figure(figure, path, dpi=60)
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_systems_have_their_colours_and_pale_with_doubt(tmp_path):
    figure = figure_of_systems(example())
    image = np.asarray(figure.axes[0].images[0].get_array())
    assert image.shape == (*SHAPE, 3)
    np.testing.assert_allclose(image[0, 0], to_rgb(SYSTEM_COLOURS["tetragonal"]), atol=0.02)
    np.testing.assert_allclose(image[-1, -1], to_rgb(UNLABELLED_COLOUR))
    assert image[5, 0].sum() > image[2, 0].sum()
    assert_drawn(figure, tmp_path / "systems.png")


def test_systems_name_shares_scale_and_what_is_missing():
    written = texts(figure_of_systems(example()))
    assert "52 of 54 positions" in written
    assert "2 few spots, 0 undecided" in written
    assert "34.6 %" in written
    assert "5 nm" in written
    assert all(name in written for name in CRYSTAL_SYSTEMS)


def test_bad_frames_have_a_colour_of_their_own(tmp_path):
    status = np.zeros(54, np.int8)
    status[[0, -1]] = 3
    figure = figure_of_systems(example(status=status))
    image = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(image[-1, -2], to_rgb(UNLABELLED_COLOUR))
    assert image[-1, -1].max() < 0.2
    assert image[0, 0].max() > 0.2  # it has a label all the same
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "few spots or undecided", "bad frame: 1",
    ]  # fmt: skip
    assert "1 few spots, 0 undecided" in texts(figure)
    assert not figure_of_systems(example()).legends
    assert_drawn(figure, tmp_path / "systems.png")


def test_a_scale_bar_leaves_the_axes_as_large_as_the_scan():
    axes = figure_of_systems(example()).axes[0]
    assert axes.get_xlim() == (-0.5, SHAPE[1] - 0.5)
    assert axes.get_ylim() == (SHAPE[0] - 0.5, -0.5)


def test_unknown_step_is_drawn_in_positions():
    figure = figure_of_systems(example(step=None))
    assert "nm" not in texts(figure)
    assert figure.axes[0].get_xlabel() == "scan x (positions)"


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (40, 4), (4, 40)])
@pytest.mark.parametrize("step", [None, 1.0, 333.0])
def test_scans_of_any_shape(tmp_path, shape, step):
    dataset = example(shape, step)
    assert_drawn(figure_of_systems(dataset), tmp_path / "systems.png")
    assert_drawn(figure_of_lattice(dataset), tmp_path / "lattice.png")


def test_maps_without_any_label(tmp_path):
    dataset = example(labelled=False)
    assert_drawn(figure_of_systems(dataset), tmp_path / "systems.png")
    figure = figure_of_lattice(dataset)
    assert "No position has a lattice" in texts(figure)
    assert_drawn(figure, tmp_path / "lattice.png")
    assert "no label" in texts(figure_of_truth(dataset, dataset, None))


def held_by_outline(patch):
    """Return how many positions the steps of one crystal system hold: their area over their width."""
    x, y = patch.get_xy().T
    area = 0.5 * abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
    return area / np.diff(np.unique(x.round(9))).min()


@pytest.mark.parametrize("axis", ["a", "c"])
def test_lattice_states_its_median(tmp_path, axis):
    dataset = example()
    figure = figure_of_lattice(dataset, axis)
    assert f"median {float(dataset[axis].median()):.2f} Å" in texts(figure)
    assert sum(held_by_outline(patch) for patch in figure.axes[1].patches) == pytest.approx(52)
    assert_drawn(figure, tmp_path / "lattice.png")


def test_what_patterns_tell_together_stands_beside_the_median():
    axes = figure_of_lattice(example(), "a", ("all patterns of particle 1", 4.1234)).axes[1]
    assert "all patterns of particle 1: 4.123 Å" in [
        text.get_text() for text in axes.get_legend().get_texts()
    ]
    assert 4.1234 in [line.get_xdata()[0] for line in axes.lines]
    assert "together" not in texts(figure_of_lattice(example()))


def test_lattices_of_an_assumed_system_are_called_nothing_else(tmp_path):
    dataset = example()
    dataset.attrs["map_spec"] = MapSpec(assume="cubic").to_json()
    figure = figure_of_lattice(dataset)
    titles = [axes.get_title(loc="left") for axes in figure.axes[:2]]
    assert titles == ["a, cubic assumed (grey: none)", "a of 52 positions, cubic assumed"]
    legend = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert legend == ["cubic (assumed)", "median 4.00 Å"]
    assert held_by_outline(figure.axes[1].patches[0]) == pytest.approx(52)
    assert "assumed" not in texts(figure_of_lattice(example()))
    assert_drawn(figure, tmp_path / "lattice.png")


def test_lattice_of_one_single_value(tmp_path):
    dataset = example()
    dataset["a"][:] = 4.05
    figure = figure_of_lattice(dataset)
    assert "median 4.05 Å" in texts(figure)
    assert_drawn(figure, tmp_path / "lattice.png")


def test_unknown_axis_is_refused():
    with pytest.raises(ScanError, match=r"'alpha' is not a lattice constant.*a, b, c"):
        figure_of_lattice(example(), "alpha")


def test_truth_shows_right_and_wrong(tmp_path):
    dataset = example()
    truth = truth_of(dataset)
    figure = figure_of_truth(dataset, truth, score_map(dataset, truth)["accuracy"])
    kind = np.asarray(figure.axes[2].images[0].get_array())
    assert kind[0, 0] == 3
    assert kind[0, 1] == 2
    assert kind[-1, -1] == 0
    assert "98 % of labels right" in texts(figure)
    assert_drawn(figure, tmp_path / "truth.png")


def test_domain_shows_what_lies_outside(tmp_path):
    figure = figure_of_domain(example(), np.random.default_rng(0).normal(size=(50, 2)))
    written = texts(figure)
    assert "scan, inside: 75.0 %" in written
    assert "scan, outside: 25.0 %" in written
    drawn = [len(points.get_offsets()) for points in figure.axes[0].collections]
    assert drawn == [50, 39, 13]
    image = np.asarray(figure.axes[1].images[0].get_array())
    assert image.shape == SHAPE
    assert [image[0, 0], image[0, 1], image[-1, -1]] == [2, 1, 0]
    assert_drawn(figure, tmp_path / "domain.png")


def test_domain_of_a_map_without_any_label(tmp_path):
    figure = figure_of_domain(example(labelled=False), np.empty((0, 2)))
    assert "scan, outside: 0.0 %" in texts(figure)
    assert_drawn(figure, tmp_path / "domain.png")


def test_patterns(tmp_path):
    q = np.array([[0.5, 0.0], [0.01, 0.0], [0.0, -0.8], [0.3, 0.3]])
    intensity = np.array([0.1, 0.5, 1e-9, 0.0])
    figure = figure_of_patterns([q, np.empty((0, 2))], [intensity, np.empty(0)], ["copper", "vacuum"])
    assert "copper" in texts(figure)
    spots = figure.axes[0].collections[0]
    assert len(spots.get_offsets()) == 3
    areas, colours = spots.get_sizes(), spots.get_facecolors()
    assert areas.argmax() == 1
    assert areas.min() > 0
    assert not np.array_equal(colours[1], colours[0])
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert figure.axes[1].collections == [] or len(figure.axes[1].collections) == 0
    assert_drawn(figure, tmp_path / "patterns.png")


@pytest.mark.parametrize(
    ("q", "intensity", "titles"),
    [
        ([], [], []),
        ([np.zeros((2, 2))], [np.zeros(2)], ["a", "b"]),
        ([np.zeros((2, 2))], [np.zeros(3)], ["a"]),
        ([np.zeros((2, 3))], [np.zeros(2)], ["a"]),
    ],
)
def test_patterns_that_do_not_fit(q, intensity, titles):
    with pytest.raises(DiffractoryError, match="cannot draw"):
        figure_of_patterns(q, intensity, titles)
