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
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from diffractory import __version__
from diffractory.crystals.catalogue import Catalogue
from diffractory.dataset.plan import Plan
from diffractory.dataset.records import Record
from diffractory.dataset.store import create_peak_store
from diffractory.errors import CatalogueError, DiffractoryError, RunError
from diffractory.storage import write_atomic

#: Name of the stage that simulates.
PEAKS = "peaks"


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
        """Open a run folder and check that this program can work on it.

        Raises
        ------
        RunError
            If there is no plan, or it is damaged or of another version.
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
        plan = Plan.from_json(text, str(plan_file))
        if _minor(plan.code_version) != _minor(__version__):
            raise RunError(
                f"{folder} was planned with diffractory {plan.code_version}, this is {__version__}",
                "results of two versions must not be mixed in one data set",
                f"Install diffractory {plan.code_version}, or plan a new run folder",
            )
        return cls(folder, plan)

    @classmethod
    def create(cls, path: Path | str, plan: Plan, catalogue: Catalogue) -> Run:
        """Make a run folder; making the same one again changes nothing.

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
        create_peak_store(folder / "peaks.zarr", plan)
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
        """Return where the record of a partition is, or will be."""
        return self.path / "records" / stage / f"p{partition:06d}.json"

    def record(self, stage: str, partition: int, plan_id: str) -> Record:
        """Read and check one record.

        Raises
        ------
        RunError
            If it is missing, damaged, of another plan, or its shards have another size.
        """
        path = self.record_path(stage, partition)
        if not path.exists():
            raise RunError(f"partition {partition} of {self.path} ({stage}) is not done: {path} is missing")
        record = Record.read(path)
        if (record.plan_id, record.stage, record.partition) != (plan_id, stage, partition):
            raise RunError(
                f"record {path} belongs to another plan or partition",
                fix="Run the same command again: it computes this partition anew",
            )
        self._check_counts(record)
        for name, expected in record.shards.items():
            shard = self.path / name
            size = shard.stat().st_size if shard.is_file() else -1
            if size != expected.size:
                raise RunError(
                    f"shard {shard} has {max(size, 0)} bytes and its record says {expected.size}",
                    "it is missing or cut short",
                    "Run the same command again: it computes this partition anew",
                )
        return record

    def _check_counts(self, record: Record) -> None:
        """Refuse a record that cannot be of this plan, before its counts are used as sizes."""
        chosen = self.plan.partitions[record.partition]
        n_items = chosen.stop - chosen.first
        most = self.plan.peaks_per_shard if record.stage == PEAKS else n_items
        whole = all(type(count) is int and count > 0 for count in record.counts)
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

    def done(self, stage: str = PEAKS, plan_id: str | None = None) -> dict[int, Record]:
        """Return the valid record of every finished partition; damaged ones do not count."""
        records: dict[int, Record] = {}
        for partition in range(len(self.plan.partitions)):
            try:
                records[partition] = self.record(stage, partition, plan_id or self.plan.plan_id)
            except RunError:
                continue
        return records

    def damaged(self, stage: str = PEAKS, plan_id: str | None = None) -> dict[int, str]:
        """Return why each partition that has a record does not count as done."""
        problems: dict[int, str] = {}
        for partition in range(len(self.plan.partitions)):
            if self.record_path(stage, partition).exists():
                try:
                    self.record(stage, partition, plan_id or self.plan.plan_id)
                except RunError as error:
                    problems[partition] = str(error)
        return problems


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _foreign_files(folder: Path, plan: Plan) -> list[str]:
    """Name what is in a folder that an earlier, interrupted creation of this run did not put there."""
    ours = set()
    if not any((folder / "peaks.zarr").glob("*/c")):
        ours.add("peaks.zarr")
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
