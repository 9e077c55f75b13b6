"""Which crystals are built alike, so that one in training gives another in a test away."""

from __future__ import annotations

import pandas as pd
from pymatgen.core import Composition


def structure_families(table: pd.DataFrame) -> list[str]:
    """Return the name of each crystal's family of isostructural crystals.

    Same space group, same stoichiometry whatever the elements (ABC3 …), same number of atoms in the
    primitive cell. That is coarser than a prototype: what shares one shares the other.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows of a catalogue.
    """
    anonymous = {formula: Composition(formula).anonymized_formula for formula in table["formula"].unique()}
    primitive = (table["n_sites"] * table["volume_primitive"] / table["volume"]).round().astype(int)
    columns = zip(table["space_group"], table["formula"], primitive, strict=True)
    return [f"{number}/{anonymous[formula]}/{sites}" for number, formula, sites in columns]
