# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. Map a scan
#
# You have a 4D-STEM scan and want to know which crystal is where. The input is a file of Bragg peaks, as
# py4DSTEM writes them. From raw frames you get one with `diffractory detect raw.blo --out scan.h5`.
#
# **To map your own scan**, put its path in the next cell, or start Jupyter with `DIFFRACTORY_SCAN=scan.h5`.
# Without one, the notebook makes a scan whose truth is known.

# %%
import os
import tempfile
from pathlib import Path

scan_file = os.environ.get("DIFFRACTORY_SCAN")  # or "my-scan.h5"
folder = Path(tempfile.mkdtemp(prefix="diffractory-"))  # where maps and pictures go

# %%
import numpy as np
from pymatgen.core import Lattice, Structure

import diffractory
from diffractory.crystals.symmetry import laue_operations
from diffractory.crystals.systems import system_code, system_of_space_group
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.synthetic.scans import GrainLabels, score_map, synthetic_scan
from diffractory.specs import LabProtocolSpec

# %% [markdown]
# ## A scan with known truth
#
# A polycrystal of five oxides of five crystal systems. Every grain shows one of them along a zone axis of its
# own; position noise, counting noise, lost spots and distortion are those of the lab protocol.

# %%
oxides = {
    "SrTiO3": ("Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]),
    "TiO2": ("P4_2/mnm", Lattice.tetragonal(4.594, 2.959), ["Ti", "O"], [[0, 0, 0], [0.3053, 0.3053, 0]]),
    "ZnO": (
        "P6_3mc",
        Lattice.hexagonal(3.25, 5.207),
        ["Zn", "O"],
        [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.382]],
    ),
    "Al2O3": ("R-3c", Lattice.hexagonal(4.759, 12.993), ["Al", "O"], [[0, 0, 0.3522], [0.3064, 0, 0.25]]),
    "ZrO2": (
        "P2_1/c",
        Lattice.monoclinic(5.151, 5.212, 5.317, 99.23),
        ["Zr", "O", "O"],
        [[0.2754, 0.0395, 0.2083], [0.07, 0.3317, 0.3447], [0.4496, 0.7569, 0.4792]],
    ),
}


def synthetic():
    """Return a scan of the oxides and its truth."""
    each, tables, labels = diffractory.OrientationSpec(count=30), [], []
    for name, description in oxides.items():
        structure = Structure.from_spacegroup(*description)
        axes = diffractory.sample_orientations(laue_operations(structure), each)
        patterns = diffractory.simulate(diffractory.Crystal.from_structure(structure), axes)
        direct = [0] * each.count  # the direct beam comes first
        tables.append(
            PeakTable.from_lists([p.q for p in patterns], [p.intensity[0] for p in patterns], direct)
        )
        number = structure.get_space_group_info()[1]
        system = system_code(system_of_space_group(number))
        labels += [(system, number, structure.lattice.abc, name)] * each.count
    systems, numbers, lattices, names = zip(*labels, strict=True)
    truth = GrainLabels(
        np.array(systems, np.int8), np.array(numbers, np.int16), np.array(lattices), np.array(names)
    )
    return synthetic_scan(
        PeakTable.concatenate(tables), truth, (40, 56), 24, seed=3, noise=LabProtocolSpec(), energy_ev=300e3
    )


truth = None
if scan_file is None:
    scan, truth = synthetic()
    scan_file = folder / "scan.h5"
    scan.to_emd(scan_file)

# %% [markdown]
# ## Read and look
#
# From here on everything is the same for a scan of your own. Calibrations that the file holds are applied; if
# there is none, reading refuses, and says which option helps.

# %%
from diffractory.report.scan_figures import figure_of_peaks
from diffractory.scan.reading.emd_reader import read_bragg_scan

scan = read_bragg_scan(Path(scan_file))  # of a file without calibration: pixel_size=…, center=…
energy = "unknown" if scan.energy_ev is None else f"{scan.energy_ev / 1e3:g} keV"
print(f"{scan.shape[0]} × {scan.shape[1]} positions, {len(scan.peaks.intensity):,} peaks, energy {energy}")
figure_of_peaks(scan)

