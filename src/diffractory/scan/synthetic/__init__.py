"""Synthetic scans with known truth, and how peaks and maps score on them.

Here belongs what makes a scan of patterns that are known, as peaks or as raw frames with what a detector
adds, and what compares found peaks and maps with the truth.
Never: anything that the way from a microscope's file to a map needs: nothing else of ``scan`` imports it.
May import: every other room of ``scan``; numpy, scipy, Dask arrays, xarray.
"""
