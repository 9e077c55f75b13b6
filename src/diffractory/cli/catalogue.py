"""`diffractory catalogue`: build the table of crystals to simulate, and look at it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pymatgen.symmetry.groups import sg_symbol_from_int_number
from rich.table import Table
from rich.text import Text

from diffractory.cli.console import JsonFlag, note, out, print_json
from diffractory.cli.options import check_output_file, check_output_folder
from diffractory.cli.progress import counting_bar
from diffractory.crystals.build import MAX_VOLUME, BuildResult, CatalogueFilter, Dropped, build_catalogue
from diffractory.crystals.catalogue import Catalogue
from diffractory.crystals.sources import Candidate
from diffractory.crystals.sources.aflow import aflow_candidates, read_prototypes
from diffractory.crystals.sources.cif import cif_candidates, cif_files
from diffractory.crystals.sources.download import Download
from diffractory.crystals.sources.materials_project import (
    MaterialsProjectQuery,
    materials_project_candidates,
    materials_project_download,
)
from diffractory.crystals.sources.optimade import OptimadeQuery, optimade_candidates, optimade_download
from diffractory.crystals.sources.parquet import parquet_candidates
from diffractory.crystals.symmetry import SYMPREC
from diffractory.crystals.systems import CRYSTAL_SYSTEMS
from diffractory.errors import CatalogueError
from diffractory.report.catalogue_figures import figure_of_counts
from diffractory.report.style import SYSTEM_COLOURS, save_figure
from diffractory.storage import write_atomic

app = typer.Typer(help="Build and show catalogues of crystals.", no_args_is_help=True)

#: Characters of the longest bar of `catalogue show`.
_BAR_WIDTH = 16
#: Examples printed for each reason to drop a crystal.
_N_EXAMPLES = 3


class Source(StrEnum):
    """Where structures come from."""

    AFLOW = "aflow"
    CIF = "cif"
    PARQUET = "parquet"
    MP = "mp"
    OPTIMADE = "optimade"


_REMOTE = (Source.MP, Source.OPTIMADE)


@app.command(
    epilog="Example: diffractory catalogue build oxides.parquet --source cif --input cifs/ "
    "--elements Si,O --max-volume 600\n\n"
    "The paper's crystals, every observed one of the Materials Project up to 1000 Å³ (36,600 then), "
    "with your key in MP_API_KEY: diffractory catalogue build crystals.parquet --source mp\n\n"
    "Any OPTIMADE provider: diffractory catalogue build oqmd.parquet --source optimade "
    '--provider https://oqmd.org/optimade --filter \'elements HAS ONLY "Si","O"\''
)
def build(
    target: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="Catalogue to write.")],
    source: Annotated[
        Source,
        typer.Option(
            help="aflow: prototypes that come with pymatgen; cif: a folder; parquet: a catalogue; "
            "mp: the Materials Project, with the key in MP_API_KEY; optimade: any OPTIMADE provider."
        ),
    ] = Source.AFLOW,
    input_path: Annotated[
        Path | None, typer.Option("--input", metavar="PATH", help="Folder of CIF files, or Parquet file.")
    ] = None,
    chemsys: Annotated[
        str, typer.Option(metavar="Si-O,Si", help="mp only: ask for these chemical systems; all by default.")
    ] = "",
    theoretical: Annotated[
        bool, typer.Option("--theoretical", help="mp only: also crystals that were never observed.")
    ] = False,
    provider: Annotated[
        str, typer.Option(metavar="URL", help="optimade only: base URL of the provider.")
    ] = "",
    filter_text: Annotated[
        str, typer.Option("--filter", metavar="TEXT", help="optimade only: ask for what matches this filter.")
    ] = "",
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="mp and optimade: keeps what was downloaded; OUT.download by default. "
            "A download that broke off goes on from there.",
        ),
    ] = None,
    max_volume: Annotated[
        float, typer.Option(help="Largest volume of the conventional cell, in Å³.")
    ] = MAX_VOLUME,
    elements: Annotated[str, typer.Option(metavar="Si,O", help="Only crystals of these elements.")] = "",
    exclude_elements: Annotated[
        str, typer.Option(metavar="H,U", help="No crystals with any of these elements.")
    ] = "",
    systems: Annotated[
        str, typer.Option(metavar="cubic,...", help=f"Only these of {', '.join(CRYSTAL_SYSTEMS)}.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option(help="Draw so many; every crystal system keeps its share.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of that draw.")] = 0,
    symprec: Annotated[float, typer.Option(help="Symmetry tolerance, in Å.")] = SYMPREC,
    keep_setting: Annotated[
        bool, typer.Option("--keep-setting", help="Keep cells as given, not conventional standard cells.")
    ] = False,
    trust_symmetry: Annotated[
        bool,
        typer.Option(
            "--trust-symmetry",
            help="Parquet only: keep cells and space groups as given instead of determining them (faster).",
        ),
    ] = False,
    dropped: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write all dropped entries with their reasons.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Build a catalogue: filter, determine symmetry, drop duplicates, say what was dropped and why."""
    filters = CatalogueFilter(
        max_volume=max_volume,
        elements=_names(elements),
        exclude_elements=_names(exclude_elements),
        systems=_names(systems),
        limit=limit,
        seed=seed,
        symprec=symprec,
        keep_setting=keep_setting,
        trust_symmetry=trust_symmetry,
    )
    _check_options(source, input_path, trust_symmetry)
    _check_remote_options(source, chemsys or theoretical, provider, filter_text, cache)
    _check_targets(target, dropped, input_path)
    if source in _REMOTE:
        place = cache or target.with_suffix(".download")
        check_output_folder(place)
        if source is Source.MP:
            candidates, total = _open_mp(MaterialsProjectQuery(tuple(_names(chemsys)), theoretical), place)
        else:
            candidates, total = _open_optimade(OptimadeQuery(provider, filter_text.strip()), place)
    else:
        candidates, total = _open_source(source, input_path)
    result = _build_with_bar(candidates, total, filters)
    result.catalogue.to_parquet(target)
    if dropped is not None:
        write_atomic(dropped, _as_csv(result.dropped))
    if as_json:
        print_json(_build_summary(result, target))
        return
    _print_build(result, target, trust_symmetry)


