"""What is released: wheel and sdist hold what they should, and the wheel works where it is installed."""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import diffractory

ROOT = Path(__file__).parents[2]
#: Bytes; nearly all of it is the included model.
LARGEST_WHEEL = 6_000_000
LARGEST_SDIST = 8_000_000

#: From a crystal to a map with the included model: every room but the command line and the writing of runs.
CHAIN = """
import json, sys
import numpy as np
import diffractory
from diffractory.learning.saved_model import SavedModel, packaged_model
from diffractory.patterns.peak_table import PeakTable
from diffractory.report.map_figures import figure_of_systems
from diffractory.report.style import save_figure
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.mapping.label_map import summarise, to_dataset
from diffractory.scan.mapping.prediction import predict_scan
from diffractory.specs import MapSpec

copper = diffractory.Crystal(
    3.61 * np.eye(3), [29] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
)
turn = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
pattern, = diffractory.simulate(copper, turn[None], diffractory.SimulationSpec(q_max=1.0))
one = PeakTable.from_lists([pattern.q], [pattern.intensity[0]], [0])
scan = BraggScan(one.take([0] * 4), (2, 2), 10.0, 300e3, "four times the same")
model, spec = SavedModel(packaged_model()), MapSpec()
labelled = to_dataset(scan, predict_scan(model, scan, spec, model.features), spec)
save_figure(figure_of_systems(labelled), sys.argv[1])
print(json.dumps({
    "file": diffractory.__file__, "model": str(packaged_model()), "positions": summarise(labelled)["labelled"]
}))
"""


def run(*words: object, folder: Path) -> str:
    """Run a command in a folder outside the repository, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    # Kernels of files just installed would be compiled for minutes; these patterns are few.
    environment["NUMBA_DISABLE_JIT"] = "1"
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=300, check=False, cwd=folder,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and the sdist that it was built from."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    (path,) = built.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment: the wheel, and the dependencies of this environment beside it."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    # pip of this environment installs into the new one, so that none has to be unpacked there.
    target = ("--python", folder / "bin" / "python")
    run(
        sys.executable,
        "-m",
        "pip",
        *target,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
        folder=folder,
    )
    # Appended to the path, and only folders: links to a checkout are not followed, the wheel goes first.
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "dependencies.pth").write_text("\n".join(others) + "\n")
    return folder / "bin"


def wheel_names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = wheel_names(wheel)
    here = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == here
    assert {name.split("/")[0] for name in names} == {
        "diffractory", f"diffractory-{diffractory.__version__}.dist-info"
    }  # fmt: skip
    for needed in (
        "py.typed",
        *(f"learning/models/robust/{n}" for n in ("model.json", "trees.npz", "card.md")),
    ):
        assert f"diffractory/{needed}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert wheel.stat().st_size <= LARGEST_WHEEL


def test_what_the_wheel_says_of_itself(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith("METADATA")]
        stated = email.message_from_bytes(archive.read(name))
    assert stated["Version"] == diffractory.__version__
    assert stated["License-Expression"] == "GPL-3.0-or-later"
    assert stated["Requires-Python"] == ">=3.11"
    assert re.match(r"# Diffractory", stated.get_payload().lstrip())


def test_the_sdist_builds_tests_and_explains_the_package(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        *("LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "requirements.lock"),
        *("pyproject.toml", "src/diffractory/learning/models/robust/trees.npz", "tests/conftest.py"),
        *("notebooks/1-look-at-a-crystal.ipynb", "cluster/testbed/up.sh", "docs/accuracy.md"),
    ):
        assert needed in names, needed
    assert not [name for name in names if ".venv" in name or "__pycache__" in name]
    assert sdist.stat().st_size <= LARGEST_SDIST


def test_the_installed_command_tells_its_version(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "diffractory", "--version", folder=tmp_path).split() == [
        "diffractory", diffractory.__version__
    ]  # fmt: skip


def test_the_installed_wheel_goes_from_a_crystal_to_a_map(installed: Path, tmp_path: Path) -> None:
    picture = tmp_path / "map.png"
    answer = json.loads(run(installed / "python", "-W", "ignore", "-c", CHAIN, picture, folder=tmp_path))
    environment = installed.parent.resolve()
    assert Path(answer["file"]).resolve().is_relative_to(environment)
    assert Path(answer["model"]).resolve().is_relative_to(environment)
    assert answer["positions"] == 4
    assert picture.stat().st_size > 5_000
