"""The Materials Project source: the real client against a stand-in on the loopback interface."""

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from cli_runs import Answer, diffractory, refused, succeeds
from diffractory.crystals.catalogue import Catalogue
from diffractory.crystals.sources import materials_project
from diffractory.crystals.sources.download import optional_client
from diffractory.crystals.sources.materials_project import MaterialsProjectQuery
from diffractory.crystals.sources.retrying_session import RetryingSession
from loopback import KEY, Asked, Said, StandIn, free_port, stand_in
from materials_project import UNAUTHORIZED, MaterialsProject

#: Ids and structures; those whose id ends in t were never observed.
SALTS = {
    f"mp-{number}{'t' if cation in ('Li', 'Ag') else ''}": Structure(
        Lattice(2.8 * (1 - np.eye(3))), [cation, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    for number, cation in enumerate(("Na", "K", "Rb", "Cs", "Tl", "Li", "Ag"))
}
N_OBSERVED = 5


@pytest.fixture(scope="module", autouse=True)
def _schema_once() -> Iterator[None]:
    """The client derives the names of all fields anew, three times a page; once is enough here."""
    optional_client("mp", "mp-api", "mp_api.client")
    from mp_api.client.core.client import BaseRester

    names = cache(BaseRester.available_fields.fget)  # its document model is the type's
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseRester, "available_fields", property(lambda self: names(type(self))))
        yield


@pytest.fixture(autouse=True)
def _small_pages_and_no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryingSession, "pause", 0.0)
    monkeypatch.setattr(materials_project, "CHUNK_SIZE", 2)
    monkeypatch.setenv("MP_API_KEY", KEY)
    monkeypatch.setenv("MP_API_ENDPOINT", f"http://127.0.0.1:{free_port()}")


@pytest.fixture
def project() -> MaterialsProject:
    return MaterialsProject(dict(SALTS))


@pytest.fixture
def server(project: MaterialsProject, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with stand_in(project) as running:
        monkeypatch.setenv("MP_API_ENDPOINT", running.url)
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """Where to write; afterwards the key must be in no file."""
    yield tmp_path / "c.parquet"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def _build(target: Path, *options: str) -> tuple[object, ...]:
    return ("catalogue", "build", target, "--source", "mp", *options)


def _without_key(answer: Answer) -> Answer:
    assert KEY not in answer.stdout + answer.stderr
    return answer


def _pages(server: StandIn) -> list[str]:
    return [asked.query["_page"] for asked in server.asked if "_page" in asked.query]


def test_one_command_gets_every_observed_material(server: StandIn, target: Path) -> None:
    _without_key(succeeds(*_build(target)))
    catalogue = Catalogue.from_parquet(target)
    assert catalogue.ids == [f"mp-{number}" for number in range(N_OBSERVED)]
    assert set(catalogue.table["space_group"]) == {225}
    (source,) = set(catalogue.table["source"])
    for part in ("Materials Project 2026.02.01", "theoretical=False", "retrieved 20", "with mp-api 0."):
        assert part in source
    assert set(catalogue.table["licence"]) == {"CC BY 4.0 (Materials Project; cite doi:10.1063/1.4812323)"}
    assert _pages(server) == ["1", "2", "3"]
    asked = [one.query for one in server.asked if "_page" in one.query]
    assert {one["_fields"] for one in asked} == {"material_id,structure,builder_meta.license"}
    assert {one["_per_page"] for one in asked} == {"2"}


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (("--theoretical",), list(SALTS)),
        (("--chemsys", "Cl-K,Cl-Na"), ["mp-0", "mp-1"]),
        (("--chemsys", "Ag-Cl", "--theoretical"), ["mp-6t"]),
    ],
)
def test_the_query_can_be_wider_or_narrower(
    server: StandIn, target: Path, options: tuple[str, ...], ids: list[str]
) -> None:
    succeeds(*_build(target, *options))
    assert Catalogue.from_parquet(target).ids == ids
    # Without any criterion the client would copy the whole database from Amazon S3.
    assert all(asked.query.get("deprecated") == "False" for asked in server.asked if asked.key)


def test_every_query_has_a_criterion() -> None:
    assert MaterialsProjectQuery(theoretical=True).criteria == {"deprecated": False}


