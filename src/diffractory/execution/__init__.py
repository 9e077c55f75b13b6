"""Where work runs: this process, its threads, local Dask workers, SLURM jobs, or a scheduler that is up.

Here belongs what starts workers, hands them work a bounded number at a time, watches over them and closes
them again. An engine receives a callable and its arguments, and yields what became of each.
Never: what the work means. It knows callables and no other room; only ``cli`` knows both.
May import: errors, interrupts, and the base of specs for the site file; dask, distributed, dask-jobqueue,
joblib, each where it is used, as most commands never need them.
"""
