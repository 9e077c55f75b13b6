from __future__ import annotations

import numpy as np
import pytest

from diffractory.scattering import calibration
from diffractory.scattering.cost import Speed, predicted_seconds
from diffractory.specs import SimulationSpec


@pytest.fixture(scope="module")
def speed() -> Speed:
    """A quick measurement: what is tested here is that it is sound, not that it is sharp."""
    patch = pytest.MonkeyPatch()
    patch.setattr(calibration, "_DURATION", 0.01)
    steps: list[int] = []
    measured = calibration.measure_speed(lambda: steps.append(1))
    patch.undo()
    assert len(steps) == calibration.n_steps()
    return measured


def test_a_measured_speed_is_complete_and_sound(speed: Speed) -> None:
    assert Speed.from_json(speed.to_json()) == speed
    assert speed.term[-1] > speed.term[0]


def test_a_measured_speed_predicts(speed: Speed) -> None:
    seconds = predicted_seconds(np.array([50, 1000]), SimulationSpec(), speed)
    assert 0.0 < seconds[0] < seconds[1] < 60.0
