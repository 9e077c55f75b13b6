"""From files and other programs' objects to scans, by content: raw frames, Bragg peaks, calibration."""
