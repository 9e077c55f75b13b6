"""Maps as tools read them that know nothing of this package."""

import json
import subprocess
import sys

from diffractory.scan.mapping.label_map import to_dataset
from diffractory.scan.mapping.map_files import write_map, write_netcdf
from diffractory.specs import MapSpec
from particle_examples import prediction, scan

READ = """
import json, sys, warnings
warnings.simplefilter("error")
import xarray as xr
seen = {}
for name, opened in (("zarr", xr.open_zarr("map.zarr")), ("nc", xr.open_dataset("map.nc"))):
    values = opened.load()
    system, flags = opened["crystal_system"], opened["flags"]
    names = dict(zip([int(v) for v in system.flag_values], system.flag_meanings.split(), strict=True))
    seen[name] = {
        "systems": [[names[int(code)] for code in row] for row in values["crystal_system"].values],
        "flags": {
            meaning: int(((values["flags"].values & mask) > 0).sum())
            for mask, meaning in zip(flags.flag_masks, flags.flag_meanings.split(), strict=True)
        },
        "classes": [str(text) for text in opened["crystal_system_class"].values],
        "share": float(values["system_share"].sel(crystal_system_class="cubic").max()),
        "units": {key: variable.attrs.get("units") for key, variable in opened.variables.items()},
        "unnamed": [key for key, variable in opened.variables.items() if "long_name" not in variable.attrs],
        "step": [float(values[key].diff(key).mean()) for key in system.dims],
        "a": float(values["a"].mean()), "particles": int(values["particle"].max()),
        "spec": json.loads(opened.attrs["map_spec"])["min_spots"],
    }
assert not any(module.startswith("diffractory") for module in sys.modules)
print(json.dumps(seen))
"""


def test_plain_xarray_reads_everything(tmp_path):
    labelled = to_dataset(scan(), prediction(), MapSpec())
    write_map(labelled, tmp_path / "map.zarr")
    write_netcdf(labelled, tmp_path / "map.nc")
    ran = subprocess.run(
        [sys.executable, "-c", READ], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    seen = json.loads(ran.stdout)
    assert seen["zarr"] == seen["nc"]
    read = seen["zarr"]
    assert read["systems"][0] == [*["cubic"] * 3, *["tetragonal"] * 3]
    assert "unlabelled" in {name for row in read["systems"] for name in row}
    assert read["flags"]["outside_training"] == 6
    assert read["flags"]["few_spots"] == 3
    assert read["classes"] == ["tetragonal", "cubic"]
    assert read["share"] > 0.5
    assert read["step"] == [20.0, 20.0]
    assert {read["units"][key] for key in ("scan_y", "scan_x", "a", "b", "c")} == {"angstrom"}
    assert {read["units"][key] for key in ("confidence", "system_share", "particle", "n_spots")} == {"1"}
    assert read["unnamed"] == []
    assert abs(read["a"] - float(labelled["a"].mean())) < 1e-6
    assert (read["particles"], read["spec"]) == (3, 5)
