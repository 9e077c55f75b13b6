"""What a scan looks like before anything is computed from it: images, bad frames and bad pixels.

Here belongs what is summed or counted over frames or peaks as they are: mean and largest pattern, virtual
images, the map of all Bragg vectors, frames and pixels that cannot be right.
Never: changing a scan, deciding for the user what is left out, drawing (``report``).
May import: ``reading`` and the two kinds of scans; numpy, scipy.
"""
