import pytest

from diffractory.errors import SpecError
from diffractory.specs import MapSpec
from diffractory.specs.scan import read_cubic_phases


@pytest.mark.parametrize(
    ("text", "lattices"),
    [
        ("4.2:F", [(4.2, "F")]),
        (" 4.2:i", [(4.2, "I")]),
        ("4: P, 5.431:D", [(4.0, "P"), (5.431, "F")]),
    ],
)
def test_cubic_phases_are_read(text, lattices):
    assert read_cubic_phases(text) == lattices
    assert MapSpec(phase=text).phase == text


def test_what_to_write_for_a_phase_is_said():
    with pytest.raises(SpecError, match=r"auto, none, or the lattices of cubic phases.*4\.078:F"):
        MapSpec(phase="nonsense")
    with pytest.raises(SpecError, match=r"write 4\.2:F for face-centred, or :P"):
        MapSpec(phase="4.2")
