"""What a planned run will cost, for people who have to ask for it: hours, bytes, files, memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from diffractory.crystals.catalogue import Catalogue
from diffractory.dataset.plan import Plan, predicted_item_seconds
from diffractory.dataset.survey import Survey
from diffractory.scattering.cost import Speed

#: Files of a run besides those of its partitions: plan, catalogue, metadata of the store, a log.
_OTHER_FILES = 8
#: Files of a partition: a shard of each array, and its record.
_FILES_EACH = 4


@dataclass(frozen=True)
class Estimate:
    """What a plan costs.

    Parameters
    ----------
    core_seconds : float
        Predicted work on one core.
    wall_seconds : dict of int to float
        Predicted time by number of workers.
    files : int
        At the end of the run.
    cheapest_partition, dearest_partition : float
        Cost over the mean; the last partition, which takes the rest, apart.
    largest_crystal : str
        Id of the crystal with the largest single solve.
    largest_crystal_beams : int
    largest_crystal_seconds : float
        Predicted for all its orientations.
    """

    core_seconds: float
    wall_seconds: dict[int, float]
    files: int
    cheapest_partition: float
    dearest_partition: float
    largest_crystal: str
    largest_crystal_beams: int
    largest_crystal_seconds: float

    @classmethod
    def of(
        cls, plan: Plan, counted: Survey, catalogue: Catalogue, speed: Speed, workers: list[int]
    ) -> Estimate:
        """Estimate a plan for some numbers of workers."""
        costs = np.array([partition.seconds for partition in plan.partitions])
        relative = costs[:-1] / costs[:-1].mean() if len(costs) > 1 else np.ones(1)
        largest = int(counted.beams.max(axis=1).argmax())
        return cls(
            plan.seconds,
            # Never sooner than the dearest partition.
            {n: max(plan.seconds / n, float(costs.max())) for n in workers},
            _FILES_EACH * len(costs) + _OTHER_FILES,
            float(relative.min()),
            float(relative.max()),
            catalogue.ids[largest],
            int(counted.beams[largest].max()),
            float(predicted_item_seconds(counted, plan.simulation, speed)[largest].sum()),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return asdict(self)
