"""Raw frames of known crystals through detection and calibration to the map: is the truth recovered?"""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from diffractory import Crystal, SimulationSpec, simulate
from diffractory.learning.saved_model import SavedModel, packaged_model
from diffractory.patterns.peak_table import PeakTable
from diffractory.scan.bragg_scan import BraggScan
from diffractory.scan.detection.detect import find_peaks
from diffractory.scan.detection.ring_radii import ring_radii
from diffractory.scan.detection.scan_calibration import CalibrationRequest, calibrate_scan
from diffractory.scan.detection.setup import SetupRequest, prepare_detection
from diffractory.scan.frame_scan import FrameScan
from diffractory.scan.mapping.label_map import to_dataset
from diffractory.scan.mapping.particle_table import particle_table
from diffractory.scan.mapping.prediction import predict_scan
from diffractory.scan.reading.emd_reader import read_bragg_scan
from diffractory.scan.synthetic.frames import score_peaks, synthetic_frames
from diffractory.specs import FrameEffectsSpec, MapSpec, ParticleSpec, feature_spec

A, SHAPE, PIXEL = 4.12, (9, 12), 0.02
CRYSTAL = Crystal(np.eye(3) * A, np.array([55, 17]), np.array([[0.0] * 3, [0.5] * 3]))
#: Around the ring of 211, in pixels.
RING = (28.4, 31.2)
EFFECTS = FrameEffectsSpec(
    frame_shape=(144, 144), pixel_size=PIXEL, disk_radius=3.0, electrons=1e5, background=0.2,
    hot_pixels=10, hot_value=3000.0, drift=5.0, ellipticity=0.03, ellipse_angle=50.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def crystals() -> BraggScan:
    """One position, one crystal of caesium chloride in an orientation of its own."""
    turns = Rotation.random(SHAPE[0] * SHAPE[1], random_state=5).as_matrix()
    spec = SimulationSpec(thicknesses=(300.0,), q_max=1.4)
    found = list(simulate(CRYSTAL, turns, spec))
    table = PeakTable.from_detected([p.q for p in found], [p.intensity[0] for p in found])
    return BraggScan(table, SHAPE, 20.0, 300e3)


def test_peaks_calibration_and_labels_are_recovered(crystals, tmp_path):
    frames, truth = synthetic_frames(crystals, EFFECTS, seed=1)
    # The size of a pixel is not known: the material's own rings tell it.
    frames = FrameScan(frames.frames, None, frames.step, frames.energy_ev)
    setup = prepare_detection(frames, SetupRequest())
    found = find_peaks(frames, setup.detector)
    bright, fainter = (
        score_peaks(found.peaks, truth, 1e-2),
        score_peaks(found.peaks, truth, 1e-3, strongest=1e-2),
    )
    assert bright["recall"] == 1.0
    assert fainter["recall"] > 0.9
    assert bright["precision"] > 0.99
    assert bright["median_error"] < 0.08
    assert bright["median_error"] < fainter["median_error"] < 0.3
    assert bright["wanted"] + fainter["wanted"] == score_peaks(found.peaks, truth, 1e-3)["wanted"]

    request = CalibrationRequest(ellipse="fit", ring=RING, rings=ring_radii(CRYSTAL, 2.0))
    result = calibrate_scan(found, frames, setup.template.radius, request, {}, setup.brightest)
    assert np.hypot(*(result.origin.fitted - truth.center).reshape(-1, 2).T).max() < 0.1
    assert result.ellipse.ratio == pytest.approx(1.03, abs=0.004)
    assert result.ellipse.angle == pytest.approx(50.0, abs=5.0)
    assert result.pixel_size == pytest.approx(PIXEL, rel=0.002)

    result.scan.to_emd(tmp_path / "scan.h5")
    scan, model = read_bragg_scan(tmp_path / "scan.h5"), SavedModel(packaged_model())
    prediction = predict_scan(
        model, scan, MapSpec(median_size=1), feature_spec(model.provenance["features"]),
        particles=ParticleSpec(regions="grid", grid=12),
    )  # fmt: skip
    labelled = to_dataset(scan, prediction, MapSpec(median_size=1))
    right = labelled["crystal_system"] == labelled["crystal_system"].attrs["flag_values"][-1]
    assert float(right.mean()) > 0.3
    table = particle_table(scan, prediction)
    assert table["crystal_system"].tolist() == ["cubic"]
    assert table["a_pooled"][0] == pytest.approx(A, rel=0.005)
    assert table["a_pooled_support"][0] > 0.3
    assert table["a_pooled_margin"][0] > 10.0
