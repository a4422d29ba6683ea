"""A Hub on 127.0.0.1, with a real Hub's faults, for the unmodified huggingface_hub client."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants


class Request(NamedTuple):
    method: str
    path: str
    range: str | None


@dataclass
class Repo:
    """One repository with one branch, ``main``."""

    files: dict[str, bytes]
    gated: bool = False
    status: int = 200
    """Every request to this repository is answered so, if not 200."""
    interrupted: frozenset[str] = frozenset()
    """Files of which only half arrives before the connection is cut."""
    page: bytes | None = None
    """Answer to every request about the repository, as a network's login page would be."""

    history: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.push(self.files)

    def push(self, files: dict[str, bytes]) -> None:
        """Commit `files`; earlier commits remain."""
        digest = hashlib.sha1(usedforsecurity=False)
        for name, content in sorted(files.items()):
            digest.update(name.encode() + content)
        self.files, self.commit = files, digest.hexdigest()
        self.history[self.commit] = files

    def resolve(self, revision: str | None) -> str:
        return self.commit if revision in (None, "main") else str(revision)


@dataclass
class HubServer:
    """Serves `repos` on a free port of this machine while used as a context manager."""

    repos: Mapping[str, Repo]
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> HubServer:
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # A short poll, because leaving the context waits for the next one.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def fetched(self, file: str) -> list[Request]:
        """Return the requests that asked for content of `file`."""
        return [of for of in self.requests if of.method == "GET" and of.path.endswith(f"/{file}")]


class _Handler(BaseHTTPRequestHandler):
    server_hub: HubServer
    # One connection per request: none is left open for the next test's server to inherit.
    protocol_version = "HTTP/1.0"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server_hub.requests.append(Request(self.command, path, self.headers.get("Range")))
        info = re.fullmatch(r"/api/models/(?P<name>.+?)(/revision/(?P<revision>.+))?", path)
        file = re.fullmatch(r"/(?P<name>.+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", path)
        found = info or file
        repo = self.server_hub.repos.get(found["name"]) if found else None
        if found is None or repo is None:
            self.fail(401, "RepoNotFound")
        elif repo.status != 200:
            self.fail(repo.status, None)
        elif repo.page is not None:
            self.send(200, repo.page, {})
        elif (commit := repo.resolve(found["revision"])) not in repo.history:
            self.fail(404, "RevisionNotFound")
        elif file is None:
            siblings = [{"rfilename": name} for name in repo.history[commit]]
            answer = {"id": found["name"], "sha": commit, "siblings": siblings}
            self.send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
        elif repo.gated:
            self.fail(403, "GatedRepo")
        elif file["file"] not in repo.history[commit]:
            self.fail(404, "EntryNotFound")
        else:
            self.send_file(repo, commit, file["file"])

    def send_file(self, repo: Repo, commit: str, name: str) -> None:
        content = repo.history[commit][name]
        etag = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            start, stop = int(asked[1]), min(int(asked[2] or len(content)) + 1, len(content))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            self.send(206, content[start:stop], headers)
        else:
            self.send(200, content, headers, half=name in repo.interrupted)

    def fail(self, status: int, code: str | None) -> None:
        self.send(status, b"", {"X-Error-Code": code} if code else {})

    def send(
        self, status: int, body: bytes, headers: Mapping[str, str], *, half: bool = False
    ) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if half else body)


def point_to(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Point the client to the Hub at `url`, with new connections."""
    huggingface_hub.close_session()
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
