"""Downloads in pages that stay on disk: what is there is checked and never asked for again."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from pymatgen.core import Structure

from diffractory.crystals.sources import Candidate, Problem, printable
from diffractory.errors import CatalogueError
from diffractory.storage import write_atomic

#: Characters quoted of the beginning and of the end of what a provider or its client says.
_QUOTED: Final = 200


@dataclass(frozen=True)
class Page:
    """One answer of a provider, and where it comes from.

    Parameters
    ----------
    request : str
        What was asked; the key of the page.
    entries : list of dict
        The structures as the provider gives them.
    next_request : str or None
        What to ask next; None on the last page.
    total : int or None
        Number of entries on all pages, where the provider tells it.
    database : str
        Name of the database, with its version where the provider tells it.
    licence : str
        Licence of the entries that do not state their own.
    client : str
        Package that asked, with its version.
    retrieved : str
        Day of the download, such as 2026-03-01.
    """

    request: str
    entries: list[dict[str, Any]]
    next_request: str | None
    total: int | None
    database: str
    licence: str
    client: str
    retrieved: str

    @property
    def fingerprint(self) -> str:
        """sha256 of the entries alone: two pages with the same entries are one page sent twice."""
        return _sha256(self.entries)


class Download:
    """All pages of one query, in a folder of their own.

    Parameters
    ----------
    cache : Path
        Folder of all downloads.
    source : str
        Name of the source; begins the folder's name.
    first_request : str
        Request of the first page; downloads that ask the same share a folder.
    fetch : callable
        Takes a request and the first page (None while there is none), asks the provider, and
        returns the page. Raises CatalogueError where there is no usable answer.
    """

    def __init__(
        self, cache: Path, source: str, first_request: str, fetch: Callable[[str, Page | None], Page]
    ) -> None:
        self.folder = cache / f"{source}-{_sha256(first_request)[:12]}"
        self._first_request = first_request
        self._fetch = fetch

    def complete(self, on_progress: Callable[[int, int | None], None] = lambda _, __: None) -> int:
        """Fetch what is not on disk yet; every page is kept as soon as it is there.

        Parameters
        ----------
        on_progress : callable, optional
            Called after every page with the number of entries so far, and of all where known.

        Returns
        -------
        int
            Number of entries.

        Raises
        ------
        CatalogueError
            If the provider does not answer, or what it answers cannot be the next page. Pages
            on disk stay there.
        """
        first: Page | None = None
        seen: dict[str, int] = {}
        number, count, request = 1, 0, self._first_request
        while True:
            stored = self._stored(number, request)
            page = stored or self._fetched(request, first, count)
            earlier = seen.setdefault(page.fingerprint, number)
            if earlier != number:
                raise CatalogueError(
                    f"page {number} of {page.database} holds the entries of page {earlier} again",
                    "the provider does not turn the pages of this query",
                    self._fix(count, "Narrow the query to what fits one page, or tell the provider"),
                )
            self._check(page, first or page, count)
            if stored is None:
                content = asdict(page)
                whole = json.dumps({"sha256": _sha256(content), "page": content})
                write_atomic(self._path(number), whole)
            first = first or replace(page, entries=[])
            count += len(page.entries)
            on_progress(count, page.total)
            if page.next_request is None:
                return count
            number, request = number + 1, page.next_request

    def pages(self) -> Iterator[Page]:
        """Yield the pages of a complete download, from disk alone.

        Raises
        ------
        CatalogueError
            If a page is missing or damaged.
        """
        number, request = 1, self._first_request
        while True:
            page = self._stored(number, request)
            if page is None:
                raise CatalogueError(
                    f"page {number} of the download in {self.folder} is missing or damaged",
                    "it was there a moment ago",
                    "Run the same command again: only this page is downloaded",
                )
            yield page
            if page.next_request is None:
                return
            number, request = number + 1, page.next_request

    def _fetched(self, request: str, first: Page | None, count: int) -> Page:
        try:
            return self._fetch(request, first)
        except CatalogueError as error:
            fix = error.fix or "Check the network and the address"
            raise CatalogueError(error.what, error.why, self._fix(count, fix)) from None

    def _check(self, page: Page, first: Page, count: int) -> None:
        totals = {page.total, first.total} - {None}
        if page.database != first.database or len(totals) > 1:
            raise CatalogueError(
                f"{first.database} has changed since this download began",
                f"it was {first.database} with {first.total} matching entries, "
                f"and is {page.database} with {page.total}",
                f"Remove {self.folder} to start anew, or name another folder with --cache",
            )
        total = count + len(page.entries)
        if total == 0 and not page.total:
            raise CatalogueError(f"no entry of {page.database} matches the query", fix="Ask for others")
        ended = page.next_request is None or not page.entries
        if ended and (page.next_request is not None or total < (page.total or 0)):
            of_all = f" of {page.total:,}" if page.total else ""
            raise CatalogueError(
                f"{page.database} stopped after {total:,}{of_all} entries",
                "it named a next page, which is empty" if page.next_request else "it gave no next page",
                self._fix(count, "Wait a little"),
            )

    def _fix(self, count: int, first_step: str) -> str:
        kept = f" ({count:,} entries are kept in {self.folder}; remove it to start anew)" if count else ""
        return f"{first_step.rstrip('.')}, then run the same command again{kept}"

    def _path(self, number: int) -> Path:
        return self.folder / f"page-{number:05d}.json"

    def _stored(self, number: int, request: str) -> Page | None:
        """Return a page on disk if it is whole and answers this request; None otherwise."""
        try:
            stored = json.loads(self._path(number).read_bytes())
            page = Page(**stored["page"])
            whole = stored["sha256"] == _sha256(stored["page"])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            return None
        return page if whole and page.request == request else None


def candidates_of(
    download: Download,
    query: object,
    name: Callable[[Page, dict[str, Any]], str],
    structure: Callable[[dict[str, Any]], Structure | Problem],
    licence: Callable[[Page, dict[str, Any]], str],
) -> Iterator[Candidate]:
    """Yield the entries of a complete download, each with where it comes from.

    Parameters
    ----------
    download : Download
    query : object
        What was asked; its text is kept with every crystal.
    name, structure, licence : callable
        Return an entry's id (empty if it has none), its structure or what is wrong with it, and its licence.
        What ``structure`` raises is what is wrong with the entry.

    Raises
    ------
    CatalogueError
        As :meth:`Download.pages`.
    """
    for number, page in enumerate(download.pages(), start=1):
        source = f"{page.database}, {query}, retrieved {page.retrieved} with {page.client}"
        for position, entry in enumerate(page.entries, start=1):
            material_id = printable(name(page, entry) or f"page{number}-entry{position}")
            found = _structure_of(entry, structure)
            read = None if isinstance(found, Problem) else found
            problem = found if isinstance(found, Problem) else None
            yield Candidate(material_id, read, problem, source, licence(page, entry))


def _structure_of(
    entry: dict[str, Any], structure: Callable[[dict[str, Any]], Structure | Problem]
) -> Structure | Problem:
    try:
        return structure(entry)
    except Exception as error:  # anything can be missing or of another kind, and pymatgen raises all sorts
        return Problem(
            "unreadable", f"its structure cannot be read: {type(error).__name__} {one_line(error)}"
        )


def optional_client(source: str, package: str, module: str) -> ModuleType:
    """Import the client of a source.

    Parameters
    ----------
    source : str
        Name of the source and of the extra that installs its client.
    package, module : str
        What to install, and what to import.

    Raises
    ------
    CatalogueError
        If it is not installed.
    """
    try:
        with warnings.catch_warnings():
            # What a client's own libraries deprecate is not the user's concern.
            warnings.simplefilter("ignore")
            return import_module(module)
    except ImportError as error:
        raise CatalogueError(
            f"--source {source} needs the package {package}",
            f"it cannot be imported ({one_line(error)})",
            f'Install it: pip install "diffractory[{source}]"',
        ) from None


def client_name(package: str) -> str:
    """Return a package and its installed version, such as ``mp-api 0.46.5``."""
    return f"{package} {version(package)}"


def today() -> str:
    """Return the day, in UTC, as it is kept with every page."""
    return datetime.now(UTC).date().isoformat()


def one_line(text: object) -> str:
    """Return what a provider or its client says, on one line and not without end."""
    line = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(text)).split())
    return line if len(line) <= 2 * _QUOTED else f"{line[:_QUOTED]} … {line[-_QUOTED:]}"


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
