"""Specs of what is trained, and on which materials."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from diffractory.specs.base import Spec


class ForestSpec(Spec):
    """The paper's 13 forests and the split they are trained on.

    Parameters
    ----------
    system_trees, system_depth : int
        Crystal-system classifier.
    group_trees, group_depth : int
        Space-group classifier of each crystal system.
    lattice_trees, lattice_depth : int
        Lattice regressor of each crystal system.
    with_triclinic : bool
        Learn triclinic as a seventh crystal system (the paper leaves it out).
    thickness : float
        Training thickness in Å.
    test_fraction : float
        Share of materials held out from all models.
    seed : int
        Seed of the split and of the trees.
    """

    kind: Literal["forests"] = "forests"
    system_trees: int = Field(80, ge=1)
    system_depth: int = Field(40, ge=1)
    group_trees: int = Field(128, ge=1)
    group_depth: int = Field(30, ge=1)
    lattice_trees: int = Field(80, ge=1)
    lattice_depth: int = Field(100, ge=1)
    with_triclinic: bool = False
    thickness: float = Field(200.0, gt=0.0)
    test_fraction: float = Field(0.25, gt=0.0, lt=1.0)
    seed: int = Field(0, ge=0, lt=2**32)


class BoostingSpec(Spec):
    """The boosted models and the split they are trained on.

    Parameters
    ----------
    system_rounds, group_rounds, lattice_rounds : int
        Rounds of boosting of the crystal-system, space-group and lattice models.
    system_leaves, group_leaves, lattice_leaves : int
        Leaves of their trees.
    with_triclinic : bool
        Learn triclinic as a seventh crystal system.
    thickness : float
        Thickness in Å of the noise-free half of the training patterns; the other half is the lab
        protocol's.
    test_fraction : float
        Share of materials held out from everything.
    calibration_fraction : float
        Share of the other materials on which probabilities are calibrated and nothing is trained.
    seed : int
        Of the split, the calibration materials and the trees.
    """

    kind: Literal["boosting"] = "boosting"
    system_rounds: int = Field(200, ge=1)
    group_rounds: int = Field(60, ge=1)
    lattice_rounds: int = Field(80, ge=1)
    system_leaves: int = Field(63, ge=2)
    group_leaves: int = Field(15, ge=2)
    lattice_leaves: int = Field(15, ge=2)
    with_triclinic: bool = True
    thickness: float = Field(200.0, gt=0.0)
    test_fraction: float = Field(0.25, gt=0.0, lt=1.0)
    calibration_fraction: float = Field(0.1, gt=0.0, lt=0.9)
    seed: int = Field(0, ge=0, lt=2**32)


TrainingSpec = ForestSpec | BoostingSpec
