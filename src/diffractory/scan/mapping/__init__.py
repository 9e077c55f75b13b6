"""From Bragg peaks to labels: prediction of positions and particles, flags, and the files of a map.

Here belongs what gives positions a crystal system, space group and lattice, what divides a scan into
particles and gives each one answer, what warns of an answer (overlap, patterns unlike those of training),
and the map as a data set and as files.
Never: training, raw frames and disks (``detection``), figures (``report``), where work runs.
May import: ``inspection``, ``reading`` and the two kinds of scans, ``learning``; numpy, scipy,
scikit-image, xarray, pandas. It neither knows ``detection`` nor is known by it.
"""
