import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.symmetry.groups import SpaceGroup

from diffractory.crystals.systems import CRYSTAL_SYSTEMS, system_code, system_of_space_group


@pytest.mark.parametrize("number", range(1, 231))
def test_system_agrees_with_pymatgen(number: int) -> None:
    assert system_of_space_group(number) == SpaceGroup.from_int_number(number).crystal_system


@given(st.integers().filter(lambda n: not 1 <= n <= 230))
def test_numbers_outside_the_tables_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=r"1 … 230"):
        system_of_space_group(number)


def test_codes_follow_the_order_of_the_tuple() -> None:
    assert [system_code(name) for name in CRYSTAL_SYSTEMS] == list(range(7))
    with pytest.raises(ValueError, match="not in tuple"):
        system_code("rhombohedral")
