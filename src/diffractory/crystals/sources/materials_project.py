"""The Materials Project through its own client, mp-api."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pymatgen.core import Structure

from diffractory.crystals.sources import Candidate
from diffractory.crystals.sources.download import (
    Download,
    Page,
    candidates_of,
    client_name,
    one_line,
    optional_client,
    today,
)
from diffractory.errors import CatalogueError

#: Name of the environment variables, as the client names them.
KEY_VARIABLE: Final = "MP_API_KEY"
ENDPOINT_VARIABLE: Final = "MP_API_ENDPOINT"
_ENDPOINT: Final = "https://api.materialsproject.org/"

#: Structures of one request: the client's own default, and the most the server gives.
CHUNK_SIZE: Final = 1000
_FIELDS: Final = ["material_id", "structure", "builder_meta.license"]
_LICENCES: Final = {"BY-C": "CC BY 4.0", "BY-NC": "CC BY-NC 4.0"}
_LICENCE: Final = "CC BY 4.0 (Materials Project; cite doi:10.1063/1.4812323)"


@dataclass(frozen=True)
class MaterialsProjectQuery:
    """Which materials are asked for; deprecated ones never are.

    Parameters
    ----------
    chemical_systems : tuple of str
        Such as ``("Si-O", "Si")``; empty = all.
    theoretical : bool
        Also materials that were computed but never observed.
    """

    chemical_systems: tuple[str, ...] = ()
    theoretical: bool = False

    @property
    def criteria(self) -> dict[str, Any]:
        """The query in the words of ``MPRester.materials.summary.search``."""
        # One criterion is always there: without any, the client copies the whole database from
        # Amazon S3 (some GB) instead of asking the Materials Project.
        criteria: dict[str, Any] = {"deprecated": False}
        if not self.theoretical:
            criteria["theoretical"] = False
        if self.chemical_systems:
            criteria["chemsys"] = sorted(self.chemical_systems)
        return criteria

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.criteria.items())


def materials_project_download(query: MaterialsProjectQuery, cache: Path) -> Download:
    """Return the download of a query; nothing is asked before it is completed.

    Parameters
    ----------
    query : MaterialsProjectQuery
    cache : Path
        Folder of all downloads.
    """
    endpoint = os.environ.get(ENDPOINT_VARIABLE) or _ENDPOINT
    return Download(cache, "mp", _request(endpoint, query, 1), _Asker(endpoint, query))


def materials_project_candidates(download: Download, query: MaterialsProjectQuery) -> Iterator[Candidate]:
    """Yield the materials of a complete download.

    Parameters
    ----------
    download : Download
        Result of :func:`materials_project_download`, complete.
    query : MaterialsProjectQuery
        What was asked; kept with every crystal.

    Returns
    -------
    iterator of Candidate
        ``material_id`` is that of the Materials Project. Symmetry is determined anew.

    Raises
    ------
    CatalogueError
        As :meth:`Download.pages`.
    """
    return candidates_of(
        download,
        query,
        lambda _, entry: str(entry.get("material_id") or ""),
        lambda entry: Structure.from_dict(entry["structure"]),
        _licence,
    )


def _licence(page: Page, entry: dict[str, Any]) -> str:
    stated = entry.get("builder_meta")
    code = stated.get("license") if isinstance(stated, dict) else None
    name = _LICENCES.get(str(code))
    return page.licence if name is None else page.licence.replace("CC BY 4.0", name)


def _request(endpoint: str, query: MaterialsProjectQuery, number: int) -> str:
    return json.dumps({"endpoint": endpoint, **query.criteria, "page": number}, sort_keys=True)


@dataclass
class _Asker:
    """Asks for one page; connects when the first is needed, for a complete download never does."""

    endpoint: str
    query: MaterialsProjectQuery
    _rester: Any = field(default=None, init=False)
    _key: str = field(default="", init=False, repr=False)

    def __call__(self, request: str, first: Page | None) -> Page:
        if self._rester is None:
            self._key = _key_of_environment()
            optional_client("mp", "mp-api", "mp_api.client")
        number = int(json.loads(request)["page"])
        try:
            with warnings.catch_warnings():
                # The client warns about its own versions and a silent heartbeat; what matters raises.
                warnings.simplefilter("ignore")
                return self._page(request, number, first)
        except Exception as error:  # the client raises its own errors and those of five libraries
            raise self._failure(error) from None

    def _page(self, request: str, number: int, first: Page | None) -> Page:
        summary, database = self._connected()
        criteria = self.query.criteria
        total = first.total if first is not None else None
        if total is None:
            joined = {name: ",".join(v) if isinstance(v, list) else v for name, v in criteria.items()}
            total = int(summary.count({**joined, "_fields": "material_id", "_limit": 1}))
        entries = summary.search(
            **criteria,
            fields=_FIELDS,
            all_fields=False,
            chunk_size=CHUNK_SIZE,
            num_chunks=1,
            _page=number,
            _sort_fields="material_id",
        )
        if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
            raise TypeError("the answer is not a list of materials")
        last = number * CHUNK_SIZE >= total
        return Page(
            request=request,
            entries=entries,
            next_request=None if last else _request(self.endpoint, self.query, number + 1),
            total=total,
            database=database,
            licence=_LICENCE,
            client=client_name("mp-api"),
            retrieved=today(),
        )

    def _connected(self) -> tuple[Any, str]:
        if self._rester is None:
            from mp_api.client import MPRester

            from diffractory.crystals.sources.retrying_session import RetryingSession

            self._rester = MPRester(
                api_key=self._key,
                endpoint=self.endpoint,
                use_document_model=False,
                mute_progress_bars=True,
                session=RetryingSession(),
            )
        return self._rester.materials.summary, f"Materials Project {self._rester.db_version}".strip()

    def _failure(self, error: Exception) -> CatalogueError:
        said = one_line(f"{type(error).__name__}: {error}").replace(self._key, "(the key)")
        if re.search(r"status code 40[13]\b", said):
            return CatalogueError(
                f"the Materials Project does not accept the key in {KEY_VARIABLE}",
                said,
                "Copy the key again from https://materialsproject.org/api",
            )
        return CatalogueError(
            f"the Materials Project at {self.endpoint} gave no usable answer",
            said,
            "Check the network and https://status.materialsproject.org",
        )


def _key_of_environment() -> str:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    fix = f"Get a key at https://materialsproject.org/api and set it: export {KEY_VARIABLE}=…"
    if not key:
        raise CatalogueError(f"{KEY_VARIABLE} is not set", "the Materials Project asks for a key", fix)
    if not re.fullmatch(r"[A-Za-z0-9]{32}", key):
        # Checked here: a line break or a sign in it would come back in the text of an HTTP error.
        raise CatalogueError(f"{KEY_VARIABLE} holds no key", "a key is 32 letters and digits", fix)
    return key
