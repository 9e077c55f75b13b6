"""Figures and pages; every one is a function of a result.

Here belongs what a person looks at: a function for each figure, the look that all share (``style``), and
the pages that put figures and numbers together in one HTML file.
Never: computing what is shown, choosing where it is written, matplotlib's global state (pyplot). A figure
that needs a number gets it from the result.
May import: results of ``scan``, ``patterns`` and ``crystals``, and the foundation; matplotlib, numpy,
pandas, xarray.
"""