@app.command(epilog="Example: diffractory catalogue show crystals.parquet --figure crystals.png")
def show(
    catalogue: Annotated[Path, typer.Argument(metavar="CATALOGUE", help="Catalogue to read.")],
    figure: Annotated[Path | None, typer.Option(metavar="PNG", help="Draw the counts to this file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Count the crystals of a catalogue by crystal system and space group, and draw the counts."""
    if figure is not None:
        check_output_file(figure)
    loaded = Catalogue.from_parquet(catalogue)
    if figure is not None:
        save_figure(figure_of_counts(loaded.counts()), figure)
    if as_json:
        print_json({**_summary(loaded, catalogue), "figure": figure})
        return
    out.print(_counts_table(loaded))
    out.print(f"{catalogue}: {len(loaded):,} crystals, content {loaded.content_hash[:16]}")
    if figure is not None:
        out.print(f"figure: {figure}")


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def _check_options(source: Source, input_path: Path | None, trust_symmetry: bool) -> None:
    without_input = (Source.AFLOW, *_REMOTE)
    if source in without_input and input_path is not None:
        raise CatalogueError(
            f"--input {input_path} is not used by the source {source.value}",
            "its prototypes come with pymatgen" if source is Source.AFLOW else "it is downloaded",
            "Add --source cif or --source parquet, or leave --input out",
        )
    if source not in without_input and input_path is None:
        what = "a folder of CIF files" if source is Source.CIF else "a catalogue"
        raise CatalogueError(f"--source {source.value} needs --input", fix=f"Name {what} with --input PATH")
    if trust_symmetry and source is not Source.PARQUET:
        raise CatalogueError(
            f"--trust-symmetry does not go with --source {source.value}",
            "only a catalogue states the symmetry of its cells",
            "Leave it out",
        )


def _check_remote_options(
    source: Source, of_mp: str | bool, provider: str, filter_text: str, cache: Path | None
) -> None:
    given = {
        "--chemsys or --theoretical": (of_mp, (Source.MP,)),
        "--provider": (provider, (Source.OPTIMADE,)),
        "--filter": (filter_text, (Source.OPTIMADE,)),
        "--cache": (cache, _REMOTE),
    }
    for option, (value, sources) in given.items():
        if value and source not in sources:
            raise CatalogueError(
                f"{option} does not go with --source {source.value}",
                fix="Add " + " or ".join(f"--source {one.value}" for one in sources) + ", or leave it out",
            )
    if source is Source.OPTIMADE and not provider:
        raise CatalogueError(
            "--source optimade needs --provider",
            fix="Name a base URL; https://www.optimade.org/providers-dashboard lists them",
        )


def _check_targets(target: Path, dropped: Path | None, source: Path | None) -> None:
    """Refuse outputs that would be written over each other or over an input."""
    for path in (target, dropped):
        if path is not None:
            check_output_file(path)
    if target.suffix.lower() != ".parquet":
        # Whoever names a CIF here means an input; it must not be overwritten.
        raise CatalogueError(
            f"{target} is no name for a catalogue",
            "catalogues are Parquet files",
            "Name a file that ends in .parquet; structures are read with --source cif --input PATH",
        )
    if dropped is not None and dropped.resolve() == target.resolve():
        raise CatalogueError(
            f"--dropped {dropped} is the catalogue itself", fix="Name another file, such as dropped.csv"
        )
    for path in (target, dropped):
        # A new file in a folder of CIF files is nobody's input; one that is there may be.
        if path is not None and source is not None and path.exists():
            read, written = source.resolve(), path.resolve()
            if written == read or written.is_relative_to(read):
                raise CatalogueError(
                    f"{path} is read as input", "inputs are never written over", "Name another file"
                )


def _open_source(source: Source, input_path: Path | None) -> tuple[Iterator[Candidate], int]:
    """Return the candidates and their number (for CIF: of files, which can hold several)."""
    if input_path is None:
        prototypes = read_prototypes()
        return aflow_candidates(prototypes), len(prototypes)
    if source is Source.CIF:
        return cif_candidates(input_path), len(cif_files(input_path))
    catalogue = Catalogue.from_parquet(input_path)
    return parquet_candidates(catalogue), len(catalogue)


def _open_mp(query: MaterialsProjectQuery, cache: Path) -> tuple[Iterator[Candidate], int]:
    download = materials_project_download(query, cache)
    total = _complete_with_bar(download)
    return materials_project_candidates(download, query), total


def _open_optimade(query: OptimadeQuery, cache: Path) -> tuple[Iterator[Candidate], int]:
    download = optimade_download(query, cache)
    total = _complete_with_bar(download)
    return optimade_candidates(download, query), total


def _complete_with_bar(download: Download) -> int:
    with counting_bar("structures downloaded") as bar:
        task = bar.add_task("download", total=None)
        total = download.complete(lambda count, of: bar.update(task, completed=count, total=of))
    note(f"{total:,} structures downloaded, kept in {download.folder}; remove it to download them anew")
    return total


def _build_with_bar(candidates: Iterator[Candidate], total: int, filters: CatalogueFilter) -> BuildResult:
    with counting_bar("crystals", transient=True) as bar:
        task = bar.add_task("crystals", total=total)

        def advance(number: int) -> None:
            bar.update(task, completed=number)

        return build_catalogue(candidates, filters, on_progress=advance)


def _as_csv(dropped: tuple[Dropped, ...]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["material_id", "reason", "detail"])
    writer.writerows([item.material_id, item.reason, item.detail] for item in dropped)
    return stream.getvalue()


def _summary(catalogue: Catalogue, path: Path) -> dict[str, Any]:
    counts = catalogue.counts()
    by_system = counts.groupby("crystal_system")["n_crystals"].sum()
    return {
        "path": path,
        "n_crystals": len(catalogue),
        "content_hash": catalogue.content_hash,
        "crystal_systems": {system: int(by_system.get(system, 0)) for system in CRYSTAL_SYSTEMS},
        "space_groups": {
            str(group): int(count)
            for group, count in zip(counts["space_group"], counts["n_crystals"], strict=True)
        },
    }


def _build_summary(result: BuildResult, path: Path) -> dict[str, Any]:
    return {
        **_summary(result.catalogue, path),
        "n_dropped": len(result.dropped),
        "dropped": result.counts_by_reason(),
    }


def _print_build(result: BuildResult, path: Path, trust_symmetry: bool) -> None:
    if result.dropped:
        out.print(_dropped_table(result))
    if trust_symmetry:
        note("Symmetry: cells and space groups kept as the input states them, not determined anew.")
    catalogue = result.catalogue
    out.print(
        f"{path}: {len(catalogue):,} crystals, {len(result.dropped):,} dropped, "
        f"content {catalogue.content_hash[:16]}",
    )


def _dropped_table(result: BuildResult) -> Table:
    table = Table(title="dropped", title_justify="left")
    table.add_column("reason")
    table.add_column("crystals", justify="right")
    table.add_column("first examples", overflow="fold")
    for reason, count in result.counts_by_reason().items():
        examples = [item for item in result.dropped if item.reason == reason][:_N_EXAMPLES]
        lines = [f"{item.material_id}: {item.detail}" for item in examples]
        table.add_row(reason, f"{count:,}", "\n".join(lines))
    return table


def _counts_table(catalogue: Catalogue) -> Table:
    table = Table(title="crystals by crystal system and space group", title_justify="left")
    table.add_column("crystal system")
    table.add_column("crystals", justify="right")
    table.add_column("", no_wrap=True)
    table.add_column("space groups (number of crystals)")
    counts = catalogue.counts()
    most = counts.groupby("crystal_system")["n_crystals"].sum().max()
    for system in CRYSTAL_SYSTEMS:
        own = counts[counts["crystal_system"] == system].sort_values("n_crystals", ascending=False)
        groups = ", ".join(
            f"{_symbol(int(group))} ({count})"
            for group, count in zip(own["space_group"], own["n_crystals"], strict=True)
        )
        total = int(own["n_crystals"].sum())
        bar = Text("█" * max(round(_BAR_WIDTH * total / most), min(total, 1)), style=SYSTEM_COLOURS[system])
        table.add_row(system, f"{total:,}", bar, groups)
    return table


def _symbol(group: int) -> str:
    """Return the short Hermann-Mauguin symbol of a space group."""
    symbol = str(sg_symbol_from_int_number(group))
    # pymatgen gives monoclinic groups in full: P12_1/c1 is P2_1/c.
    return re.sub(r"^([A-Z])1(.+)1$", r"\1\2", symbol) if 3 <= group <= 15 else symbol
