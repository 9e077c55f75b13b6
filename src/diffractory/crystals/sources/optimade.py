"""Any OPTIMADE provider through the reference client, one page at a time.

References
----------
M. L. Evans et al., *Digital Discovery* **3**, 1509 (2024); https://specification.optimade.org
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urljoin

import numpy as np
from pymatgen.core import Composition, Structure

from diffractory.crystals.sources import Candidate, Problem
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

#: Entries of one page; a provider that refuses as many is asked for pages of its own size.
PAGE_LIMIT: Final = 100
_FIELDS: Final = (
    *("lattice_vectors", "cartesian_site_positions", "species", "species_at_sites"),
    *("elements", "dimension_types", "structure_features"),
)
#: Says since version 1.3 whether the sites fill the cell; older servers refuse to be asked for it.
_SPAN: Final = "site_coordinate_span"
#: Seconds to wait for a connection, and between two bytes of an answer.
_TIMEOUT: Final = 120.0
#: Features (of the specification's ``structure_features``) that mean that atoms are not all listed.
_INCOMPLETE: Final = {"implicit_atoms", "site_attachments", "unknown_positions"}


@dataclass(frozen=True)
class OptimadeQuery:
    """Which structures of which provider are asked for.

    Parameters
    ----------
    provider : str
        Base URL, with or without version: ``https://www.crystallography.net/cod/optimade/v1``.
    filter : str
        In OPTIMADE's filter language, such as ``elements HAS ALL "Si","O"``; empty = everything.
    """

    provider: str
    filter: str = ""

    @property
    def base_url(self) -> str:
        """Base URL without version."""
        return re.sub(r"(/v\d+(\.\d+)*)?/*$", "", self.provider.strip())

    def url(self, page_limit: int | None = PAGE_LIMIT, fields: Sequence[str] = _FIELDS) -> str:
        """URL of the first page."""
        parameters: dict[str, object] = {"filter": self.filter} if self.filter else {}
        parameters["response_fields"] = ",".join(fields)
        if page_limit is not None:
            parameters["page_limit"] = page_limit
        return f"{self.base_url}/v1/structures?{urlencode(parameters)}"

    def __str__(self) -> str:
        return f"{self.base_url} filter {self.filter!r}" if self.filter else self.base_url


def optimade_download(query: OptimadeQuery, cache: Path) -> Download:
    """Return the download of a query; nothing is asked before it is completed.

    Parameters
    ----------
    query : OptimadeQuery
    cache : Path
        Folder of all downloads.

    Raises
    ------
    CatalogueError
        If the provider is no URL.
    """
    if not re.match(r"https?://[^/\s]+", query.base_url):
        raise CatalogueError(
            f"{query.provider!r} is no address of an OPTIMADE provider",
            fix="Give its base URL; https://www.optimade.org/providers-dashboard lists them",
        )
    return Download(cache, "optimade", query.url(), _Asker(query))


def optimade_candidates(download: Download, query: OptimadeQuery) -> Iterator[Candidate]:
    """Yield the structures of a complete download.

    Parameters
    ----------
    download : Download
        Result of :func:`optimade_download`, complete.
    query : OptimadeQuery
        What was asked; kept with every crystal.

    Returns
    -------
    iterator of Candidate
        ``material_id`` is the provider's prefix and its id, such as ``cod-1000041``.

    Raises
    ------
    CatalogueError
        As :meth:`Download.pages`.
    """
    return candidates_of(download, query, _material_id, _structure, lambda page, _: page.licence)


def _material_id(page: Page, entry: dict[str, Any]) -> str:
    prefix = re.sub(r"\W+", "-", page.database.split(" ")[0].lower())
    given = str(entry.get("id") or "")
    return given if not given or given.startswith(f"{prefix}-") else f"{prefix}-{given}"


def _structure(entry: dict[str, Any]) -> Structure | Problem:
    given = entry["attributes"]
    return _problem_of_features(given) or _sites(given)


def _problem_of_features(given: dict[str, Any]) -> Problem | None:
    dimensions = given.get("dimension_types")
    if dimensions is not None and list(dimensions) != [1, 1, 1]:
        return Problem("unusable cell", f"it is periodic in {sum(dimensions)} of 3 directions")
    features = set(given.get("structure_features") or ())
    if features & {"disorder", "assemblies"}:
        return Problem("partial occupancy", f"it has {', '.join(sorted(features))}")
    if features & _INCOMPLETE:
        return Problem("missing atoms", f"it has {', '.join(sorted(features))}")
    span = given.get(_SPAN)
    if span not in (None, "unit_cell"):
        return Problem("missing atoms", f"its sites are those of the {span}, not of the whole cell")
    return None


def _sites(given: dict[str, Any]) -> Structure | Problem:
    species = {one["name"]: one for one in given["species"]}
    unknown = sorted(name for name, one in species.items() if "X" in one["chemical_symbols"])
    if unknown:
        return Problem("unsupported element", f"the element of {', '.join(unknown)} is not known")
    structure = Structure(
        np.asarray(given["lattice_vectors"], dtype=float),
        [_occupancy(species[name]) for name in given["species_at_sites"]],
        np.asarray(given["cartesian_site_positions"], dtype=float),
        coords_are_cartesian=True,
    )
    present = {str(element.symbol) for element in structure.composition.elements}
    missing = sorted(set(given.get("elements") or ()) - present)
    if missing:
        return Problem("missing atoms", f"it gives no positions for {', '.join(missing)} of its elements")
    return structure


def _occupancy(one: dict[str, Any]) -> Composition:
    """Return what fills a site; a vacancy fills nothing, and leaves the site partially occupied."""
    pairs = zip(one["chemical_symbols"], one["concentration"], strict=True)
    return Composition({symbol: amount for symbol, amount in pairs if symbol != "vacancy"})


@dataclass
class _Asker:
    """Asks for one page; connects when the first is needed, for a complete download never does."""

    query: OptimadeQuery
    _client: Any = field(default=None, init=False)

    def __call__(self, request: str, first: Page | None) -> Page:
        if self._client is None:
            self._client = _connected(self.query)
        info = self._info() if first is None else {}
        answer = self._first_page(info) if first is None else self._ask("structures", request)
        if not (isinstance(answer.data, list) and all(isinstance(one, dict) for one in answer.data)):
            raise self._failure("the answer is not a list of structures")
        link = answer.links.get("next")
        link = link.get("href") if isinstance(link, dict) else link
        following = urljoin(request, str(link)) if link else None
        if following is not None and not re.match(r"https?://", following):
            raise self._failure(f"it says that the next page is at {following}")
        total = answer.meta.get("data_returned")
        if following is not None and total == len(answer.data):
            total = None  # some providers count the page here, not the matches
        return Page(
            request=request,
            entries=answer.data,
            next_request=following,
            total=total if isinstance(total, int) else None,
            database=first.database if first is not None else _database(answer.meta, self.query),
            licence=first.licence if first is not None else _licence(info, self.query),
            client=client_name("optimade"),
            retrieved=today(),
        )

    def _info(self) -> dict[str, Any]:
        """Return what the provider says of itself; nothing if it answers with something else."""
        try:
            attributes = self._ask("info", f"{self.query.base_url}/v1/info").data["attributes"]
        except CatalogueError as error:
            if not error.why.startswith("RuntimeError"):  # no answer at all
                raise
            return {}
        except (KeyError, TypeError):
            return {}
        return attributes if isinstance(attributes, dict) else {}

    def _first_page(self, info: dict[str, Any]) -> Any:
        version = re.match(r"v?(\d+)\.(\d+)", str(info.get("api_version")))
        knows_span = version is not None and (int(version[1]), int(version[2])) >= (1, 3)
        fields = (*_FIELDS, _SPAN) if knows_span else _FIELDS
        try:
            return self._ask("structures", self.query.url(fields=fields))
        except CatalogueError as error:
            if not re.match(r"RuntimeError: 4\d\d ", error.why):
                raise
            # A provider refuses more entries on a page than it likes, in words of its own.
            return self._ask("structures", self.query.url(page_limit=None, fields=fields))

    def _ask(self, endpoint: str, url: str) -> Any:
        """Return one page's ``QueryResults``; the client turns pages only in memory, so we do."""
        base_url = self.query.base_url
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answers = self._client.get_one(endpoint, "", base_url, paginate=False, override_url=url)
            answer = answers[base_url]
        except Exception as error:  # the client turns most errors into text, but not all
            raise self._failure(f"{type(error).__name__}: {error}") from None
        if answer.errors:
            raise self._failure("; ".join(str(text) for text in answer.errors))
        return answer

    def _failure(self, said: str) -> CatalogueError:
        return CatalogueError(
            f"the OPTIMADE provider at {self.query.base_url} gave no usable answer",
            one_line(said),
            "Check the network, the address and the filter",
        )


