"""A Hugging Face hub without the Internet: repositories with branches and commits, and faults on demand."""

import hashlib
import json
import re
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

_INFO = re.compile(r"/api/(models|datasets)/([\w.-]+/[\w.-]+)(?:/revision/(.+))?")
_TREE = re.compile(r"/api/(models|datasets)/([\w.-]+/[\w.-]+)/tree/(.+)")
_FILE = re.compile(r"/(datasets/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")


class Hub(ThreadingHTTPServer):
    """Answers what the hub's library asks: a revision's commit, a commit's files, a file's head, a file.

    `asked` lists the requests, `GET /path`. With `refusal` (an HTTP status) it answers nothing else, and for
    `hang_seconds` it says nothing.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str] = []
        self.refusal, self.hang_seconds = 0, 0.0
        self._commits: dict[tuple[str, str], dict[str, dict[str, Path]]] = {}
        self._branches: dict[tuple[str, str], dict[str, str]] = {}
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def push(self, kind: str, repository: str, files: dict[str, Path], branch: str = "main") -> str:
        """A new commit of `models` or `datasets` at the end of a branch; returns it."""
        commits = self._commits.setdefault((kind, repository), {})
        commit = hashlib.sha1(f"{repository} {len(commits)}".encode(), usedforsecurity=False).hexdigest()
        commits[commit] = files
        self._branches.setdefault((kind, repository), {})[branch] = commit
        return commit

    def found(self, kind: str, repository: str, revision: str) -> tuple[str, dict[str, Path]] | str:
        """The commit and its files; or the hub's code of what is missing."""
        commits = self._commits.get((kind, repository))
        if commits is None:
            return "RepoNotFound"
        commit = self._branches[kind, repository].get(revision, revision)
        return (commit, commits[commit]) if commit in commits else "RevisionNotFound"

    @property
    def fetched(self) -> list[str]:
        """The files that were asked for and not only looked at: `datasets/own/sums COMMIT NAME`."""
        gets = [_FILE.fullmatch(line.removeprefix("GET ")) for line in self.asked if line.startswith("GET ")]
        return sorted(f"{match[1] or 'models/'}{match[2]} {match[3]} {match[4]}" for match in gets if match)

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if path == "/api/agent-harnesses":  # once a day the library asks for itself, whatever it is used for
            return self._missing("EntryNotFound")
        self.server.asked.append(f"{self.command} {path}")
        time.sleep(self.server.hang_seconds)
        if self.server.refusal:
            return self._send(self.server.refusal, b"{}")
        if match := _FILE.fullmatch(path):
            return self._file(self.server.found("datasets" if match[1] else "models", match[2], match[3]), match[4])
        if match := _TREE.fullmatch(path):
            return self._tree(self.server.found(match[1], match[2], match[3]))
        if match := _INFO.fullmatch(path):
            found = self.server.found(match[1], match[2], match[3] or "main")
            return self._json(found, lambda commit, _: {"id": match[2], "sha": commit, "siblings": []})
        return self._missing("RepoNotFound")

    def _tree(self, found):
        def entries(_, files):
            sizes = {name: path.stat().st_size for name, path in files.items()}
            return [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in sizes.items()]

        self._json(found, entries)

    def _json(self, found, body) -> None:
        if isinstance(found, str):
            self._missing(found)
        else:
            self._send(200, json.dumps(body(*found)).encode(), **{"Content-Type": "application/json"})

    def _file(self, found, name: str) -> None:
        if isinstance(found, str) or name not in found[1]:
            return self._missing(found if isinstance(found, str) else "EntryNotFound")
        body = found[1][name].read_bytes()
        return self._send(200, body, **{"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": found[0]})

    def _missing(self, code: str) -> None:
        self._send(404, b"{}", **{"X-Error-Code": code})

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        with suppress(OSError):  # who asked may have gone
            self.end_headers()
            self.wfile.write(body if self.command == "GET" else b"")
