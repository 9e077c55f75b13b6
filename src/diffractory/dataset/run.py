"""A run folder: the plan, its catalogue, the stages' stores and records, and what is done.

::

    RUN/plan.json             frozen
    RUN/catalogue.parquet     the crystals, as planned
    RUN/peaks.zarr            flat arrays of Bragg peaks, one shard a partition
    RUN/records/peaks/        one record a partition
    RUN/features-NAME.json    plan of a feature set; its store and records beside
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from diffractory import __version__
from diffractory.crystals.catalogue import Catalogue
from diffractory.dataset.plan import Plan
from diffractory.dataset.records import Record, record_bytes
from diffractory.dataset.store import create_peak_store, planned_store
from diffractory.errors import CatalogueError, DiffractoryError, RunError
from diffractory.storage import write_atomic

T = TypeVar("T")
R = TypeVar("R")

#: Name of the stage that simulates, and of its store in the run folder.
PEAKS, PEAK_STORE = "peaks", "peaks.zarr"
#: Threads that ask for files, and partitions whose records wait in memory to be parsed.
_READERS, _BLOCK = 16, 1024


@dataclass(frozen=True)
class Run:
    """An opened run folder.

    Parameters
    ----------
    path : Path
    plan : Plan
    """

    path: Path
    plan: Plan

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """Open a run folder, whatever version of the program computes it, to read it or go on.

        Parameters
        ----------
        path : Path or str
            Run folder.

        Returns
        -------
        Run

        Raises
        ------
        RunError
            If there is no plan, or it is damaged or of another format.
        """
        # Absolute: workers elsewhere may stand in another working directory.
        folder = Path(path).absolute()
        plan_file = folder / "plan.json"
        try:
            text = plan_file.read_text(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(
                f"{folder} is not a run folder: it has no plan.json",
                fix="Make one with `diffractory plan RUN --catalogue FILE`",
            ) from None
        except OSError as error:
            raise RunError(f"{plan_file} cannot be read ({error.strerror or error})") from None
        return cls(folder, Plan.from_json(text, str(plan_file)))

    @property
    def is_of_this_version(self) -> bool:
        """Whether this version of the program computes the run's results."""
        return minor_version(self.plan.code_version) == minor_version(__version__)

    def check_partition(self, partition: int) -> None:
        """Refuse a number that no partition has.

        Parameters
        ----------
        partition : int

        Raises
        ------
        RunError
            If it is below 0, or not below the number of partitions.
        """
        last = len(self.plan.partitions) - 1
        if not 0 <= partition <= last:
            raise RunError(f"{self.path} has partitions 0 … {last}, there is no partition {partition}")

    def check_code_version(self) -> None:
        """Refuse to compute a part of a run that another version of this program computes.

        Raises
        ------
        RunError
            If the versions differ in more than their last number.
        """
        planned = self.plan.code_version
        if not self.is_of_this_version:
            raise RunError(
                f"{self.path} was planned with diffractory {planned}, this is {__version__}",
                "results of two versions must not be mixed in one data set",
                f"Install diffractory {planned}, or plan a new run folder",
            )

    @classmethod
    def create(cls, path: Path | str, plan: Plan, catalogue: Catalogue) -> Run:
        """Make a run folder; making the same one again changes nothing.

        Parameters
        ----------
        path : Path or str
            Run folder.
        plan : Plan
        catalogue : Catalogue
            That the plan was made for.

        Returns
        -------
        Run

        Raises
        ------
        RunError
            If the folder already holds another plan or other files, or cannot be written.
        CatalogueError
            If the catalogue cannot be written.
        """
        folder = Path(path).absolute()
        try:
            return cls._create(folder, plan, catalogue)
        except OSError as error:
            raise RunError(
                f"a run cannot be made in {folder} ({error.strerror or error})",
                fix="Choose a folder on a disk that is writable and not full",
            ) from None

    @classmethod
    def _create(cls, folder: Path, plan: Plan, catalogue: Catalogue) -> Run:
        plan_file = folder / "plan.json"
        if plan_file.exists():
            run = cls.open(folder)
            if run.plan.plan_id != plan.plan_id:
                raise RunError(
                    f"{folder} already holds another plan ({run.plan.plan_id[:12]}, not {plan.plan_id[:12]})",
                    "its crystals, physics, orientations or partitions differ",
                    "Choose another folder, or remove this one yourself if it is no longer wanted",
                )
            return run
        if folder.exists() and (not folder.is_dir() or any(_foreign_files(folder, plan))):
            raise RunError(
                f"{folder} exists and is not a run folder", fix="Choose a folder that is new or empty"
            )
        if not (folder / "catalogue.parquet").exists():
            catalogue.to_parquet(folder / "catalogue.parquet")
        # Of this plan already: another command makes the same run at the same time, or has begun to fill it.
        if planned_store(folder / PEAK_STORE) != plan.plan_id:
            create_peak_store(folder / PEAK_STORE, plan)
        # The plan comes last: a folder without it is not a run yet and can be made again.
        write_atomic(plan_file, plan.to_json())
        return cls(folder, plan)

    @property
    def catalogue(self) -> Catalogue:
        """The planned crystals.

        Raises
        ------
        RunError
            If the catalogue in the folder is not the planned one.
        """
        return _load_catalogue(self.path / "catalogue.parquet", self.plan.catalogue_hash)

    def record_path(self, stage: str, partition: int) -> Path:
        """Return where the record of a partition is, or will be.

        Parameters
        ----------
        stage : str
            "peaks", or the name of a feature set.
        partition : int

        Returns
        -------
        Path
        """
        return self.path / "records" / stage / f"p{partition:06d}.json"

    def record(self, stage: str, partition: int, plan_id: str) -> Record:
        """Read and check one record.

        Parameters
        ----------
        stage : str
            "peaks", or the name of a feature set.
        partition : int
        plan_id : str
            Plan of the stage.

        Returns
        -------
        Record
            All its shards are there, and of the size it says; their bytes are not read.

        Raises
        ------
        RunError
            If it is missing, damaged, of another plan, or its shards have another size.
        """
        path = self.record_path(stage, partition)
        if not path.exists():
            raise RunError(f"partition {partition} of {self.path} ({stage}) is not done: {path} is missing")
        record = Record.read(path)
        self._check_record(record, stage, partition, plan_id)
        self._check_shards(record)
        return record

    def _check_record(self, record: Record, stage: str, partition: int, plan_id: str) -> None:
        """Refuse a record of another plan or partition, and one that cannot be of this plan."""
        path = self.record_path(stage, partition)
        if (record.plan_id, record.stage, record.partition) != (plan_id, stage, partition):
            raise RunError(
                f"record {path} belongs to another plan or partition",
                fix="Run the same command again: it computes this partition anew",
            )
        self._check_counts(record)

    def _check_counts(self, record: Record) -> None:
        """Refuse a record that cannot be of this plan, before its counts are used as sizes."""
        chosen = self.plan.partitions[record.partition]
        n_items = chosen.stop - chosen.first
        most = self.plan.peaks_per_shard if record.stage == PEAKS else n_items
        # A run has millions of counts: no loop of Python over them. True is no count.
        whole = set(map(type, record.counts)) == {int} and min(record.counts) > 0
        inside = all(
            name.startswith(f"{record.stage}.zarr/") and ".." not in name.split("/") for name in record.shards
        )
        if not (whole and inside and record.shards and len(record.counts) == n_items) or (
            sum(record.counts) > most
        ):
            raise RunError(
                f"the record of partition {record.partition} of {self.path} ({record.stage}) contradicts the "
                f"plan of {n_items} orientations",
                "its counts or the names of its shards cannot be right",
                "Run the same command again: it computes this partition anew",
            )

    def _check_shards(self, record: Record) -> None:
        """Refuse a record whose shards are missing or of another size."""
        for name, expected in record.shards.items():
            size = _file_size(self.path / name)
            if size != expected.size:
                raise RunError(
                    f"shard {self.path / name} has {max(size, 0)} bytes and its record says {expected.size}",
                    "it is missing or cut short",
                    "Run the same command again: it computes this partition anew",
                )

    def done(self, stage: str = PEAKS, plan_id: str | None = None) -> dict[int, Record]:
        """Return the valid record of every finished partition; damaged ones do not count.

        Parameters
        ----------
        stage : str
            "peaks", or the name of a feature set.
        plan_id : str, optional
            Plan of the stage; the run's by default.

        Returns
        -------
        dict of int to Record
            By partition, in order.
        """
        wanted_plan, n = plan_id or self.plan.plan_id, len(self.plan.partitions)

        def contents(partition: int) -> bytes:
            with contextlib.suppress(OSError, ValueError):
                return record_bytes(self.record_path(stage, partition))
            return b""

        def parsed(partition: int, text: bytes) -> Record | None:
            with contextlib.suppress(RunError):
                record = Record.from_bytes(text, self.record_path(stage, partition))
                self._check_record(record, stage, partition, wanted_plan)
                return record
            return None

        def has_shards(record: Record) -> bool:
            with contextlib.suppress(RunError):
                self._check_shards(record)
                return True
            return False

        records: dict[int, Record] = {}
        # Files are asked for side by side, because the file system of a cluster answers each question
        # late but many at once; records are parsed by one thread, because Python lets only one compute.
        with ThreadPoolExecutor(_READERS) as pool:
            for first in range(0, n, _BLOCK):
                block = range(first, min(first + _BLOCK, n))
                texts = _side_by_side(pool, contents, block)
                read = (parsed(p, text) for p, text in zip(block, texts, strict=True) if text)
                found = [record for record in read if record is not None]
                whole = _side_by_side(pool, has_shards, found)
                records |= {r.partition: r for r, kept in zip(found, whole, strict=True) if kept}
        return records

    def damaged(self, stage: str = PEAKS, plan_id: str | None = None) -> dict[int, str]:
        """Return why each partition that has a record does not count as done.

        Parameters
        ----------
        stage : str
            "peaks", or the name of a feature set.
        plan_id : str, optional
            Plan of the stage; the run's by default.

        Returns
        -------
        dict of int to str
            By partition, in order.
        """
        problems: dict[int, str] = {}
        valid = self.done(stage, plan_id)
        for partition in range(len(self.plan.partitions)):
            if partition not in valid and self.record_path(stage, partition).exists():
                try:
                    self.record(stage, partition, plan_id or self.plan.plan_id)
                except RunError as error:
                    problems[partition] = str(error)
        return problems


