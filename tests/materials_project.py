"""A stand-in for the Materials Project's API: heartbeat and the pages of ``materials/summary``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pymatgen.core import Structure

from loopback import KEY, Asked, Said

#: What the API answers to a wrong key.
UNAUTHORIZED = {"message": "Unauthorized", "request_id": "1"}


@dataclass
class MaterialsProject:
    """Answers as the API does to the requests that the client makes.

    Parameters
    ----------
    structures : dict
        Material ids and structures; an id that ends in ``t`` is theoretical.
    failures : list
        Answers to give instead, one for each request of a page, before the true ones.
    """

    structures: dict[str, Structure]
    database: str = "2026.02.01"
    failures: list[Said | None] = field(default_factory=list)

    def __call__(self, asked: Asked, url: str) -> Said:
        if asked.path == "/heartbeat":
            body = {"status": "OK", "version": "0.87.0", "db_version": self.database}
            return Said({**body, "access_controlled_batch_ids": []})
        if asked.key != KEY:
            return Said(UNAUTHORIZED, status=401)
        assert asked.path == "/materials/summary/", asked.path
        if "_page" in asked.query and self.failures:
            failure = self.failures.pop(0)
            if failure is not None:
                return failure
        return Said(self.page(asked.query))

    def page(self, query: dict[str, str]) -> dict[str, Any]:
        """Return the documents that a query asks for, as the API does."""
        assert query["deprecated"] == "False"
        found = {
            name: structure
            for name, structure in sorted(self.structures.items())
            if ("theoretical" not in query or not name.endswith("t"))
            and ("chemsys" not in query or structure.chemical_system in query["chemsys"].split(","))
        }
        size = int(query.get("_per_page", query.get("_limit", 100)))
        begin = (int(query.get("_page", 1)) - 1) * size
        documents = [
            {"material_id": name, "structure": structure.as_dict(), "builder_meta": {"license": "BY-C"}}
            for name, structure in list(found.items())[begin : begin + size]
        ]
        return {"data": documents, "meta": {"total_doc": len(found)}, "errors": []}
