"""Whether a scan shows a direct beam, before it is detected: what `diffractory detect` would say to it."""

from __future__ import annotations

from diffractory.errors import DiffractoryError
from diffractory.scan.detection.peak_calibration import check_direct_beam
from diffractory.scan.detection.scan_calibration import reach_of_beam
from diffractory.scan.detection.setup import SetupRequest, prepare_detection
from diffractory.scan.frame_scan import FrameScan


def beam_problem(scan: FrameScan) -> DiffractoryError | None:
    """Return why detection would find no direct beam, by a sample of the frames; None = it finds one.

    Parameters
    ----------
    scan : FrameScan

    Returns
    -------
    DiffractoryError or None
    """
    try:
        setup = prepare_detection(scan, SetupRequest())
        found = setup.detector.find(setup.sample)
        reach = reach_of_beam(setup.template.radius)
        check_direct_beam(found.peaks, setup.positions, scan.shape, reach, setup.brightest)
    except DiffractoryError as error:
        return error
    return None
