"""From Bragg peaks to labels: prediction of positions and particles, flags, and the files of a map."""
