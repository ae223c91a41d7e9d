"""A hub on loopback that speaks as much of Hugging Face's protocol as its clients use.

Two ports, as the real one has two hosts: the hub (API, small files, redirects) and a CDN for what
is in large-file storage, which refuses a request that still carries a token. It keeps a log of
what it served, byte ranges included, and fails on demand.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".parquet", ".gz")
"""Files that lie in large-file storage, as `.gitattributes` of the real repositories says."""


@dataclass
class RemoteRepository:
    """A repository of the hub: files of a folder, at one commit."""

    kind: str
    name: str
    folder: Path
    gated: bool = False
    pinned: str = ""
    """The commit that the shipped studies name, if they do."""

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """Path -> what the API says of the file."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): self._entry(path) for path in paths}

    @cached_property
    def commit(self) -> str:
        """Changes with any file, unless it is pinned."""
        return self.pinned or hashlib.sha1(json.dumps([self.name, self.files]).encode()).hexdigest()

    def _entry(self, path: Path) -> dict[str, Any]:
        content = path.read_bytes()
        entry = {
            "type": "file",
            "path": str(path.relative_to(self.folder)),
            "size": len(content),
            "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
        }
        if path.name.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
        return entry

    def tree(self, below: str, recursive: bool) -> list[dict[str, Any]]:
        """Entries below a folder."""
        prefix = f"{below}/" if below else ""
        found: dict[str, dict[str, Any]] = {}
        for path, entry in self.files.items():
            if not path.startswith(prefix):
                continue
            *folders, _ = path.removeprefix(prefix).split("/")
            for depth in range(1, len(folders) + 1 if recursive else min(len(folders), 1) + 1):
                name = prefix + "/".join(folders[:depth])
                found[name] = {"type": "directory", "path": name, "size": 0, "oid": "0" * 40}
            if recursive or not folders:
                found[path] = entry
        return list(found.values())


@dataclass
class Served:
    """One request and what came of it."""

    host: str
    method: str
    path: str
    start: int
    """First byte that was asked for."""
    status: int = 0
    sent: int = 0
    """Bytes of the body."""
    token: bool = False


@dataclass
class Fault:
    """What goes wrong with requests whose path ends so."""

    ends: str
    times: int
    status: int | None = None
    """Answer with this status."""
    cut: int | None = None
    """Close the connection after so many bytes of the body."""
    damage: bool = False
    """Send other bytes than it should."""
    die: bool = False
    """With `cut`: take the whole hub down then."""
    hold: threading.Event | None = None
    """Wait for this: with `cut` before the connection is closed, else before the body is sent."""


