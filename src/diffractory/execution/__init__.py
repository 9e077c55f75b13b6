"""Where work runs: inline, local Dask, a running scheduler. It knows callables, nothing else."""
