"""Atomic writes: a file is either whole or not there."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Parameters
    ----------
    path : Path
        Target; its folder is made where missing.
    data : bytes or str
        Whole content; text is encoded as UTF-8.

    Raises
    ------
    OSError
        As of :func:`atomic_path`.
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

    Raises
    ------
    OSError
        If the target cannot be written, or is a folder and what was written is a file; it names
        the target, not the temporary.
    """
    if path.is_symlink() and not path.is_dir():
        # What the link leads to is replaced, not the link: the file may have to lie on another disk.
        path = path.resolve()
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept last: some writers choose the format by it, or append their own.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.partial{path.suffix}")
    try:
        yield temporary
        _rename_into_place(temporary, path)
        logger.debug("wrote %s", path)
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)) == temporary:
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        _remove(temporary)


def _rename_into_place(temporary: Path, path: Path) -> None:
    if not path.is_dir():
        temporary.replace(path)
        return
    if not temporary.is_dir():
        # A folder may hold anything: no file takes its place.
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    retired = path.with_name(f".{path.name}.{uuid.uuid4().hex}.retired")
    path.rename(retired)
    try:
        temporary.rename(path)
    except OSError:
        retired.rename(path)
        raise
    _remove(retired)


def _remove(path: Path) -> None:
    is_folder = path.is_dir() and not path.is_symlink()
    remove: Callable[[Path], None] = shutil.rmtree if is_folder else _unlink
    remove(path)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
