import subprocess
import sys
from importlib.metadata import version

import pytest

import diffractory

HEAVY = {
    *("dask", "distributed", "sklearn", "pymatgen", "matplotlib", "numpy", "scipy", "numba", "pandas"),
    *("xarray", "zarr", "py4DSTEM", "pydantic", "typer", "rich", "joblib"),
}

#: Ends with an error where one of the modules named on the command line is imported.
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked")
BLOCKED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Blocker())
"""


def _python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy() -> None:
    loaded = _python("import sys, diffractory; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert "diffractory" in loaded
    assert not set(loaded) & HEAVY


def test_the_command_loads_no_room_before_it_is_told_what_to_do() -> None:
    loaded = _python("import sys, diffractory.cli.app; print(*sys.modules)").split()
    roots = {name.split(".")[0] for name in loaded}
    assert not roots & {"dask", "distributed", "sklearn", "pymatgen", "matplotlib", "numpy", "zarr", "xarray"}


def test_physics_needs_no_library_of_other_rooms() -> None:
    blocked = "py4DSTEM,dask,distributed,xarray,zarr,sklearn,pymatgen,pandas,matplotlib,typer,rich"
    code = BLOCKER + (
        "import numpy as np, diffractory as d\n"
        "salt = d.Crystal(4.1 * np.eye(3), [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]])\n"
        "(pattern,) = d.simulate(salt, np.eye(3)[None])\n"
        "print(len(pattern) > 10, 'torch' in sys.modules)"
    )
    assert _python(code, blocked).split() == ["True", "False"]


@pytest.mark.parametrize("name", diffractory.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(diffractory, name)
    if name != "__version__":
        assert value.__name__ == name
        assert value.__doc__


def test_public_names_are_what_dir_shows() -> None:
    assert dir(diffractory) == sorted(diffractory.__all__)
    namespace: dict[str, object] = {}
    exec("from diffractory import *", namespace)
    assert set(diffractory.__all__) <= set(namespace)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'simulatte'"):
        _ = diffractory.simulatte


def test_the_version_is_that_of_the_installed_package() -> None:
    assert diffractory.__version__ == version("diffractory")


def test_the_map_command_loads_nothing_that_only_training_or_clusters_need() -> None:
    code = (
        "import sys; from diffractory.cli import mapping; from diffractory.learning.saved_model import *\n"
        "SavedModel(packaged_model()).systems_; print(*{name.split('.')[0] for name in sys.modules})"
    )
    loaded = set(_python(code).split())
    assert "xarray" in loaded
    assert not loaded & {"lightgbm", "sklearn", "dask", "distributed", "py4DSTEM", "pymatgen"}


def test_workers_that_find_disks_do_not_import_py4dstem() -> None:
    loaded = _python(
        "import sys, diffractory.scan.detection.setup, diffractory.scan.detection.detect; print(*sys.modules)"
    )
    roots = {name.split(".")[0] for name in loaded.split()}
    assert "scipy" in roots
    assert not roots & {"py4DSTEM", "sklearn", "matplotlib", "torch"}
