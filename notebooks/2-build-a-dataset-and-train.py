# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2. Build a dataset and train
#
# You have many crystals and want a model that tells the crystal system, space group and lattice of a pattern.
# The road is always the same: a **catalogue** of crystals, a **plan**, **partitions** that are simulated and
# checked, **features**, a **model**, and an **evaluation** on materials that the model has never seen.
#
# Here it is walked with a few dozen crystals, in half a minute. Nothing about the road changes with a
# thousand times as many ([notebook 4](4-scale-out-on-slurm.ipynb)); the numbers at its end do, and we say
# what these are worth.

# %%
import tempfile
from pathlib import Path

import numpy as np

import diffractory
from diffractory.crystals.build import CatalogueFilter, build_catalogue
from diffractory.crystals.sources.aflow import aflow_candidates
from diffractory.report.catalogue_figures import figure_of_counts

folder = Path(tempfile.mkdtemp(prefix="diffractory-"))  # put a folder of your own here, to keep what is made

# %% [markdown]
# ## A catalogue
#
# pymatgen brings along the prototypes of the AFLOW library, so this needs no network. From a folder of CIF
# files it is `cif_candidates(Path("my-cifs"))`. Whatever does not enter the catalogue is listed with the
# reason.

# %%
only = frozenset({"cubic", "hexagonal", "tetragonal"})
built = build_catalogue(aflow_candidates(), CatalogueFilter(max_volume=120.0, systems=only, limit=40))
catalogue = built.catalogue
print(len(catalogue), "crystals;", dict(built.counts_by_reason()))
figure_of_counts(catalogue.counts())

# %% [markdown]
# ## Plan, simulate, verify
#
# The plan decides everything beforehand: which orientations, which thicknesses, and in which partitions the
# work is cut. It counts beams without solving anything, so it knows what the run will cost.
#
# *On the command line: `diffractory plan`, `diffractory simulate`, `diffractory verify`.*

# %%
from diffractory.dataset.partition import simulate_partition
from diffractory.dataset.plan import make_plan
from diffractory.dataset.run import Run
from diffractory.dataset.verify import verify_partition
from diffractory.units import human_bytes

plan = make_plan(
    catalogue,
    diffractory.SimulationSpec(thicknesses=(100.0, 200.0, 300.0)),
    diffractory.OrientationSpec(count=10),
    partition_seconds=0.2,
)
print(f"{plan.n_items * 3:,} patterns in {len(plan.partitions)} partitions")
print(f"about {plan.seconds:.1f} s of one core, {human_bytes(plan.likely_disk_bytes)}")

# %% [markdown]
# A partition is simulated by one call, here or anywhere, in any order. It ends with a checksummed record on
# disk; a partition without a valid one is not done. Run the next cell again, and nothing is computed twice.

# %%
run = Run.create(folder / "run", plan, catalogue)
for partition in range(len(plan.partitions)):
    if partition not in run.done():
        simulate_partition(run.path, partition)

# %%
findings = [verify_partition(run.path, partition, sample=0.05) for partition in range(len(plan.partitions))]
again = sum(finding.n_solved_again for finding in findings)
worst = max(finding.largest_difference for finding in findings)
print("problems:", [finding.problems for finding in findings if finding.problems] or "none")
print(f"{again} orientations solved again by another solver; largest difference beyond rounding: {worst:.0e}")

# %% [markdown]
# ## Read it
#
# All partitions are one lazy xarray dataset. `select` chooses by label, and only what is used is read.

# %%
dataset = diffractory.open_dataset(run.path)
print(dataset)

# %%
from diffractory.dataset.reader import read_pattern
from diffractory.report.pattern_figures import figure_of_patterns

table = catalogue.table
first = [int(np.flatnonzero(table["crystal_system"] == name)[0]) for name in sorted(only)]
shown = [read_pattern(run, crystal, 0) for crystal in first]
figure_of_patterns(
    [q for q, _ in shown],
    [intensity[:, 1].astype(float) for _, intensity in shown],
    [f"{table['formula'][crystal]}, {table['crystal_system'][crystal]}, 200 Å" for crystal in first],
)

# %% [markdown]
# ## Features and training
#
# The *robust* preset reads a lattice from the spots of every single pattern and adds features that do not
# change when a pattern is turned. It learns from patterns as simulated and from patterns with the noise of a
# laboratory. A quarter of the **materials** is kept from it: patterns of one material are too much alike to
# be split between training and test.
#
# *On the command line: `diffractory features`, `diffractory train`.*

# %%
from diffractory.dataset.features import features_partition, plan_features
from diffractory.learning.artefact import save_model
from diffractory.learning.training import requested_features, train_on_run
from diffractory.specs import BoostingSpec

spec = BoostingSpec(system_rounds=40, group_rounds=10, lattice_rounds=20, system_leaves=15)
for wanted in requested_features(run, spec):
    planned = plan_features(run, wanted.features, (wanted.thickness,), lab=wanted.lab, seed=wanted.seed)
    for partition in range(len(plan.partitions)):
        features_partition(run.path, planned, partition)

model, provenance = train_on_run(run, spec, n_jobs=1)
save_model(model, folder / "model", provenance)
materials = provenance["training_materials"]
print(f"trained on {provenance['training_patterns']:,} patterns of {len(materials)} materials")

# %% [markdown]
# ## Evaluation
#
# On the materials held out, under two protocols: *paper* (as simulated, one thickness) and *lab* (turned at
# random, spots lost, noise, distortion, any thickness).
#
# *On the command line: `diffractory evaluate`, which writes an HTML page.*

# %%
from diffractory.learning.evaluation import evaluate
from diffractory.learning.protocol_features import Protocol, ProtocolFeatures, protocol_features, targets_of
from diffractory.report.evaluation_figures import figure_of_evaluation
from diffractory.specs import LabProtocolSpec

unseen = np.flatnonzero(~np.isin(catalogue.ids, materials))
features = requested_features(run, spec)[0].features
results = {}
for name, lab in {"paper": None, "lab": LabProtocolSpec()}.items():
    protocol = Protocol(features, spec.thickness, lab)
    parts = [protocol_features(run.path, unseen, protocol, p) for p in range(len(plan.partitions))]
    test = ProtocolFeatures.concatenate(parts)
    crystals = test.items // plan.orientations.count
    results[name] = evaluate(model, test.features, targets_of(catalogue, crystals), crystals)

for name, result in results.items():
    one = result["single"]["system"]
    low, high = (100 * bound for bound in one["interval"])
    print(
        f"{name} protocol, one pattern: {100 * one['accuracy']:.0f} % of crystal systems right "
        f"[95 %: {low:.0f}–{high:.0f}], always the most frequent one: {100 * one['baseline']:.0f} %"
    )
figure_of_evaluation(results)

# %% [markdown]
# ## What these numbers are worth
#
# Not much, and the interval says so: it is over **materials**, and there are eleven. One crystal more or less
# on the right side moves the accuracy of ten patterns by nine points. The catalogue was made easy, too: three
# crystal systems, small cells, simple prototypes. Do not choose a method by numbers like these, and do not
# use this model.
#
# A model worth using needs thousands of materials. The one that comes with the package was trained on 12,683
# and tested on 4,230 others; its numbers, and what may be concluded from them, are in the README (*Measured:
# learning*).
#
# **Next:** [notebook 3](3-map-a-scan.ipynb) maps a scan with that model.
