"""Providers of structures on the loopback interface: OPTIMADE's reference server, and stand-ins."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pymatgen.core import Structure

from diffractory.crystals.sources.aflow import aflow_candidates

#: A key of the form that the Materials Project gives out; opens nothing.
KEY = "0123456789abcdefABCDEF0123456789"


@dataclass(frozen=True)
class Asked:
    """A request as a stand-in sees it."""

    path: str
    query: dict[str, str]
    key: str | None


@dataclass(frozen=True)
class Said:
    """What a stand-in answers: text as it is, everything else as JSON."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class StandIn:
    """A server that answers as a function says, and remembers what it was asked."""

    url: str
    asked: list[Asked]


@contextmanager
def stand_in(answer: Callable[[Asked, str], Said]) -> Iterator[StandIn]:
    """Serve on a free port; ``answer`` takes the request and the server's URL."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            request = Asked(parts.path, query, self.headers.get("x-api-key"))
            asked.append(request)
            said = answer(request, url)
            body = (said.body if isinstance(said.body, str) else json.dumps(said.body)).encode()
            self.send_response(said.status)
            for name, value in {"Content-Length": str(len(body)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield StandIn(url, asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def reference_optimade_server(folder: Path, structures: dict[str, Structure]) -> Iterator[str]:
    """Run OPTIMADE's reference server with these structures in memory; yield its base URL."""
    from optimade.adapters.structures.pymatgen import from_pymatgen

    lines = [json.dumps({"x-optimade": {"meta": {"api_version": "1.2.0"}}})]
    for name, structure in structures.items():
        attributes = from_pymatgen(structure).model_dump(mode="json", exclude_unset=True)
        attributes |= {"last_modified": "2026-01-01T00:00:00Z", "immutable_id": name}
        lines.append(json.dumps({"id": name, "type": "structures", "attributes": attributes}))
    (folder / "structures.jsonl").write_text("\n".join(lines) + "\n")
    port = free_port()
    settings = {
        "database_backend": "mongomock",
        "insert_test_data": False,
        "insert_from_jsonl": str(folder / "structures.jsonl"),
        "page_limit": 20,
        "page_limit_max": 50,
        "log_dir": str(folder),
        "provider": {"name": "Loopback", "prefix": "loop", "description": "Structures for tests"},
    }
    (folder / "server.json").write_text(json.dumps(settings))
    environment = {**os.environ, "OPTIMADE_CONFIG_FILE": str(folder / "server.json")}
    command = [sys.executable, "-m", "uvicorn", "optimade.server.main:app", "--port", str(port)]
    log = folder / "server.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, cwd=folder)
    try:
        _wait_until_up(f"http://127.0.0.1:{port}/versions", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=10)


def _wait_until_up(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())


def embedded_structures(count: int) -> dict[str, Structure]:
    """Return small ordered structures of the embedded catalogue by name."""
    chosen: dict[str, Structure] = {}
    for candidate in aflow_candidates():
        structure = candidate.structure
        if structure is not None and structure.is_ordered and len(structure) <= 12:
            chosen[candidate.material_id] = structure
        if len(chosen) == count:
            return chosen
    raise AssertionError(f"fewer than {count} small structures are embedded")
