import base64
import pickle
import re
import shutil
import subprocess
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from diffractory.errors import DiffractoryError
from diffractory.patterns.cubic_phase import CubicPhase
from diffractory.patterns.peak_table import PeakTable
from diffractory.report import map_report
from diffractory.report.example_figures import figure_of_examples
from diffractory.report.map_report import REPORT_FILES, begin_pictures, write_map_report
from diffractory.report.particle_figures import figure_of_flags, figure_of_particles
from diffractory.report.style import SYSTEM_COLOURS, UNLABELLED_COLOUR, save_figure
from diffractory.scan.mapping.label_map import ScanPrediction, to_dataset
from diffractory.scan.mapping.particle_table import particle_table
from diffractory.scan.mapping.scan_phase import ScanPhases
from diffractory.specs import MapSpec, ParticleSpec
from particle_examples import PARTICLE, prediction, scan

TRAINING = np.random.default_rng(0).normal(size=(20, 2))
#: Every picture a map with particles and unequal a, b and c has.
PICTURES = [
    "system", "particles", "lattice", "lattice-b", "lattice-c", "cubic-rings", "domain", "flags", "examples",
]  # fmt: skip


def example(step=20.0, overlapping=None, **changes):
    whole = prediction(overlapping=np.arange(24) % 2 == 0 if overlapping is None else overlapping)
    return to_dataset(scan(step), ScanPrediction(**{**vars(whole), **changes}), MapSpec(), {"plan_id": "p17"})


def table_of(step=20.0):
    return particle_table(scan(step), prediction())


def with_constant(table, margin=50.0):
    """The same particles, the first of which has a cubic constant."""
    told = {"a_pooled": 4.0, "a_pooled_margin": margin, "a_pooled_on_rings": 0.9, "a_pooled_by_chance": 0.3}
    changed = table.copy()
    changed.loc[0, list(told)] = list(told.values())
    changed.loc[0, "a_pooled_centring"] = "F"
    return changed


def texts(figure):
    return " | ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


