"""Records: small checksummed files, each the only proof that a partition is done."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from diffractory.errors import RunError
from diffractory.specs import sha256_of
from diffractory.storage import write_atomic

#: No record is larger; a file that is must not be read into memory.
_MAX_RECORD_BYTES = 64_000_000


@dataclass(frozen=True)
class ShardSum:
    """Size and sha256 of one shard file, as read back after writing."""

    size: int
    sha256: str

    @classmethod
    def of_file(cls, path: Path) -> ShardSum:
        """Read a file and sum it up."""
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
        return cls(path.stat().st_size, digest.hexdigest())


@dataclass(frozen=True)
class Record:
    """Proof that one partition of one stage is on disk, whole.

    Parameters
    ----------
    plan_id : str
        Plan of the stage it belongs to.
    stage : str
        "peaks", or the name of a feature set.
    partition : int
    counts : tuple of int
        Rows written for each item: peaks, or 1 for features.
    shards : dict of str to ShardSum
        By path inside the run folder.
    code_version, host : str
        Who computed it.
    seconds : float
        Time it took.
    processor_seconds : float
        Time a processor worked on it: what counts where cores are shared.
    dense_solves : int
        Items whose series did not converge, so that the dense reference solved them.
    device : str
        GPU that solved it; empty for the processor.
    """

    plan_id: str
    stage: str
    partition: int
    counts: tuple[int, ...]
    shards: dict[str, ShardSum]
    code_version: str
    host: str
    seconds: float
    processor_seconds: float
    dense_solves: int = 0
    device: str = ""

    def write(self, path: Path) -> None:
        """Write atomically, with a checksum over all of it.

        Parameters
        ----------
        path : Path
            As :meth:`~diffractory.dataset.run.Run.record_path` gives it.

        Raises
        ------
        RunError
            If the disk is full or the folder cannot be written.
        """
        content = asdict(self)
        try:
            write_atomic(path, json.dumps({"checksum": sha256_of(content), **content}))
        except OSError as error:
            raise RunError(
                f"record {path} cannot be written ({error.strerror or error})",
                "without it the partition does not count as done",
                "Make room on the disk, or make the folder writable, and run the same command again",
            ) from error

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a record.

        Parameters
        ----------
        path : Path

        Returns
        -------
        Record

        Raises
        ------
        RunError
            If it is cut short, altered or not a record.
        """
        try:
            text = record_bytes(path)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from None
        return cls.from_bytes(text, path)

    @classmethod
    def from_bytes(cls, text: bytes, path: Path) -> Record:
        """Make a record of what its file holds; raises as :meth:`read`.

        Parameters
        ----------
        text : bytes
            Content of the file.
        path : Path
            Of the file, for messages.

        Returns
        -------
        Record
        """
        try:
            content = json.loads(text)
            checksum = content.pop("checksum")
            intact = checksum == sha256_of(content)
            shards = {key: ShardSum(**value) for key, value in content.pop("shards").items()}
            record = cls(**{**content, "counts": tuple(content["counts"])}, shards=shards)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _unreadable(path, error) from None
        if not intact:
            raise RunError(
                f"record {path} does not match its own checksum",
                "it was altered after writing, so its partition does not count as done",
                "Run the same command again: it computes this partition anew",
            )
        return record


def record_bytes(path: Path) -> bytes:
    """Read the file of a record.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is too large to be a record.
    """
    if path.stat().st_size > _MAX_RECORD_BYTES:
        raise ValueError("too large")
    return path.read_bytes()


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(
        f"record {path} cannot be read ({type(error).__name__})",
        "it is damaged or cut short, so its partition does not count as done",
        "Run the same command again: it computes this partition anew",
    )
