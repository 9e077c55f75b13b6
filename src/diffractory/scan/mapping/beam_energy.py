"""A scan and a model of different beam energies: which Ewald sphere reads the lattices, and what to say."""

from __future__ import annotations

from diffractory.errors import ModelError, ScanError, SpecError
from diffractory.scan.bragg_scan import BraggScan
from diffractory.specs import FeatureSpec, InvariantSpec

#: Energies within this share of each other are the same.
_SAME = 0.01


def features_at_energy(
    features: FeatureSpec, scan: BraggScan, trained_at: float
) -> tuple[FeatureSpec, str | None]:
    """Return the features of a scan that was perhaps recorded at another energy than the model knows.

    Features that read a lattice are told the Ewald sphere of the scan. What else the energy changes, how
    intensities are distributed, costs no accuracy that was seen (``benchmarks/other_beams.py``). Other
    features say nothing of the sphere, and a model of them knows its own energy alone.

    Parameters
    ----------
    features : RadialBasisSpec or InvariantSpec
        Features that the model was trained on.
    scan : BraggScan
    trained_at : float
        Beam energy of the training patterns in eV.

    Returns
    -------
    features : RadialBasisSpec or InvariantSpec
    note : str or None
        What the user should know; None = the energies agree.

    Raises
    ------
    ModelError
        If the energies differ and the features cannot be told.
    ScanError
        If lattices cannot be read at the energy of the scan.
    """
    if scan.energy_ev is None:
        return features, (
            f"the beam energy of the scan is unknown: {trained_at / 1e3:g} keV is assumed, the model's; "
            "give it with --energy (keV)"
        )
    if abs(scan.energy_ev - trained_at) <= _SAME * trained_at:
        return features, None
    energies = f"recorded at {scan.energy_ev / 1e3:g} keV, the model was trained at {trained_at / 1e3:g} keV"
    if not isinstance(features, InvariantSpec):
        raise ModelError(
            f"{scan.source} was {energies}",
            "patterns of another energy look different, and its features do not know the energy",
            "Use the model that is included, or train one on a run planned with the scan's --energy",
        )
    try:
        told = InvariantSpec(**{**features.model_dump(), "energy_ev": scan.energy_ev})
    except SpecError:
        raise ScanError(
            f"{scan.source} was {energies}",
            "lattices are read between 30 and 1,000 keV",
            "If that is not its beam energy, give it in keV with --energy",
        ) from None
    return told, f"{energies}: lattices are read at {scan.energy_ev / 1e3:g} keV"