def test_licences_that_entries_state_are_kept(
    project: MaterialsProject, server: StandIn, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = project.page

    def page(query: dict[str, str]) -> dict[str, Any]:
        answer = original(query)
        for document in answer["data"]:
            document["builder_meta"] = {"mp-0": {"license": "BY-NC"}, "mp-1": None}.get(
                document["material_id"], {}
            )
        return answer

    monkeypatch.setattr(project, "page", page)
    succeeds(*_build(target))
    licences = list(Catalogue.from_parquet(target).table["licence"])
    assert licences[0].startswith("CC BY-NC 4.0 (")
    assert all(licence.startswith("CC BY 4.0 (") for licence in licences[1:])


def test_structures_that_cannot_be_simulated_are_dropped_with_the_reason(
    project: MaterialsProject, server: StandIn, target: Path
) -> None:
    project.structures["mp-7"] = Structure(
        Lattice.cubic(4), [{"Cu": 0.5, "Zn": 0.5}, "Cl"], [[0] * 3, [0.5] * 3]
    )
    answer = succeeds(*_build(target, "--max-volume", "1000", "--json"))
    assert answer.json["n_crystals"] == N_OBSERVED
    assert answer.json["dropped"] == {"partial occupancy": 1}


def test_a_structure_that_is_none_is_dropped(
    project: MaterialsProject, server: StandIn, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = project.page

    def page(query: dict[str, str]) -> dict[str, Any]:
        answer = original(query)
        for document in answer["data"]:
            if document["material_id"] == "mp-2":
                document["structure"] = {"lattice": "?"}
        return answer

    monkeypatch.setattr(project, "page", page)
    assert succeeds(*_build(target, "--json")).json["dropped"] == {"unreadable": 1}


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (None, "MP_API_KEY is not set"),
        ("", "MP_API_KEY is not set"),
        (KEY[:-1], "MP_API_KEY holds no key"),
        (KEY[:-1] + "\n" + KEY[-1], "MP_API_KEY holds no key"),
    ],
)
def test_without_a_key_nothing_is_asked(
    server: StandIn, target: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, says: str
) -> None:
    if key is None:
        monkeypatch.delenv("MP_API_KEY")
    else:
        monkeypatch.setenv("MP_API_KEY", key)
    answer = refused(*_build(target), untouched=target.parent, says=(says, "materialsproject.org/api"))
    assert not key or key not in answer.stderr
    assert server.asked == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_named_as_such_and_not_shown(
    project: MaterialsProject, server: StandIn, target: Path, status: int
) -> None:
    project.failures = [Said({"detail": f"no user has the key {KEY}"}, status)]
    answer = refused(
        *_build(target),
        untouched=target.parent,
        says=("does not accept the key in MP_API_KEY", "Copy the key again", "no user has the key (the key)"),
    )
    _without_key(answer)


def test_a_key_of_nobody(server: StandIn, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MP_API_KEY", "f" * 32)
    refused(*_build(target), untouched=target.parent, says=("does not accept the key", "Unauthorized"))
    assert UNAUTHORIZED["message"] == "Unauthorized"


def test_throttling_is_waited_out(project: MaterialsProject, server: StandIn, target: Path) -> None:
    project.failures = [None, Said("slow down", 429, {"Retry-After": "0"}), Said("busy", 503)]
    _without_key(succeeds(*_build(target)))
    assert _pages(server) == ["1", "2", "2", "2", "3"]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (Said("slow down", 429), "too many 429 error responses"),
        (Said("<html>maintenance</html>"), "JSONDecodeError"),
        (Said({"detail": "the cluster is on fire"}, 418), "the cluster is on fire"),
        (Said({"meta": {}}), "KeyError"),
        (Said({"data": [1, 2], "meta": {"total_doc": 5}}), "not a list of materials"),
        (Said({"data": [], "meta": {"total_doc": 5}}), "stopped after 2 of 5"),
    ],
    ids=["429", "HTML", "418", "no data", "numbers", "empty"],
)
def test_a_failure_in_the_middle_keeps_what_came(
    project: MaterialsProject, server: StandIn, target: Path, bad: Said, says: str
) -> None:
    project.failures = [None, *[bad] * 10]
    answer = diffractory(*_build(target))
    _without_key(answer)
    assert answer.code == 2
    assert "Traceback" not in answer.stderr
    for words in (says, "2 entries are kept in", "run the same command again"):
        assert words in answer.stderr
    assert not target.exists()
    project.failures.clear()
    before = len(_pages(server))
    succeeds(*_build(target))
    assert _pages(server)[before:] == ["2", "3"]
    assert len(Catalogue.from_parquet(target)) == N_OBSERVED


def test_a_page_that_comes_twice_is_noticed(
    project: MaterialsProject, server: StandIn, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = project.page
    monkeypatch.setattr(project, "page", lambda query: original({**query, "_page": "1"}))
    answer = diffractory(*_build(target))
    assert answer.code == 2
    assert "page 2 of Materials Project 2026.02.01 holds the entries of page 1 again" in answer.stderr


def test_a_network_that_is_down_is_one_message(target: Path) -> None:
    answer = refused(
        *_build(target),
        untouched=target.parent,
        says=("gave no usable answer", "Connection refused", "status.materialsproject.org"),
    )
    _without_key(answer)


def test_a_finished_download_needs_neither_network_nor_key(
    server: StandIn, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeeds(*_build(target))
    asked = len(server.asked)
    monkeypatch.delenv("MP_API_KEY")
    monkeypatch.setitem(sys.modules, "mp_api.client", None)
    again = target.with_name("again.parquet")
    succeeds(*_build(again, "--cache", str(target.with_suffix(".download")), "--limit", "3"))
    assert len(Catalogue.from_parquet(again)) == 3
    assert len(server.asked) == asked


def test_a_heartbeat_that_is_refused_costs_only_the_version(
    project: MaterialsProject, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(asked: Asked, url: str) -> Said:
        return Said("no", 403) if asked.path == "/heartbeat" else project(asked, url)

    with stand_in(answer) as running:
        monkeypatch.setenv("MP_API_ENDPOINT", running.url)
        succeeds(*_build(target))
    assert Catalogue.from_parquet(target).table["source"][0].startswith("Materials Project, ")


def test_without_the_extra_the_error_says_what_to_install(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mp_api.client", None)
    refused(*_build(target), untouched=target.parent, says=('pip install "diffractory[mp]"',))
