"""Plan, partition, record, verify: the only writer of simulated data, and its reader.

Here belongs a run from its plan to its export: what is computed in which parts, the functions that compute
one part, the records that prove it done, the stores, the lock and the log of a driver; and how an opened
run is read, selected, fed to training and written for other programs.
Never: where work runs, progress bars, models; no Dask, no sklearn. It offers functions of one partition,
and whoever runs them is the caller.
May import: ``crystals``, ``scattering``, ``patterns`` and the foundation; zarr in ``store`` alone, joblib
in ``survey``, xarray where runs are read, pyarrow, h5py and py4DSTEM where they are exported.
"""
