"""Whether compiled code lies on this machine, or is still to be compiled, which may take most of a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def is_compiled(kernel: Any) -> bool:
    """Tell whether a kernel was compiled before, here and from its source as it is.

    Parameters
    ----------
    kernel : numba dispatcher
        Made by ``njit(cache=True)``.

    Returns
    -------
    bool
        True where Numba's cache holds an index of it that is no older than its file. The processor, which
        Numba looks at as well, is not: a machine that took over another's cache compiles anew.
    """
    source = Path(kernel.py_func.__code__.co_filename)
    cached = Path(kernel.stats.cache_path).glob(f"{source.stem}.{kernel.py_func.__qualname__}-*.nbi")
    try:
        return any(index.stat().st_mtime >= source.stat().st_mtime for index in cached)
    except OSError:
        # A file that went away meanwhile; whoever waits is told too much rather than too little.
        return False
