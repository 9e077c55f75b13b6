"""From raw frames to calibrated Bragg peaks: template, parameters, disks, origin, ellipse, pixel size."""
