"""From files and other programs' objects to scans, by content: raw frames, Bragg peaks, calibration.

Here belongs whatever knows a format: which kind a file is, a reader for each, and the units and calibration
that files state in their own ways. A reader opens lazily and checks what it opens.
Never: looking at what the frames show, guessing a calibration that nobody stated, writing.
May import: ``frame_scan`` and ``bragg_scan`` of the other rooms here; h5py, zarr, hdf5plugin, rosettasciio,
py4DSTEM, Dask arrays.
"""
