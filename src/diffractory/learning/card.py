"""The card that goes with a saved model: what it is, what it was trained on, what it is not for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffractory.learning.evaluation_record import (
    RECORDED_NUMBERS,
    RECORDED_PROTOCOLS,
    EvaluationRecord,
    RecordedAccuracy,
    recorded_evaluations,
)
from diffractory.learning.provenance import training_runs

_KINDS = {
    "forests": "Random forests as of Gleason et al. (2024): crystal system, then space group and lattice.",
    "boosting": "Boosted trees on rotation-invariant features: crystal system with calibrated probabilities, "
    "then space group and lattice.",
}


def card_of(header: Mapping[str, Any]) -> str:
    """Return the card of a model as Markdown.

    Parameters
    ----------
    header : mapping
        Content of ``model.json``.
    """
    provenance, spec = header["provenance"], header["spec"]
    simulation, features, versions = (
        _part(provenance, name) for name in ("simulation", "features", "versions")
    )
    materials = provenance.get("training_materials")
    number = f"{len(materials)} materials, listed" if isinstance(materials, list) else "materials not listed"
    apart = provenance.get("calibration_materials", 0)
    runs = training_runs(provenance)
    orientations = [run.get("orientations", {}) for run in runs]
    axes = " and ".join(_axes(each.get("count", "unknown"), each.get("axes")) for each in orientations)
    plans = ", ".join(run.get("plan_id", "unknown")[:12] for run in runs)
    calibrating = f"; {apart} of them only calibrated its probabilities" if apart else ""
    lines = [
        "# Model card",
        "",
        _KINDS[spec.get("kind", "forests")],
        "",
        "| | |",
        "|---|---|",
        f"| crystal systems | {', '.join(header['systems'])} |",
        f"| features | {header['n_features']} ({features.get('kind', 'unknown')}) |",
        f"| trained on | {provenance.get('training_patterns', 'unknown')} simulated patterns of "
        f"{number} in model.json{calibrating} |",
        f"| zone axes of each material | {axes} |",
        f"| held out | {provenance.get('held_out_materials', 'unknown')} materials: no pattern was seen |",
        f"| beam energy | {simulation.get('energy_ev', 'unknown')} eV |",
        f"| {'runs' if len(runs) > 1 else 'run'} | plan {plans}, catalogue "
        f"{str(provenance.get('catalogue_hash', 'unknown'))[:12]} |",
        f"| diffractory | {provenance.get('diffractory', 'unknown')} |",
        f"| trained with | {', '.join(f'{name} {told}' for name, told in versions.items()) or 'unknown'} |",
        "",
        *_fared(recorded_evaluations(provenance)),
        "",
        "Where on a scan it may be asked: `diffractory map` says which positions are unlike everything it "
        "was trained on.",
        "",
        "It knows one crystal a pattern, at this energy and in foils of the thicknesses it was trained on, "
        "and does best along zone axes like those it was trained on. Overlapping grains, precession, other "
        "energies and amorphous material are not what it learned.",
    ]
    return "\n".join(lines) + "\n"


def _part(provenance: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    # Models come from anywhere, and a card is made of each that is evaluated.
    part = provenance.get(name)
    return part if isinstance(part, Mapping) else {}


def _axes(count: Any, kind: Any) -> str:
    return f"{count} {'at random' if kind == 'random' else 'evenly spread'}"


def _fared(evaluations: Sequence[EvaluationRecord]) -> list[str]:
    """Return how the model fared on materials that are not in its list, as lines of Markdown."""
    if not evaluations:
        return [
            "How well it does is not evaluated yet: `diffractory evaluate MODEL RUN --record` writes it "
            "here, of materials that are not in the list."
        ]
    lines = [
        "How well it does on materials that it was not trained on, crystal system right [95 % interval over "
        "materials], and expected calibration error of its confidence [likewise]:",
        "",
        "| evaluated on | protocol | 1 pattern | calibration error | 10 patterns | calibration error |",
        "|---|---|---|---|---|---|",
    ]
    for each in evaluations:
        again = ", as in training" if each.same_zone_axes_as_training else ""
        where = (
            f"{each.materials} materials, zone axes {_axes(each.orientations, each.axes)}{again} "
            f"(plan {each.plan_id[:12]}, {each.date}, diffractory {each.diffractory})"
        )
        # As JSON is read back, its keys are sorted.
        for name in (name for name in RECORDED_PROTOCOLS if name in each.protocols):
            numbers = each.protocols[name]
            cells = [cell for number in RECORDED_NUMBERS for cell in _cells(numbers.get(number))]
            lines.append(f"| {where} | {name} | {' | '.join(cells)} |")
    return lines


def _cells(found: RecordedAccuracy | None) -> tuple[str, str]:
    if found is None or found.accuracy is None:
        return "no such patterns", "–"
    spread = (
        "" if found.interval is None else " [{:.1f}–{:.1f}]".format(*(100 * end for end in found.interval))
    )
    error = "–" if found.calibration_error is None else f"{found.calibration_error:.3f}"
    if found.calibration_interval is not None:
        error += " [{:.3f}–{:.3f}]".format(*found.calibration_interval)
    return f"{100 * found.accuracy:.1f} %{spread}", error
