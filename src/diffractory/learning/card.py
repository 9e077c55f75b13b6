"""The card that goes with a saved model: what it is, what it was trained on, what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    simulation = provenance.get("simulation", {})
    materials = provenance.get("training_materials", [])
    apart = provenance.get("calibration_materials", 0)
    runs = training_runs(provenance)
    axes = " and ".join(_axes(run.get("orientations", {})) for run in runs)
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
        f"| features | {header['n_features']} ({provenance.get('features', {}).get('kind', 'unknown')}) |",
        f"| trained on | {provenance.get('training_patterns', 'unknown')} simulated patterns of "
        f"{len(materials)} materials, listed in model.json{calibrating} |",
        f"| zone axes of each material | {axes} |",
        f"| held out | {provenance.get('held_out_materials', 'unknown')} materials: no pattern was seen |",
        f"| beam energy | {simulation.get('energy_ev', 'unknown')} eV |",
        f"| {'runs' if len(runs) > 1 else 'run'} | plan {plans}, catalogue "
        f"{str(provenance.get('catalogue_hash', 'unknown'))[:12]} |",
        f"| diffractory | {provenance.get('diffractory', 'unknown')} |",
        "",
        "How well it does: `diffractory evaluate` on materials that are not in the list. Where on a scan it "
        "may be asked: `diffractory map` says which positions are unlike everything it was trained on.",
        "",
        "It knows one crystal a pattern, at this energy and in foils of the thicknesses it was trained on, "
        "and does best along zone axes like those it was trained on. Overlapping grains, precession, other "
        "energies and amorphous material are not what it learned.",
    ]
    return "\n".join(lines) + "\n"


def _axes(orientations: Mapping[str, Any]) -> str:
    spread = "at random" if orientations.get("axes") == "random" else "evenly spread"
    return f"{orientations.get('count', 'unknown')} {spread}"
