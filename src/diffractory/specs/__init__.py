"""Settings that change results: frozen, validated, hashable, and hashed into every output.

A setting belongs here exactly if another value of it gives other numbers. Everything else
(workers, paths, memory) is in :mod:`diffractory.settings` and never enters a hash. There is a file for
each room whose work it describes; who needs a spec imports it from here. A spec checks its own values and
knows nothing of files, arrays or other rooms; pydantic is the only library.
"""

from diffractory.specs.base import Checked, Spec, canonical_json, sha256_of
from diffractory.specs.learning import BoostingSpec, ForestSpec, TrainingSpec
from diffractory.specs.patterns import (
    FeatureSpec,
    InvariantSpec,
    LabProtocolSpec,
    RadialBasisSpec,
    feature_spec,
)
from diffractory.specs.scan import DetectionSpec, FrameEffectsSpec, MapSpec, ParticleSpec
from diffractory.specs.scattering import FORM_FACTOR_MODELS, FormFactorModel, OrientationSpec, SimulationSpec

__all__ = [
    "FORM_FACTOR_MODELS",
    "BoostingSpec",
    "Checked",
    "DetectionSpec",
    "FeatureSpec",
    "ForestSpec",
    "FormFactorModel",
    "FrameEffectsSpec",
    "InvariantSpec",
    "LabProtocolSpec",
    "MapSpec",
    "OrientationSpec",
    "ParticleSpec",
    "RadialBasisSpec",
    "SimulationSpec",
    "Spec",
    "TrainingSpec",
    "canonical_json",
    "feature_spec",
    "sha256_of",
]