def _licence(info: dict[str, Any], query: OptimadeQuery) -> str:
    names = ("available_licenses_for_entries", "available_licenses", "license")
    stated = next((info[name] for name in names if info.get(name)), None)
    if isinstance(stated, dict):
        stated = stated.get("href")
    if isinstance(stated, list):
        stated = ", ".join(str(one) for one in stated)
    return str(stated) if stated else f"unknown (ask the provider, {query.base_url})"


def _connected(query: OptimadeQuery) -> Any:
    client = optional_client("optimade", "optimade", "optimade.client")
    parser = optional_client("optimade", "optimade", "optimade.filterparser")
    from diffractory.crystals.sources.retrying_session import RetryingSession

    try:
        if query.filter:
            parser.LarkParser().parse(query.filter)
    except Exception as error:  # optimade's own and lark's
        raise CatalogueError(
            f"{query.filter!r} is no OPTIMADE filter",
            one_line(error),
            """Write it as in 'elements HAS ALL "Si","O" AND nelements=2'""",
        ) from None
    connected = client.OptimadeClient(
        base_urls=[query.base_url],
        use_async=False,
        silent=True,
        http_client=RetryingSession,
        http_timeout=_TIMEOUT,
    )
    # ``silent`` does not silence errors (rich replaces the method that would); they are raised here.
    connected._progress.console.quiet = True
    return connected


def _database(meta: dict[str, Any], query: OptimadeQuery) -> str:
    """Return the prefix and name of a provider, such as ``cod (Crystallography Open Database)``."""
    provider = meta.get("provider")
    given = provider if isinstance(provider, dict) else {}
    prefix = str(given.get("prefix") or "optimade")
    name = str(given.get("name") or query.base_url)
    return f"{prefix} ({one_line(name)}) by OPTIMADE {meta.get('api_version') or ''}".rstrip()
