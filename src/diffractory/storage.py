"""Atomic writes: a file is either whole or not there."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Parameters
    ----------
    path : Path
        Target; its folder is made where missing.
    data : bytes or str
        Whole content; text is encoded as UTF-8.
    """
    content = data.encode() if isinstance(data, str) else data
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a unique path beside ``path`` to write to; rename it into place on success.

    Works for files and folders. An existing folder is moved away first and removed last, so that
    the target is missing at most for the moment between two renames. On an error the temporary
    is removed and the target stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept last: some writers choose the format by it, or append their own.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.partial{path.suffix}")
    try:
        yield temporary
        _rename_into_place(temporary, path)
    finally:
        _remove(temporary)


def _rename_into_place(temporary: Path, path: Path) -> None:
    if not path.is_dir():
        temporary.replace(path)
        return
    retired = path.with_name(f".{path.name}.{uuid.uuid4().hex}.retired")
    path.rename(retired)
    temporary.rename(path)
    _remove(retired)


def _remove(path: Path) -> None:
    remove: Callable[[Path], None] = shutil.rmtree if path.is_dir() else _unlink
    remove(path)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