@dataclass
class LocalHub:
    """The hub; ``with LocalHub([...]) as hub`` serves at ``hub.url`` until the block ends."""

    repositories: list[RemoteRepository]
    tokens: set[str] = field(default_factory=set)
    """Those that the hub knows and whose accounts have accepted every licence."""
    guests: set[str] = field(default_factory=set)
    """Those that it knows, of accounts that have accepted none."""
    log: list[Served] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: list[ThreadingHTTPServer] = []
        self._ports = {"hub": 0, "cdn": 0}
        self._connections: set[socket.socket] = set()

    def __enter__(self) -> LocalHub:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """For HF_ENDPOINT; stays the same when the hub is stopped and started again."""
        return f"http://127.0.0.1:{self._ports['hub']}"

    @property
    def cdn(self) -> str:
        """Where large files are: another host to the client, since its port is another one."""
        return f"http://127.0.0.1:{self._ports['cdn']}"

    def start(self) -> None:
        """Begin to serve."""
        for host in self._ports:
            handler = type("Handler", (_Handler,), {"hub": self, "host": host})
            server = _Server(("127.0.0.1", self._ports[host]), handler)
            self._ports[host] = server.server_address[1]
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            self._servers.append(server)

    def stop(self) -> None:
        """As if it were killed: connections that are open break off."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers.clear()
        with self._lock:
            for connection in list(self._connections):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._connections.clear()

    def fail(self, ends: str, times: int = 1, **what: Any) -> None:
        """Let the next requests whose path ends so go wrong; see :class:`Fault`."""
        self.faults.append(Fault(ends, times, **what))

    def fault_of(self, path: str) -> Fault | None:
        """The fault that a request meets, counted down."""
        with self._lock:
            for fault in self.faults:
                # What is wrong with a body waits for the request that gets one.
                redirected = fault.status is None and "/resolve/" in path
                if fault.times and path.endswith(fault.ends) and not redirected:
                    fault.times -= 1
                    return fault
        return None

    def find(self, kind: str, name: str) -> RemoteRepository | None:
        """A repository by what it is and its id."""
        found = (r for r in self.repositories if (r.kind, r.name) == (kind, name))
        return next(found, None)

    def body_bytes(self) -> dict[str, int]:
        """Bytes served by file name, of large files."""
        total: dict[str, int] = defaultdict(int)
        for served in self.log:
            if served.host == "cdn":
                total[Path(served.path).name] += served.sent
        return dict(total)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LocalHub
    host: str

    def setup(self) -> None:
        super().setup()
        self.hub._connections.add(self.connection)

    def finish(self) -> None:
        self.hub._connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """The log is the hub's."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        self.served = Served(self.host, self.command, path, int(asked[1]) if asked else 0)
        self.served.token = "Authorization" in self.headers
        self.hub.log.append(self.served)
        self.fault = self.hub.fault_of(path)
        if self.fault and self.fault.status:
            return self._answer(self.fault.status, b"the hub is not well")
        if self.host == "cdn":
            return self._serve_large(path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        return self._serve_hub(path, query)

    # The hub itself

    def _serve_hub(self, path: str, query: dict[str, str]) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.tokens | self.hub.guests:
            message = "Invalid credentials in Authorization header"
            return self._refuse(401, None, message)
        api = re.fullmatch(
            r"/api/(model|dataset)s/([^/]+/[^/]+)/(revision|tree|paths-info)/([^/]+)/?(.*)", path
        )
        if api:
            return self._serve_api(*api.groups(), query)
        resolve = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if resolve:
            kind = "dataset" if resolve[1] else "model"
            return self._resolve(kind, resolve[2], resolve[3], resolve[4], token)
        cached = re.fullmatch(r"/api/resolve-cache/(model|dataset)s/([^/]+/[^/]+)/(\w+)/(.+)", path)
        if cached and (repository := self.hub.find(cached[1], cached[2])):
            return self._send_file(repository.folder / cached[4], self._headers_of(repository))
        return self._refuse(404, None, "Not found")

    def _serve_api(
        self, kind: str, name: str, what: str, revision: str, below: str, query: dict[str, str]
    ) -> None:
        repository = self._found(kind, name, revision)
        if repository is None:
            return None
        if what == "revision":
            about = {"id": name, "sha": repository.commit, "private": False}
            about["siblings"] = [{"rfilename": path} for path in repository.files]
            return self._json(about)
        if what == "tree":
            recursive = query.get("recursive", "").lower() in ("true", "1")
            entries = repository.tree(below, recursive)
            return self._json(entries) if entries else self._refuse(404, "EntryNotFound", below)
        length = int(self.headers.get("Content-Length", 0))
        paths = parse_qs(self.rfile.read(length).decode()).get("paths", [])
        files = [repository.files[path] for path in paths if path in repository.files]
        folders = [e for e in repository.tree("", True) if e["type"] == "directory"]
        return self._json(files + [e for e in folders if e["path"] in paths])

    def _resolve(self, kind: str, name: str, revision: str, file: str, token: str) -> None:
        repository = self._found(kind, name, revision)
        if repository is None:
            return None
        if repository.gated and token not in self.hub.tokens:
            message = f"Access to model {name} is restricted."
            return self._refuse(403 if token else 401, "GatedRepo", message)
        headers = self._headers_of(repository)
        if file not in repository.files:
            return self._refuse(404, "EntryNotFound", "Entry not found", headers)
        entry = repository.files[file]
        if lfs := entry.get("lfs"):
            headers |= {"X-Linked-Size": str(lfs["size"]), "X-Linked-ETag": f'"{lfs["oid"]}"'}
            headers["Location"] = f"{self.hub.cdn}/{kind}s/{name}/{file}?signature=short-lived"
            return self._answer(302, b"", headers)
        headers |= {"X-Linked-Size": str(entry["size"]), "X-Linked-ETag": f'"{entry["oid"]}"'}
        headers["Location"] = f"/api/resolve-cache/{kind}s/{name}/{repository.commit}/{file}"
        return self._answer(307, b"", headers)

    def _found(self, kind: str, name: str, revision: str) -> RemoteRepository | None:
        repository = self.hub.find(kind, name)
        if repository is None:
            # The real one does not tell a stranger which names there are.
            known = "Authorization" in self.headers
            self._refuse(404 if known else 401, "RepoNotFound" if known else None, "Not found")
        elif revision not in ("main", repository.commit):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repository

    def _headers_of(self, repository: RemoteRepository) -> dict[str, str]:
        return {"X-Repo-Commit": repository.commit}

    # The CDN

    def _serve_large(self, path: str) -> None:
        if self.served.token:
            return self._answer(400, b"Only one auth mechanism allowed")
        kind, owner, name, file = path.removeprefix("/").split("/", 3)
        repository = self.hub.find(kind.removesuffix("s"), f"{owner}/{name}")
        if repository is None or file not in repository.files:
            return self._answer(404, b"no such key")
        return self._send_file(repository.folder / file, {})

    # Answers

    def _send_file(self, path: Path, headers: dict[str, str]) -> None:
        content = path.read_bytes()
        if self.fault and self.fault.damage:
            content = bytes(byte ^ 0xFF for byte in content)
        etag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if "Range" not in self.headers:
            return self._answer(200, content, headers | etag)
        start = self.served.start
        if start >= len(content):
            return self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        etag["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self._answer(206, content[start:], headers | etag)

    def _json(self, content: Any) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(
        self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None
    ) -> None:
        headers = dict(headers or {}) | {"X-Error-Message": message}
        if code:
            headers["X-Error-Code"] = code
        self._answer(status, json.dumps({"error": message}).encode(), headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.served.status = status
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self._send_body(body)

    def _send_body(self, body: bytes) -> None:
        cut = self.fault.cut if self.fault else None
        body = body if cut is None else body[:cut]
        if self.fault and self.fault.hold and cut is None:
            self.fault.hold.wait(60)
        self.wfile.write(body)
        self.served.sent = len(body)
        if self.fault and cut is not None:
            self.close_connection = True
            if self.fault.hold is not None:
                self.wfile.flush()
                self.fault.hold.wait(60)
            if self.fault.die:
                self.hub.stop()
