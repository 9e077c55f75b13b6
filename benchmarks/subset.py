"""Draws a part of a catalogue whose split into training and test is that of the included model.

A fourth of each crystal system is of materials the model never saw, and it is checked that a run of the part
holds out exactly these; or materials that it never saw alone; or those that it was only calibrated on, where
choices may be made; or all cubic ones of either kind::

    python benchmarks/subset.py crystals.parquet part.parquet --materials 800 --seed 28
    python benchmarks/subset.py crystals.parquet unseen.parquet --unseen --materials 1000
    python benchmarks/subset.py crystals.parquet calibrating.parquet --calibrating
    python benchmarks/subset.py crystals.parquet cubic.parquet --cubic
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from cubic_constant import calibrates

from diffractory.learning.artefact import load_model
from diffractory.learning.saved_model import packaged_model
from diffractory.learning.split import split_materials


def drawn(table: pd.DataFrame, trained_on: np.ndarray, materials: int, seed: int) -> np.ndarray:
    """Return rows of about so many materials, three trained on for each that was not, in every system."""
    generator, chosen = np.random.default_rng(seed), []
    systems = table["crystal_system"].to_numpy()
    for system in sorted(set(systems)):
        here = systems == system
        unseen = round(here.sum() * materials / len(table) / 4)
        chosen.append(generator.choice(np.flatnonzero(here & ~trained_on), unseen, replace=False))
        chosen.append(generator.choice(np.flatnonzero(here & trained_on), 3 * unseen, replace=False))
    return np.sort(np.concatenate(chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("part", type=Path)
    parser.add_argument("--materials", type=int, default=800)
    parser.add_argument("--seed", type=int, default=28)
    parser.add_argument("--unseen", action="store_true")
    parser.add_argument("--calibrating", action="store_true")
    parser.add_argument("--cubic", action="store_true")
    arguments = parser.parse_args()
    whole = pq.read_table(arguments.catalogue)
    table = whole.select(["material_id", "crystal_system"]).to_pandas()
    provenance = load_model(packaged_model())[1]
    training = provenance["training"]
    trained_on = table["material_id"].isin(provenance["training_materials"]).to_numpy()
    calibrating = np.array([calibrates(name, training) for name in table["material_id"]])
    if arguments.cubic:
        chosen = np.flatnonzero((table["crystal_system"] == "cubic") & (~trained_on | calibrating))
    elif arguments.calibrating:
        chosen = np.flatnonzero(trained_on & calibrating)
    elif arguments.unseen:
        unseen = np.flatnonzero(~trained_on)
        chosen = np.sort(
            np.random.default_rng(arguments.seed).choice(unseen, arguments.materials, replace=False)
        )
    else:
        chosen = drawn(table, trained_on, arguments.materials, arguments.seed)
        part = table.iloc[chosen]
        held_out = split_materials(
            part["material_id"].tolist(), part["crystal_system"], training["test_fraction"], training["seed"]
        )
        if not np.array_equal(held_out, ~trained_on[chosen]):
            raise SystemExit("the part would hold out other materials than the model: draw another one")
    pq.write_table(whole.take(chosen), arguments.part)
    print(f"{len(chosen)} materials, {int((~trained_on[chosen]).sum())} of them unseen by the included model")


if __name__ == "__main__":
    main()
