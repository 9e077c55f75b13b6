from pathlib import Path

import pandas as pd
import pytest
from matplotlib.colors import to_hex

from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.errors import DiffractoryError
from diffractory.report.catalogue_figures import figure_of_counts
from diffractory.report.style import SYSTEM_COLOURS, new_figure, save_figure

COUNTS = pd.DataFrame(
    {
        "crystal_system": ["monoclinic", "tetragonal", "cubic", "cubic"],
        "space_group": [14, 139, 221, 225],
        "n_crystals": [1200, 7, 1, 30],
    }
)


def test_bars_show_the_counts_in_the_colours_of_the_systems() -> None:
    left, right = figure_of_counts(COUNTS).axes
    assert [bar.get_width() for bar in left.containers[0]] == [0, 1200, 0, 7, 0, 0, 31]
    assert [label.get_text() for label in left.get_yticklabels()] == list(CRYSTAL_SYSTEMS)
    assert [to_hex(bar.get_facecolor()).upper() for bar in left.containers[0]] == list(
        SYSTEM_COLOURS.values()
    )
    tops = {round(bar.get_x() + 0.5): bar.get_y() + bar.get_height() for bar in right.containers[0]}
    assert tops == pytest.approx({14: 1200, 139: 7, 221: 1, 225: 30})
    assert right.get_ylim()[0] < 1 < 1200 < right.get_ylim()[1]
    assert left.get_title(loc="left") == "1,238 crystals by crystal system"
    assert right.get_title(loc="left") == "4 of 230 space groups"


def test_a_single_crystal_can_be_drawn(tmp_path: Path) -> None:
    save_figure(figure_of_counts(COUNTS.iloc[2:3]), tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 5000


def test_every_system_has_its_own_colour() -> None:
    assert tuple(SYSTEM_COLOURS) == CRYSTAL_SYSTEMS
    assert len(set(SYSTEM_COLOURS.values())) == 7


def test_saving_replaces_whole_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.png"
    for dpi in (50, 80):
        save_figure(new_figure(2, 1), path, dpi=dpi)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_saving_refuses_unknown_formats_folders_and_bad_places(tmp_path: Path) -> None:
    figure = new_figure(2, 1)
    with pytest.raises(DiffractoryError, match=r"'\.doc' is no picture format\. Use one of .*png"):
        save_figure(figure, tmp_path / "a.doc")
    with pytest.raises(DiffractoryError, match="'a name without suffix' is no picture format"):
        save_figure(figure, tmp_path / "a")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(DiffractoryError, match="it is a folder"):
        save_figure(figure, tmp_path / "b.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(DiffractoryError, match="cannot write"):
        save_figure(figure, tmp_path / "file" / "c.png")
