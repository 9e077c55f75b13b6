"""The OPTIMADE source against the reference server, and against servers that misbehave."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Structure

from cli_runs import refused, succeeds
from diffractory.crystals.catalogue import Catalogue
from diffractory.crystals.sources import Candidate
from diffractory.crystals.sources.optimade import OptimadeQuery, optimade_candidates, optimade_download
from diffractory.crystals.sources.retrying_session import PatientRetry, RetryingSession
from loopback import (
    Asked,
    Said,
    StandIn,
    embedded_structures,
    free_port,
    reference_optimade_server,
    stand_in,
)

N_STRUCTURES = 70
META = {"api_version": "1.2.0", "provider": {"prefix": "loop", "name": "Loopback"}, "data_returned": 6}
CATIONS = ("Cs", "Rb", "K", "Na", "Li", "Ag")
SALT: dict[str, Any] = {
    "lattice_vectors": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]],
    "cartesian_site_positions": [[0, 0, 0], [2.0, 2.0, 2.0]],
    "species": [
        {"name": "Cs", "chemical_symbols": ["Cs"], "concentration": [1.0]},
        {"name": "Cl1", "chemical_symbols": ["Cl"], "concentration": [1.0]},
    ],
    "species_at_sites": ["Cs", "Cl1"],
    "elements": ["Cl", "Cs"],
    "dimension_types": [1, 1, 1],
    "structure_features": [],
}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryingSession, "pause", 0.0)


@pytest.fixture(scope="module")
def structures() -> dict[str, Structure]:
    return embedded_structures(N_STRUCTURES)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, structures: dict[str, Structure]) -> Iterator[str]:
    with reference_optimade_server(tmp_path_factory.mktemp("server"), structures) as url:
        yield url


def _entry(number: int, **attributes: Any) -> dict[str, Any]:
    # Another cation for each: scaled cells alone would be duplicates.
    salt = json.loads(json.dumps(SALT).replace("Cs", CATIONS[number]))
    return {"id": f"{number}", "type": "structures", "attributes": {**salt, **attributes}}


class Paged:
    """Answers three pages of two salts; single answers can be replaced."""

    def __init__(self, **instead: Said) -> None:
        self.instead = instead
        self.info: Any = {}

    def __call__(self, asked: Asked, url: str) -> Said:
        if asked.path == "/v1/info":
            return Said({"data": {"attributes": self.info}, "meta": META})
        offset = int(asked.query.get("page_offset", 0))
        if f"page{offset}" in self.instead:
            return self.instead[f"page{offset}"]
        following = f"{url}/v1/structures?page_offset={offset + 2}" if offset < 4 else None
        data = [_entry(offset), _entry(offset + 1)]
        return Said({"data": data, "meta": META, "links": {"next": following}})


def _build(target: Path, url: str, *options: str) -> tuple[object, ...]:
    return ("catalogue", "build", target, "--source", "optimade", "--provider", url, *options)


def _offsets(server: StandIn) -> list[str]:
    return [asked.query.get("page_offset", "0") for asked in server.asked if asked.path != "/v1/info"]


def test_every_structure_of_the_reference_server_arrives(
    server: str, structures: dict[str, Structure], tmp_path: Path
) -> None:
    query = OptimadeQuery(server)
    download = optimade_download(query, tmp_path)
    assert download.complete() == N_STRUCTURES
    # The server's own page limit is 50: asked for 100 it refuses, and its pages of 20 are taken.
    assert len(list(download.folder.iterdir())) == 4
    found = {one.material_id: one for one in optimade_candidates(download, query)}
    assert set(found) == {f"loop-{name}" for name in structures}
    for name, expected in structures.items():
        candidate = found[f"loop-{name}"]
        assert candidate.structure is not None
        assert candidate.problem is None
        assert [s.specie.symbol for s in candidate.structure] == [s.specie.symbol for s in expected]
        assert np.allclose(candidate.structure.lattice.matrix, expected.lattice.matrix, atol=1e-9)
        assert np.allclose(candidate.structure.frac_coords, expected.frac_coords, atol=1e-9)


def test_one_command_builds_a_catalogue_with_its_provenance(server: str, tmp_path: Path) -> None:
    target = tmp_path / "c.parquet"
    filters = 'elements HAS "O" AND nelements=2'
    answer = succeeds(*_build(target, f"{server}/v1/", "--filter", filters, "--systems", "cubic"))
    catalogue = Catalogue.from_parquet(target)
    assert len(catalogue) > 0
    assert all("O" in species and len(set(species)) == 2 for species in catalogue.table["species"])
    assert "crystal system filter" in answer.stdout
    (source,) = set(catalogue.table["source"])
    for part in ("loop (Loopback) by OPTIMADE 1.2", server, filters, "retrieved 20", "with optimade 1."):
        assert part in source
    assert set(catalogue.table["licence"]) == {f"unknown (ask the provider, {server})"}
    assert (tmp_path / "c.download").is_dir()


def test_a_finished_download_needs_no_network(tmp_path: Path) -> None:
    target, cache = tmp_path / "c.parquet", tmp_path / "kept"
    with stand_in(Paged()) as server:
        succeeds(*_build(target, server.url, "--cache", str(cache)))
    succeeds(*_build(tmp_path / "again.parquet", server.url, "--cache", str(cache)))
    assert Catalogue.from_parquet(target).content_hash == (
        Catalogue.from_parquet(tmp_path / "again.parquet").content_hash
    )


def test_throttling_is_waited_out(tmp_path: Path) -> None:
    pages, refusals = Paged(), [Said("slow down", 429, {"Retry-After": "0"}), Said("busy", 503)]

    def answer(asked: Asked, url: str) -> Said:
        throttled = asked.query.get("page_offset") == "2" and refusals
        return refusals.pop() if throttled else pages(asked, url)

    with stand_in(answer) as server:
        succeeds(*_build(tmp_path / "c.parquet", server.url))
    assert _offsets(server) == ["0", "2", "2", "2", "4"]
    assert len(Catalogue.from_parquet(tmp_path / "c.parquet")) == 6


def test_a_server_cannot_make_us_wait_for_hours() -> None:
    class Response:
        headers = {"Retry-After": "36000"}  # noqa: RUF012

    assert PatientRetry().get_retry_after(Response()) == PatientRetry.longest_pause


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (Said("slow down", 429), "too many 429 error responses"),
        (Said("broken", 500), "too many 500 error responses"),
        (Said({"errors": [{"title": "Forbidden", "detail": "members only"}]}, 403), "members only"),
        (Said("<html>maintenance</html>"), "maintenance"),
        (Said([1, 2]), "AttributeError"),
        (Said({"data": ["x"], "meta": META}), "not a list of structures"),
        (Said({"data": None, "meta": META}), "TypeError"),
        (Said({"data": [_entry(0), _entry(1)], "meta": META}), "entries of page 1 again"),
        (Said({"data": [_entry(2)], "meta": META}), "stopped after 3 of 6"),
        (Said({"data": [_entry(2)], "meta": META, "links": {"next": "ftp://x/y"}}), "next page is at ftp:"),
    ],
    ids=["429", "500", "403", "HTML", "list", "no entries", "null", "repeated", "half", "other protocol"],
)
def test_a_provider_that_fails_is_reported_and_what_came_is_kept(
    tmp_path: Path, bad: Said, says: str
) -> None:
    pages = Paged(page2=bad)
    target = tmp_path / "c.parquet"
    with stand_in(pages) as server:
        answer = refused(
            *_build(target, server.url, "--cache", str(tmp_path / "kept")),
            untouched=Path(__file__).parent,
            says=(says, "run the same command again", "entries are kept in"),
        )
        assert "Traceback" not in answer.stderr
        assert not target.exists()
        pages.instead.clear()
        before = len(server.asked)
        succeeds(*_build(target, server.url, "--cache", str(tmp_path / "kept")))
    assert "0" not in _offsets(server)[before - 1 :]
    assert len(Catalogue.from_parquet(target)) == 6


def test_a_network_that_is_down_is_one_message(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    refused(*_build(tmp_path / "c.parquet", url), untouched=tmp_path, says=("Connection refused", url))


def test_killed_in_the_middle_it_goes_on_where_it_was(tmp_path: Path) -> None:
    pages, target = Paged(), tmp_path / "c.parquet"
    stalled = True

    def answer(asked: Asked, url: str) -> Said:
        while stalled and asked.query.get("page_offset") == "4":
            time.sleep(0.05)
        return pages(asked, url)

    with stand_in(answer) as server:
        command = [str(part) for part in _build(target, server.url)]
        program = "from diffractory.cli.app import main; main()"
        process = subprocess.Popen([sys.executable, "-c", program, *command], stderr=subprocess.DEVNULL)
        while "4" not in _offsets(server):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not target.exists()
        stalled = False
        succeeds(*_build(target, server.url))
    assert _offsets(server) == ["0", "2", "4", "4"]
    assert len(Catalogue.from_parquet(target)) == 6


def _one(tmp_path: Path, **attributes: Any) -> Candidate:
    entry = _entry(0, **attributes)
    page = Said({"data": [entry], "meta": {**META, "data_returned": 1}})
    with stand_in(Paged(page0=page)) as server:
        query = OptimadeQuery(server.url)
        download = optimade_download(query, tmp_path)
        download.complete()
        (candidate,) = optimade_candidates(download, query)
    return candidate


def test_a_salt_is_read(tmp_path: Path) -> None:
    candidate = _one(tmp_path)
    assert candidate.structure is not None
    assert candidate.structure.composition.reduced_formula == "CsCl"
    assert candidate.material_id == "loop-0"


def _chloride(symbols: list[str], concentration: list[float]) -> dict[str, Any]:
    one = {"name": "Cl1", "chemical_symbols": symbols, "concentration": concentration}
    return {"species": [SALT["species"][0], one]}


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"structure_features": ["disorder"]}, "partial occupancy"),
        ({"structure_features": ["assemblies", "disorder"]}, "partial occupancy"),
        ({"structure_features": ["implicit_atoms"]}, "missing atoms"),
        ({"structure_features": ["unknown_positions"]}, "missing atoms"),
        ({"elements": ["Cl", "Cs", "H"]}, "missing atoms"),
        ({"site_coordinate_span": "asymmetric_unit"}, "missing atoms"),
        ({"dimension_types": [1, 1, 0]}, "unusable cell"),
        (_chloride(["X"], [1.0]), "unsupported element"),
        ({"lattice_vectors": None}, "unreadable"),
        ({"species_at_sites": ["Cs"]}, "unreadable"),
        ({"species_at_sites": ["Cs", "other"]}, "unreadable"),
        ({"species": "none"}, "unreadable"),
    ],
)
def test_what_is_no_crystal_has_a_reason(tmp_path: Path, attributes: dict[str, Any], reason: str) -> None:
    candidate = _one(tmp_path, **attributes)
    assert candidate.structure is None
    assert candidate.problem is not None
    assert candidate.problem.reason == reason
    assert candidate.problem.detail


@pytest.mark.parametrize(
    "chloride", [_chloride(["Cl", "vacancy"], [0.5, 0.5]), _chloride(["Cl", "Br"], [0.5, 0.5])]
)
def test_partly_filled_sites_are_dropped_with_the_reason(tmp_path: Path, chloride: dict[str, Any]) -> None:
    full, half = _entry(0), {**_entry(0, **chloride), "id": "half"}
    page = Said({"data": [full, half], "meta": {**META, "data_returned": 2}})
    with stand_in(Paged(page0=page)) as server:
        answer = succeeds(*_build(tmp_path / "c.parquet", server.url, "--json"))
    assert answer.json["n_crystals"] == 1
    assert answer.json["dropped"] == {"partial occupancy": 1}


@pytest.mark.parametrize(
    ("info", "licence"),
    [
        ({"available_licenses_for_entries": ["CC0-1.0"], "license": {"href": "http://x"}}, "CC0-1.0"),
        ({"available_licenses": ["CC-BY-4.0", "CC0-1.0"]}, "CC-BY-4.0, CC0-1.0"),
        ({"license": {"href": "http://licence"}}, "http://licence"),
        ({"license": "http://licence"}, "http://licence"),
        ({"license": None}, "unknown (ask the provider, {url})"),
        ("nonsense", "unknown (ask the provider, {url})"),
    ],
)
def test_the_licence_is_kept_where_the_provider_states_one(tmp_path: Path, info: Any, licence: str) -> None:
    pages = Paged()
    pages.info = info
    with stand_in(pages) as server:
        succeeds(*_build(tmp_path / "c.parquet", server.url))
    found = set(Catalogue.from_parquet(tmp_path / "c.parquet").table["licence"])
    assert found == {licence.format(url=server.url)}


@pytest.mark.parametrize(("version", "asked"), [("1.2.0", False), ("1.3.0", True), (None, False)])
def test_what_the_sites_span_is_asked_of_servers_that_know_it(
    tmp_path: Path, version: str | None, asked: bool
) -> None:
    pages = Paged()
    pages.info = {"api_version": version}
    with stand_in(pages) as server:
        succeeds(*_build(tmp_path / "c.parquet", server.url))
    (fields,) = {one.query["response_fields"] for one in server.asked if "response_fields" in one.query}
    assert ("site_coordinate_span" in fields) == asked


def test_a_provider_that_counts_pages_instead_of_matches_is_read(tmp_path: Path) -> None:
    pages = Paged()

    def answer(asked: Asked, url: str) -> Said:
        said = pages(asked, url)
        if isinstance(said.body["data"], list):
            last = asked.query.get("page_offset") == "4"
            said.body["data"] = said.body["data"][: 1 if last else 2]
            said.body["meta"] = {**META, "data_returned": len(said.body["data"])}
        return said

    with stand_in(answer) as server:
        succeeds(*_build(tmp_path / "c.parquet", server.url))
    assert len(Catalogue.from_parquet(tmp_path / "c.parquet")) == 5


def test_links_may_be_objects_or_relative(tmp_path: Path) -> None:
    data = [_entry(0), _entry(1)]
    link = {"href": "/v1/structures?page_offset=2"}
    with stand_in(Paged(page0=Said({"data": data, "meta": META, "links": {"next": link}}))) as server:
        succeeds(*_build(tmp_path / "c.parquet", server.url))
    assert len(Catalogue.from_parquet(tmp_path / "c.parquet")) == 6


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--source", "optimade"), "--source optimade needs --provider"),
        (("--source", "optimade", "--provider", "cod"), "'cod' is no address"),
        (("--source", "optimade", "--provider", "http://x", "--filter", "Si and"), "no OPTIMADE filter"),
        (("--source", "optimade", "--provider", "http://x", "--input", "x"), "it is downloaded"),
        (("--source", "optimade", "--provider", "http://x", "--chemsys", "Si"), "Add --source mp"),
        (("--provider", "http://x"), "--provider does not go with --source aflow"),
        (("--source", "mp", "--filter", "x"), "--filter does not go with --source mp"),
        (("--cache", "x"), "Add --source mp or --source optimade"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    refused("catalogue", "build", tmp_path / "c.parquet", *arguments, untouched=tmp_path, says=(says,))


def test_without_the_extra_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optimade.client", None)
    refused(
        *_build(tmp_path / "c.parquet", "http://x"),
        untouched=tmp_path,
        says=('pip install "diffractory[optimade]"',),
    )
