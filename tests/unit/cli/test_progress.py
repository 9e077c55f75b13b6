from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffractory.cli.progress import RESUMES, map_ordered, run_all
from diffractory.errors import ExecutionError, RunError
from diffractory.execution.engine import InlineEngine, Outcome


class Backwards:
    """An engine that finishes the last item first."""

    description = "backwards"
    workers = 1

    def run(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Outcome[Any, Any]]:
        yield from reversed(list(InlineEngine().run(function, items)))

    def joblib(self) -> Any:
        return nullcontext()


def _double(number: int) -> int:
    return 2 * number


def _fail_on_odd(number: int) -> int:
    if number % 2:
        raise RunError(f"[red]{number} is odd", "odd is bad", "Use even")
    return number


@given(st.lists(st.integers()))
def test_the_order_is_kept_whatever_finishes_first(numbers: list[int]) -> None:
    assert map_ordered(Backwards(), "doubling")(_double, iter(numbers)) == [2 * n for n in numbers]


def test_all_results_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all(Backwards(), _double, [1, 2, 3], "doubling", [0.0, 5.0, 1.0]) == [2, 4, 6]
    said = capsys.readouterr()
    assert said.out == ""
    assert "doubling" in said.err
    assert "100%" in said.err
    assert "3/3 parts" in said.err


def test_nothing_to_do_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all(InlineEngine(), _double, [], "doubling") == []


def test_results_that_are_none_are_left_out_but_zero_is_not() -> None:
    assert run_all(InlineEngine(), _double, [0, 1], "doubling") == [0, 2]


def test_failures_are_named_and_counted_after_the_rest_is_finished(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return _fail_on_odd(number)

    with pytest.raises(ExecutionError) as caught:
        run_all(InlineEngine(), work, list(range(14)), "testing", again=RESUMES)
    assert done == list(range(14))
    assert "testing: 7 of 14 parts failed, the others are finished" in caught.value.what
    assert caught.value.why.startswith("part 1: [red]1 is odd. odd is bad")
    assert "only what is missing is computed" in caught.value.fix
    said = capsys.readouterr().err
    assert said.count("  failed: ") == 5
    assert "failed: part 9: [red]9 is odd" in said
    assert "part 11" not in said
    assert "14/14 parts, 7 failed" in said


def test_a_failed_part_without_a_number_is_known_by_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(block: list[int]) -> int:
        return _fail_on_odd(block[0])

    with pytest.raises(ExecutionError) as caught:
        run_all(InlineEngine(), fail, [[2] * 1000, [3] * 1000], "testing")
    assert caught.value.why.startswith("part 1: [red]3 is odd")


def test_costs_must_be_one_an_item() -> None:
    with pytest.raises(ValueError, match="zip"):
        run_all(InlineEngine(), _double, [1, 2], "doubling", [1.0])
