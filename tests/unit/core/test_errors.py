import inspect
import pickle

import pytest

from diffractory import errors
from diffractory.errors import DefectError, DiffractoryError, ExecutionError, SpecError

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, DiffractoryError) and kind is not DiffractoryError
]


def test_a_message_says_what_why_and_what_to_do() -> None:
    error = DiffractoryError("the cup is empty", "somebody drank it.", " Fill it ")
    assert str(error) == "the cup is empty. somebody drank it. Fill it."


def test_parts_that_are_not_given_leave_no_gaps() -> None:
    assert str(DiffractoryError("no cup")) == "no cup."
    assert str(DiffractoryError("no cup", fix="Bring one")) == "no cup. Bring one."


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_comes_back_whole_from_another_process(kind: type[DiffractoryError]) -> None:
    error = kind("what [/b]", "why", "fix")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.what, again.why, again.fix) == ("what [/b]", "why", "fix")
    assert str(again) == str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_exit_codes(kind: type[DiffractoryError]) -> None:
    assert kind.exit_code == {ExecutionError: 1, DefectError: 70}.get(kind, 2)


def test_wrong_values_are_value_errors_too() -> None:
    with pytest.raises(ValueError, match="too hot"):
        raise SpecError("too hot")
