"""The physics, pure arrays in and out: form factors, beams, orientations, Bloch-wave solvers.

Here belongs what happens between a crystal and its Bragg peaks: which beams are excited, the structure
matrix, the waves behind the foil on a processor or a GPU, kinematical diffraction beside them, and what a
solve costs, predicted from its geometry.
Never: files, labels, progress, Dask, Zarr, xarray, pandas or pymatgen. A kernel is handed arrays and gives
arrays back, so it is tested on its own and runs anywhere.
May import: ``crystals.crystal`` and the foundation; numpy, scipy, numba, threadpoolctl; PyTorch in
``torch_*`` alone, where it is used.
"""
