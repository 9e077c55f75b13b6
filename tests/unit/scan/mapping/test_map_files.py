import numpy as np
import pandas as pd
import pytest
import xarray as xr

from diffractory.errors import ScanError
from diffractory.scan.mapping.label_map import to_dataset
from diffractory.scan.mapping.map_files import write_map, write_netcdf, write_particles
from diffractory.scan.mapping.particle_table import particle_table
from diffractory.specs import MapSpec
from particle_examples import prediction, scan


def example(step=20.0):
    return to_dataset(scan(step), prediction(), MapSpec(), {"model": "m", "plan_id": "p"})


@pytest.mark.parametrize("step", [20.0, None])
def test_netcdf_and_zarr_hold_the_same(tmp_path, step):
    dataset = example(step)
    write_map(dataset, tmp_path / "map.zarr")
    write_netcdf(dataset, tmp_path / "map.nc")
    classic = xr.load_dataset(tmp_path / "map.nc")
    zarr = xr.open_zarr(tmp_path / "map.zarr").load()
    xr.testing.assert_equal(classic, zarr)
    assert set(classic.attrs) == set(zarr.attrs) >= {"Conventions", "map_spec", "particle_spec", "model"}
    for name in ("crystal_system", "flags", "particle", "n_spots"):
        assert classic[name].dtype == zarr[name].dtype == dataset[name].dtype


def test_attributes_have_the_type_that_cf_asks_for(tmp_path):
    dataset = example()
    write_netcdf(dataset, tmp_path / "map.nc")
    classic = xr.load_dataset(tmp_path / "map.nc")
    masks = classic["flags"].attrs["flag_masks"]
    assert masks.dtype == classic["flags"].dtype == np.int8
    assert masks.tolist() == [1, 2, 4]
    assert classic["crystal_system"].attrs["flag_values"].dtype == np.int8
    assert classic["confidence"].attrs["valid_range"].dtype.itemsize == 4
    assert classic["flags"].attrs["flag_meanings"] == dataset["flags"].attrs["flag_meanings"]
    assert dataset["flags"].attrs["flag_masks"] == [1, 2, 4]  # what was given stays as it was
    assert classic["a"].attrs["units"] == "angstrom"


def test_csv_and_parquet_hold_the_same(tmp_path):
    table = particle_table(scan(), prediction())
    write_particles(table, tmp_path)
    parquet = pd.read_parquet(tmp_path / "particles.parquet")
    pd.testing.assert_frame_equal(parquet, table)
    csv = pd.read_csv(tmp_path / "particles.csv", dtype={"crystal_system": "string"})
    assert list(csv.columns) == list(table.columns)
    for name in ("a", "confidence", "area_nm2", "centroid_y"):
        np.testing.assert_allclose(csv[name], table[name])
    assert csv["crystal_system"].fillna("").tolist() == ["cubic", "tetragonal", ""]
    write_particles(table.iloc[:0], tmp_path)
    assert (
        len(pd.read_csv(tmp_path / "particles.csv"))
        == len(pd.read_parquet(tmp_path / "particles.parquet"))
        == 0
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["particles.csv", "particles.parquet"]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ScanError, match=r"cannot write .*map\.nc.*Choose a folder"):
        write_netcdf(example(), tmp_path / "file" / "map.nc")
    with pytest.raises(ScanError, match=r"cannot write .*particles\.csv"):
        write_particles(particle_table(scan(), prediction()), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
