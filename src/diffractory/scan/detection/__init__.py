"""From raw frames to calibrated Bragg peaks: template, parameters, disks, origin, ellipse, pixel size.

Here belongs how disks are found in one frame, how their parameters are chosen from a sample of frames, how
blocks of frames are worked off and put together, and what peaks themselves tell of the calibration.
Never: labels and models (``mapping``), file formats (``reading``), where work runs.
May import: ``inspection``, ``reading`` and the two kinds of scans, crystals (whose rings are known) and
``patterns``; numpy, scipy, Dask arrays. It neither knows ``mapping`` nor is known by it.
"""
