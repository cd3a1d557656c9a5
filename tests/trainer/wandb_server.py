"""A server of Weights & Biases for tests: it keeps what it is told, line by line, as the real one does.

It answers the few requests that a run needs; the rest gets an empty answer. The history of a run that is told again is
appended to, from the line on that the client names.
"""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "p", "name": "sums", "entity": {"id": "e", "name": "me"}}


class Server:
    """`runs` holds the history of each run by its id; `names` how each was called."""

    def __init__(self) -> None:
        self.runs: dict[str, list[str]] = {}
        self.names: dict[str, tuple[str, str]] = {}

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        rows = [json.loads(line) for line in self.runs[run_id]]
        return [(row["_step"], row[metric]) for row in rows if metric in row]

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path.endswith("/graphql"):
            operation = re.search(r"(?:query|mutation)\s+(\w+)", body["query"])
            return {"data": self._query(operation[1] if operation else "", body.get("variables") or {})}
        told = body.get("files", {}).get("wandb-history.jsonl")
        if told:
            lines = self.runs[path.split("/")[-2]]
            lines[told["offset"] :] = told["content"]
        return {}

    def _query(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        if operation == "RunResumeStatus":
            return {"model": {**PROJECT, "bucket": self._resumable(given["name"])}}
        if operation == "UpsertBucket":
            lines = self.runs.setdefault(given["name"], [])
            if given.get("displayName"):
                self.names[given["name"]] = (given["project"], given["displayName"])
            bucket = {"id": "b", "name": given["name"], "project": PROJECT, "historyLineCount": len(lines)}
            return {"upsertBucket": {"bucket": bucket, "inserted": not lines}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": None} for name in given["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}

    def _resumable(self, run_id: str) -> dict[str, Any] | None:
        lines = self.runs.get(run_id)
        if lines is None:
            return None
        counts = {"historyLineCount": len(lines), "eventsLineCount": 0, "logLineCount": 0}
        texts = {"historyTail": json.dumps(lines[-1:]), "eventsTail": "[]", "config": "{}", "wandbConfig": '{"t": 1}'}
        return {"id": "b", "name": run_id, "summaryMetrics": lines[-1] if lines else "{}", "tags": []} | counts | texts


class _Handler(BaseHTTPRequestHandler):
    server: "_Http"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Tests need no log of requests."""

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        raw = gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw
        with self.server.lock:
            answer = json.dumps(self.server.keeper.answer(self.path, json.loads(raw or b"{}"))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, keeper: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.keeper, self.lock = keeper, threading.Lock()


@contextmanager
def serving() -> Iterator[tuple[Server, dict[str, str]]]:
    """A server and the environment in which it is found, for as long as the block runs."""
    keeper = Server()
    with _Http(keeper) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{http.server_port}"
        yield keeper, {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40, "WANDB_ERROR_REPORTING": "false"}
        http.shutdown()
