"""What to simulate: one crystal, a catalogue of crystals, their sources and their symmetry.

Here belongs what is known of a structure before any electron meets it: the cell and its atoms as arrays
(``crystal``), the table of many (``catalogue``) and how it is built and freed of duplicates, Laue groups,
crystal systems, and a file in ``sources`` for each place that structures come from.
Never: form factors and beams, files other than catalogues and what a source downloads, Dask and Zarr.
May import: the foundation (units, errors, storage, specs, settings), pymatgen, spglib, pandas and pyarrow;
the client of a source in that source's file alone.
"""
