from __future__ import annotations

import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from diffractory.crystals.build import CatalogueFilter, build_catalogue
from diffractory.crystals.prototypes import structure_families
from diffractory.crystals.sources import Candidate
from zoo import ZOO, face_centred

SALT, CAESIUM_SALT = ["Na", "Cl"], ["Cs", "Cl"]
HALVES = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
STRUCTURES = {
    "NaCl": face_centred(5.64, SALT, HALVES),
    "MgO": face_centred(4.21, ["Mg", "O"], HALVES),
    "CsCl": Structure.from_spacegroup("Pm-3m", Lattice.cubic(4.12), CAESIUM_SALT, HALVES),
    "CaF2": face_centred(5.46, ["Ca", "F", "F"], [[0.0, 0.0, 0.0], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]]),
    "copper": ZOO["cubic-F-c-copper"],
    "GaAs": ZOO["cubic-F-a-GaAs"],
    "corundum": ZOO["trigonal-skew-primitive-c-corundum"],
}


def families(structures: dict[str, Structure], **settings: bool) -> dict[str, str]:
    candidates = [Candidate(name, structure, None, "test", "CC0") for name, structure in structures.items()]
    catalogue = build_catalogue(candidates, CatalogueFilter(**settings)).catalogue
    return dict(zip(catalogue.ids, structure_families(catalogue.table), strict=True))


def test_rock_salts_are_alike_and_nothing_else_is():
    found = families(STRUCTURES, keep_setting=True)
    assert found["NaCl"] == found["MgO"] == "225/AB/2"
    assert len(set(found.values())) == len(found) - 1
    assert found["CsCl"] == "221/AB/2"
    assert found["CaF2"] == "225/AB2/3"
    assert found["copper"] == "225/A/1"


@pytest.mark.parametrize("keep_setting", [True, False])
def test_the_cell_that_a_crystal_is_given_in_makes_no_difference(keep_setting: bool):
    primitive = {name: structure.get_primitive_structure() for name, structure in STRUCTURES.items()}
    assert families(primitive, keep_setting=keep_setting) == families(STRUCTURES, keep_setting=True)


def test_families_follow_the_rows():
    table = pd.DataFrame(
        {
            "space_group": [225, 225, 194],
            "formula": ["MgO", "Na4Cl4", "Mg"],
            "n_sites": [8, 2, 2],
            "volume_primitive": [10.0, 44.9, 46.0],
            "volume": [40.0, 44.9, 46.0],
        }
    )
    assert structure_families(table) == ["225/AB/2", "225/AB/2", "194/A/2"]
    assert structure_families(table.iloc[[2, 0]]) == ["194/A/2", "225/AB/2"]
    assert structure_families(table.iloc[:0]) == []