class Read(HTMLParser):
    """Everything a page names, and the cells of its tables."""

    def __init__(self, text):
        super().__init__()
        self.pictures, self.links, self.rows, self.names = [], [], 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.names.append(tag)
        self.rows += tag == "tr"
        if tag == "img":
            self.pictures.append(values)
        self.links += [values[name] for name in ("href", "src", "action") if name in values]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A whole report and the names of its files; nobody changes it."""
    folder = tmp_path_factory.mktemp("report")
    return folder, write_map_report(folder, example(), scan().peaks, TRAINING, with_constant(table_of()))


@pytest.fixture
def only_text(monkeypatch):
    """Have pictures be empty files: drawing takes long, and these tests read the page."""
    monkeypatch.setattr(map_report, "_draw", lambda _, path: path.with_suffix(".png").write_bytes(b""))


def test_rings_are_drawn_of_a_decided_constant_alone(tmp_path, only_text):
    for margin, told, drawn in (
        (50.0, "4.000 F (90 % on rings, 30 % by chance; 50)", True),
        (4.0, "undecided", False),
    ):
        table = with_constant(table_of(), margin)
        names = write_map_report(tmp_path, example(), scan().peaks, TRAINING, table)
        assert told in (tmp_path / "map.html").read_text()
        assert ("cubic-rings.png" in names) is drawn
    assert "cubic-rings.png" not in write_map_report(tmp_path, example(), scan().peaks, TRAINING, None)


def test_the_rings_are_those_of_a_phase_where_the_scan_has_one(tmp_path, only_text):
    found, told = CubicPhase(4.2, "F", 0.9, 0.2, 17, 12.0), CubicPhase(5.4, "F")
    speak, evidence = np.where(np.arange(24) < 20, 1, 0).astype(np.int8), np.full(24, 0.5)
    dataset = example(phases=ScanPhases((told, found), 2 * speak, evidence, 3))
    names = write_map_report(tmp_path, dataset, scan().peaks, TRAINING, with_constant(table_of()))
    assert "cubic-rings.png" in names
    page = (tmp_path / "map.html").read_text()
    assert (
        "F, a = 4.200 Å (found in 17 distinct patterns): the spots of 20 positions, 90 % of all spots" in page
    )
    assert "F, a = 5.400 Å (told): the spots of 0 positions." in page
    assert "called cubic more readily: 3 are by that" in page
    drawn = map_report._pictures(dataset, scan().peaks, TRAINING, with_constant(table_of()))
    figures = {
        picture.name: picture.figure() for picture in drawn if picture.name in ("lattice", "cubic-rings")
    }
    assert "a cubic phase of the scan: 4.200 Å" in texts(figures["lattice"])
    assert "of 20 positions, and the rings of F, a = 4.200 Å" in texts(figures["cubic-rings"])


def test_the_page_holds_every_picture_and_needs_nothing_else(report):
    folder, names = report
    assert sorted(names) == sorted(path.name for path in folder.iterdir()) == sorted(REPORT_FILES)
    assert names == [*(f"{name}.{kind}" for name in PICTURES for kind in ("svg", "png")), "map.html"]
    text = (folder / "map.html").read_text()
    page = Read(text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[^\"]*", "", text))
    assert not {"script", "link", "iframe"} & set(page.names)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    shown = [base64.b64decode(picture["src"].partition(",")[2]) for picture in page.pictures]
    assert shown == [(folder / f"{name}.png").read_bytes() for name in PICTURES]
    # What is wider than the page scrolls by itself.
    assert text.count('<div class="wide"><table>') == text.count("<table>") > 0
    assert ".wide { overflow-x: auto }" in text
    assert all(len(picture["alt"]) > 100 for picture in page.pictures)
    assert all((folder / f"{name}.svg").read_text().startswith("<?xml") for name in PICTURES)


class Pickling(Executor):
    """Runs at once what survives the way to another process, and remembers how many bytes that takes."""

    def __init__(self, dies=False):
        self.dies, self.most_bytes = dies, 0

    def submit(self, function, /, *args):
        sent = pickle.dumps((function, args))
        self.most_bytes = max(self.most_bytes, len(sent))
        future = Future()
        if self.dies:
            future.set_exception(BrokenProcessPool("out of memory"))
            return future
        function, args = pickle.loads(sent)
        future.set_result(function(*args))
        return future


@pytest.mark.parametrize("dies", [False, True])
def test_pictures_drawn_by_another_process_are_the_same(tmp_path, report, dies):
    map_parts = example(), scan().peaks, TRAINING, with_constant(table_of())
    helper, (here, names) = Pickling(dies), report
    begun = begin_pictures(helper, tmp_path, *map_parts)
    there = {path.stem for path in tmp_path.iterdir()}
    assert there == (set() if dies else {"lattice", "lattice-b", "lattice-c", "cubic-rings", "flags"})
    assert write_map_report(tmp_path, *map_parts, begun=begun) == names
    for name in (*(f"{name}.png" for name in PICTURES), "map.html"):
        assert (here / name).read_bytes() == (tmp_path / name).read_bytes()
    assert helper.most_bytes < len(pickle.dumps(map_parts)) / 2


def test_the_page_says_what_the_table_says(report):
    table = table_of()
    text = (report[0] / "map.html").read_text()
    assert "cubic" in text
    assert (
        f"{table['b'][0]:.3f} [{table['b_lower_quartile'][0]:.3f}–{table['b_upper_quartile'][0]:.3f}]" in text
    )
    assert "outside training" in text
    assert "p17" in text
    assert "4 × 6 positions, 2 nm apart" in text
    assert "The scan step is not known" not in text
    assert "assumed</h1>" not in text
    assert 'class="notes"' not in text
    rows = Read(text).rows
    assert rows == 1 + 2 + 1 + len(table)  # two crystal systems, three particles, two heads


@pytest.mark.usefixtures("only_text")
def test_without_particles_and_without_a_step(tmp_path):
    dataset = example(None, particles=None)
    names = write_map_report(tmp_path, dataset, scan().peaks, TRAINING)
    assert "particles.png" not in names
    text = (tmp_path / "map.html").read_text()
    assert "The scan step is not known" in text
    assert len(Read(text).pictures) == len(PICTURES) - 2


@pytest.mark.usefixtures("only_text")
def test_what_was_assumed_is_said_first(tmp_path):
    dataset = example()
    dataset.attrs["map_spec"] = MapSpec(assume="cubic").to_json()
    notes = ["the beam energy is unknown: 300 keV is assumed", "a < b"]
    write_map_report(tmp_path, dataset, scan().peaks, TRAINING, notes=notes)
    text = (tmp_path / "map.html").read_text()
    assert ", cubic assumed</h1>" in text
    assert "of all taken to be cubic" in text
    assert text.index("300 keV is assumed") < text.index("have a label") < text.index("<h2>")
    assert "<li>a &lt; b</li>" in text


@pytest.mark.usefixtures("only_text")
def test_no_particle_found(tmp_path):
    table = table_of().iloc[:0]
    dataset = example()
    dataset["particle"][:] = 0
    write_map_report(tmp_path, dataset, scan().peaks, TRAINING, table)
    assert "0 in the table" in (tmp_path / "map.html").read_text()
    figure = figure_of_particles(dataset, table)
    assert "Dark field and 0 particles" in texts(figure)
    save_figure(figure, tmp_path / "particles.png", dpi=50)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DiffractoryError, match="cannot write"):
        write_map_report(tmp_path / "file", example(), scan().peaks, TRAINING)


@pytest.mark.usefixtures("only_text")
def test_regions_are_not_called_particles(tmp_path):
    whole = prediction(spec=ParticleSpec(regions="grid", grid=2))
    dataset = to_dataset(scan(), whole, MapSpec())
    write_map_report(tmp_path, dataset, scan().peaks, TRAINING, particle_table(scan(), whole))
    text = (tmp_path / "map.html").read_text()
    assert "<h2>Blocks</h2>" in text
    assert "The blocks of the scan" in text
    assert "<h2>Particles</h2>" not in text


def test_particles_have_outlines_numbers_and_colours(tmp_path):
    figure = figure_of_particles(example(), table_of())
    left, right, bar = figure.axes
    assert bar.get_ylabel() == "root of the summed intensity"
    assert {text.get_text() for text in left.texts} >= {"1", "2", "3"}
    outline = left.patches[-1].get_path().vertices.reshape(-1, 2, 2)
    padded = np.pad(PARTICLE, 1)
    edges = (np.diff(padded, axis=0) != 0).sum() + (np.diff(padded, axis=1) != 0).sum()
    assert len(outline) == edges
    np.testing.assert_allclose(np.abs(np.diff(outline, axis=1)).sum(axis=2), 1.0)
    image = np.asarray(right.images[0].get_array())
    confidence = table_of()["confidence"][0]
    weight = 0.25 + 0.75 * confidence
    np.testing.assert_allclose(image[0, 0], 1.0 - weight * (1.0 - np.array(to_rgb(SYSTEM_COLOURS["cubic"]))))
    np.testing.assert_allclose(image[3, 1], to_rgb(UNLABELLED_COLOUR))
    np.testing.assert_allclose(image[3, 0], 1.0)
    assert "5 nm" in texts(figure) or "2 nm" in texts(figure)
    save_figure(figure, tmp_path / "particles.png", dpi=50)


def test_flags_are_told_apart_and_counted():
    dataset = example()
    figure = figure_of_flags(dataset)
    kind = np.asarray(figure.axes[0].images[0].get_array())
    assert kind[0].tolist() == [3, 1, 3, 2, 4, 2]
    assert kind[3, 1:4].tolist() == [0, 0, 0]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        f"{name}: {(kind == number).sum()}"
        for number, name in enumerate(
            ["few spots", "no flag", "outside the training domain", "likely overlapping grains", "both"]
        )
    ]


def test_examples_are_the_surest_and_a_middling_one():
    dataset = example()
    dataset["system_share"][1, 1, 1] = 0.95
    figure = figure_of_examples(scan().peaks, dataset)
    written = texts(figure)
    assert "cubic, 95 %" in written
    assert "cubic, 80 %" in written
    assert "tetragonal, 70 %" in written
    assert f"y 1, x 1: {scan().peaks.counts[7]} spots" in written
    assert [len(axes.collections[0].get_offsets()) for axes in figure.axes[1:2]] == [scan().peaks.counts[7]]


def test_examples_lie_as_on_the_detector(tmp_path):
    # One spot down the rows, where qx grows; one to the right, where qy grows and it is farther.
    q = np.array([[0.0, 0.0], [0.2, 0.0], [0.0, 0.4]])
    figure = figure_of_examples(PeakTable.from_detected([q] * 24, [np.ones(3)] * 24), example())
    axes = figure.axes[0]
    x, y = axes.transData.transform(axes.collections[0].get_offsets()).T
    assert (y[1] < y[0], x[1]) == (True, pytest.approx(x[0]))
    assert (x[2] > x[0], y[2]) == (True, pytest.approx(y[0]))
    assert "Å⁻¹" in texts(axes)
    save_figure(figure, tmp_path / "examples.png", dpi=50)
    inside = axes.get_window_extent()
    words = [text for text in axes.texts if text.get_text()]
    assert not [text.get_text() for text in words if inside.overlaps(text.get_window_extent())]


def test_examples_of_a_map_without_labels(tmp_path):
    dataset = example()
    dataset["crystal_system"][:] = -1
    figure = figure_of_examples(scan().peaks, dataset)
    assert "there is no example" in texts(figure)
    save_figure(figure, tmp_path / "examples.png", dpi=50)


def in_browser(profile, page, *options):
    """Open a page in a window that holds all of it, and return what the browser prints."""
    return subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
         "--window-size=1280,9000", f"--user-data-dir={profile}", *options, page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_renders_every_picture(tmp_path, report):
    page, text = tmp_path / "map.html", (report[0] / "map.html").read_text()
    measure = (
        "document.title = [...document.images].map(i => { const r = i.getBoundingClientRect();"
        " return [i.complete * i.naturalWidth, r.x, r.y, r.width, r.height].map(Math.round) }).join(' ')"
    )
    page.write_text(text.replace("</body>", f"<script>{measure}</script></body>"))
    seen = in_browser(tmp_path / "profile", page, "--dump-dom")
    places = [
        [int(number) for number in place.split(",")]
        for place in re.search("<title>([0-9 ,]+)</title>", seen).group(1).split()
    ]
    assert len(places) == len(PICTURES)
    in_browser(tmp_path / "profile", page, f"--screenshot={tmp_path / 'seen.png'}")
    screen = plt.imread(tmp_path / "seen.png")[..., :3]
    for (width, x, y, shown, height), name in zip(places, PICTURES, strict=True):
        assert width > 300, name
        assert min(shown, height) > 100, name
        picture = screen[y : y + height, x : x + shown]
        # All of it lies in the window, and is neither blank nor of one colour.
        assert picture.shape[:2] == (height, shown), name
        assert len(np.unique((picture * 15).round().reshape(-1, 3), axis=0)) > 8, name
        assert (picture.min(axis=2) < 0.5).mean() > 0.002, name