# %% [markdown]
# ## Predict
#
# The included model was trained on 12,683 materials of the Materials Project at 300 keV. At another energy
# lattices are read with its Ewald sphere, and intensities are not what the model learned: the page *Measured*
# says what was tried, and [notebook 2](2-build-a-dataset-and-train.ipynb) trains a model.
#
# Every position is predicted by itself. Then neighbouring positions whose patterns are alike make a grain,
# and a grain is predicted from all of its positions together. Overlapping grains are looked for: spots that
# one lattice leaves unexplained and a second one explains.
#
# *On the command line: `diffractory map scan.h5 --out maps/scan --regions grains`.*

# %%
from diffractory.learning.saved_model import SavedModel, packaged_model
from diffractory.scan.mapping.label_map import summarise, to_dataset
from diffractory.scan.mapping.particle_table import particle_table
from diffractory.scan.mapping.prediction import predict_scan
from diffractory.specs import MapSpec, ParticleSpec

model, spec = SavedModel(packaged_model()), MapSpec()
print(f"trained at {model.provenance['simulation']['energy_ev'] / 1e3:g} keV; the scan's energy: {energy}")
prediction = predict_scan(
    model, scan, spec, model.features, particles=ParticleSpec(regions="grains"), find_overlap=True
)
labelled = to_dataset(scan, prediction, spec, {"model": str(model.path)})
grains = particle_table(scan, prediction)

# %%
from diffractory.report.map_figures import figure_of_lattice, figure_of_systems

figure_of_systems(labelled)

# %%
figure_of_lattice(labelled, "a")

# %% [markdown]
# ## Is it right?
#
# Only a synthetic scan can tell.

# %%
from diffractory.report.map_figures import figure_of_truth

if truth is not None:
    score = score_map(labelled, truth)
    print(f"{100 * score['accuracy']:.0f} % of the labelled positions on crystal are right")
    for name, counts in score["systems"].items():
        if counts["positions"]:
            print(f"  {name}: {counts['right']} of {counts['positions']}")
    shown = figure_of_truth(labelled, truth, score["accuracy"])
else:
    shown = "The truth of this scan is not known."
shown

# %% [markdown]
# What is wrong is wrong for whole grains: all positions of a grain show one orientation, and where that shows
# one lattice plane only, no number of positions tells the third direction.
#
# Do not read more from the number than it says: the model was trained on four of these five oxides (not on
# rutile, TiO2), and no two crystals lie above each other here. What to expect of materials that it has never
# seen is on the page *Measured* of the documentation; what happened on a real particle is there, too.
#
# ## Grains
#
# A grain is predicted from all of its positions, and their table says how sure each answer is. It remains a
# single orientation of the crystal, however many positions there are.

# %%
from diffractory.report.particle_figures import figure_of_particles

figure_of_particles(labelled, grains)

# %%
if truth is not None:
    right = 0
    for number, system in zip(grains["particle"], grains["crystal_system"], strict=True):
        true = truth["crystal_system"].to_numpy()[labelled["particle"].to_numpy() == number]
        right += isinstance(system, str) and np.bincount(true[true >= 0]).argmax() == system_code(system)
    print(f"{right} of {len(grains)} grains right")
columns = ["particle", "n_positions", "area_nm2", "crystal_system", "confidence_by_evidence", "space_group"]
grains.nlargest(8, "n_positions")[[*columns, "a", "b", "c", "flags"]].round(2)

# %% [markdown]
# ## What not to believe
#
# A position is flagged if it has few spots, if its pattern is unlike everything the model was trained on, or
# if two grains seem to lie above each other. A flag is a reason to look, not a verdict; no flag is no
# promise.

# %%
from diffractory.report.particle_figures import figure_of_flags

print(summarise(labelled)["flags"])
figure_of_flags(labelled)

# %% [markdown]
# ## Keep it
#
# The map as Zarr and NetCDF, the grains as CSV and Parquet, and one HTML page with all pictures that opens
# offline.

# %%
from diffractory.report.map_report import write_map_report
from diffractory.scan.mapping.map_files import write_map, write_netcdf, write_particles

write_map(labelled, folder / "map.zarr")
write_netcdf(labelled, folder / "map.nc")
write_particles(grains, folder)
write_map_report(folder, labelled, scan.peaks, model.domain_sample, grains)
sorted(path.name for path in folder.iterdir() if path.suffix != ".svg")

# %% [markdown]
# **Next:** [notebook 4](4-scale-out-on-slurm.ipynb) makes the data of such a model on a supercomputer.
