"""The short account of an evaluation that a model carries, beside where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from diffractory import __version__

#: Patterns that answer together, of which an account tells.
RECORDED_NUMBERS = ("1", "10")
#: Protocols of which it tells, in this order.
RECORDED_PROTOCOLS = ("paper", "turned", "lab")


class RecordedAccuracy(BaseModel):
    """How often the crystal system was right, and how far confidence was from that.

    Parameters
    ----------
    accuracy : float or None
        Share of right answers; None where there were no such patterns.
    interval : tuple of two floats, or None
        95 % bootstrap interval over materials.
    calibration_error : float or None
        Expected calibration error.
    calibration_interval : tuple of two floats, or None
        Of the calibration error; accounts of earlier versions have none.
    """

    model_config = ConfigDict(frozen=True)

    accuracy: float | None
    interval: tuple[float, float] | None
    calibration_error: float | None
    calibration_interval: tuple[float, float] | None = None


class EvaluationRecord(BaseModel):
    """What one evaluation found.

    Parameters
    ----------
    date : str
        Day, ISO 8601, UTC.
    diffractory : str
        Version that evaluated.
    plan_id : str
        Of the run whose materials were asked about.
    axes : str
        Kind of its zone axes, "even" or "random".
    orientations : int
        Zone axes of each material.
    same_zone_axes_as_training : bool
        Then the model may know them again, and does worse along others.
    materials, patterns : int
        Asked about, none of them seen in training.
    protocols : dict of str to dict of str to RecordedAccuracy
        By protocol, then by the number of patterns that answered together.
    """

    model_config = ConfigDict(frozen=True)

    date: str
    diffractory: str
    plan_id: str
    axes: str
    orientations: int
    same_zone_axes_as_training: bool
    materials: int
    patterns: int
    protocols: dict[str, dict[str, RecordedAccuracy]]

    @classmethod
    def from_results(cls, results: Mapping[str, Any]) -> Self:
        """Sum up what :func:`~diffractory.learning.model_evaluation.evaluate_saved_model` found, today.

        Parameters
        ----------
        results : mapping

        Returns
        -------
        EvaluationRecord
        """
        counts = results["paper"]["counts"]
        return cls(
            date=datetime.now(UTC).date().isoformat(),
            diffractory=__version__,
            plan_id=results["plan_id"],
            # Even axes, the default, stand in no plan.
            axes=results["orientations"].get("axes", "even"),
            orientations=results["orientations"]["count"],
            same_zone_axes_as_training=results["same_zone_axes_as_training"],
            materials=counts["materials"],
            patterns=counts["patterns"],
            protocols={
                name: {
                    number: RecordedAccuracy(**results[name]["system_by_number"][number])
                    for number in RECORDED_NUMBERS
                }
                for name in RECORDED_PROTOCOLS
            },
        )


def recorded_evaluations(provenance: Mapping[str, Any]) -> list[EvaluationRecord]:
    """Return the accounts of evaluations that a model carries, as far as they are any.

    Parameters
    ----------
    provenance : mapping
        As given by :func:`~diffractory.learning.artefact.load_model`.

    Returns
    -------
    list of EvaluationRecord
        One a run, in the order in which they were recorded.
    """
    stored = provenance.get("evaluations")
    found = []
    for each in stored if isinstance(stored, list) else ():
        try:
            found.append(EvaluationRecord.model_validate(each))
        except ValidationError:
            # Models come from anywhere: what is no account of an evaluation is left out.
            continue
    return found


def with_evaluation(provenance: Mapping[str, Any], record: EvaluationRecord) -> dict[str, Any]:
    """Return provenance that tells of one more evaluation; one on the same run gives way to it.

    Parameters
    ----------
    provenance : mapping
    record : EvaluationRecord

    Returns
    -------
    dict
        Plain JSON data.
    """
    others = [each for each in recorded_evaluations(provenance) if each.plan_id != record.plan_id]
    told = [each.model_dump(mode="json") for each in (*others, record)]
    return {**provenance, "evaluations": told}
