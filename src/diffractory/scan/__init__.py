"""4D-STEM scans: readers, prediction over labelled grids, synthetic scans with known truth."""
