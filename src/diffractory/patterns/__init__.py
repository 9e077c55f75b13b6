"""Peak lists and what is computed from them; the same code serves training and inference.

Here belongs what a pattern tells without anybody knowing the crystal: the ragged table of peaks, feature
sets, the lattice of a single pattern and its symmetry, likeness of patterns; and what a laboratory does to
a simulated pattern. Simulated and measured patterns come as the same table.
Never: where peaks come from or go to (files, runs, scans), models, Dask, Zarr, xarray, sklearn. The one
file here is the package's own table of lattice groups, beside the module that makes it.
May import: the foundation; numpy and numba. It needs nothing of ``scattering``, and does without.
"""