def _side_by_side(pool: ThreadPoolExecutor, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Apply a function to items in all threads, a share each: handing them over one by one costs."""
    share = -(-len(items) // _READERS) or 1
    parts = [items[i : i + share] for i in range(0, len(items), share)]
    return [result for part in pool.map(lambda p: [function(x) for x in p], parts) for result in part]


def _file_size(path: Path) -> int:
    """Return the size of a file, -1 where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def minor_version(version: str) -> str:
    """Return a version without its last number: results of programs that share it may be mixed."""
    return ".".join(version.split(".")[:2])


def _foreign_files(folder: Path, plan: Plan) -> list[str]:
    """Name what is in a folder that an earlier, interrupted creation of this run did not put there."""
    ours = set()
    if not any((folder / PEAK_STORE).glob("*/c")):
        ours.add(PEAK_STORE)
    with contextlib.suppress(DiffractoryError):
        _load_catalogue(folder / "catalogue.parquet", plan.catalogue_hash)
        ours.add("catalogue.parquet")
    return [path.name for path in folder.iterdir() if path.name not in ours and not path.name.startswith(".")]


@lru_cache(maxsize=4)
def _load_catalogue(path: Path, expected_hash: str) -> Catalogue:
    try:
        catalogue = Catalogue.from_parquet(path)
    except CatalogueError as error:
        raise RunError(
            f"the catalogue of this run cannot be read: {error.what}",
            error.why,
            "Put the original back, or plan a new run folder",
        ) from None
    if catalogue.content_hash != expected_hash:
        raise RunError(
            f"{path} is not the catalogue this run was planned with",
            "it was replaced or altered",
            "Put the original back, or plan a new run folder",
        )
    return catalogue
