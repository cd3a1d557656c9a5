"""The report in a browser: its script runs under its own policy, finds what is asked for, and nothing else does."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from recorded import recorded
from test_report import HOSTILE, ROWS

from trainer.report.page import page
from trainer.report.record import read_record

# One process: the package's users drive it so, and a sandbox needs more rights than a container has.
OPTIONS = ("--headless", "--no-sandbox", "--no-zygote", "--single-process", "--use-gl=angle", "--use-angle=swiftshader")
AROUND = '<meta charset="utf-8"><iframe id="frame" width="1200" height="800"></iframe>'
DRIVER = """
const frame = document.getElementById("frame");
const send = (said) => fetch("/said", { method: "POST", body: JSON.stringify(said) });
onerror = (text) => send({ error: text });
frame.srcdoc = TEXT;
frame.onload = () => {
  const page = frame.contentDocument, form = page.getElementById("filter");
  const rows = () => [...page.querySelectorAll("#completions tbody tr")].filter((row) => !row.hidden);
  const texts = () => rows().map((row) => row.cells[2].textContent);
  const choose = (name, value) => {
    form.elements[name].value = value;
    form.dispatchEvent(new Event("input"));
    return texts();
  };
  const said = { title: page.title, images: page.images.length, first: texts().length, count: "" };
  said.count = form.querySelector("output").textContent;
  page.getElementById("more").click();
  said.more = texts().length;
  said.step = choose("step", "t3");
  choose("step", "");
  said.best = choose("sort", "-total")[0];
  said.worst = choose("sort", "total").slice(0, 2);
  said.found = choose("text", "TAKEN");
  const chart = page.querySelector("[data-metric='reward/total/mean']"), svg = chart.querySelector("svg");
  const box = svg.getBoundingClientRect();
  const over = { clientX: box.left + box.width * 0.97, clientY: box.top + 20, bubbles: true };
  svg.dispatchEvent(new frame.contentWindow.PointerEvent("pointermove", over));
  said.hover = chart.querySelector("output").textContent;
  svg.dispatchEvent(new frame.contentWindow.PointerEvent("pointerleave"));
  said.left = chart.querySelector("output").textContent;
  send(said);
};
"""


@pytest.fixture(scope="module")
def chromium() -> Path:
    """A headless Chromium, built once into GRPO_TEST_CACHE (or ~/.cache/grpo-operator)."""
    cache = Path(os.environ.get("GRPO_TEST_CACHE") or Path.home() / ".cache" / "grpo-operator")
    folder = cache / "chromium-153.0.0"
    if not folder.exists():
        subprocess.run([sys.executable, str(Path(__file__).with_name("chromium.py")), str(folder)], check=True)
    return folder


def opened(chromium: Path, page: str, profile: Path) -> Any:
    """What a page that the browser opens sends back. This Chromium is made to be driven: it prints no page itself."""
    said: Queue[bytes] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def do_POST(self) -> None:
            said.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Tests need no log of requests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [str(chromium / "chromium"), *OPTIONS, f"--user-data-dir={profile}"]
        environ = os.environ | {"LD_LIBRARY_PATH": str(chromium / "lib")}
        log = profile.with_suffix(".log").open("wb")
        browser = subprocess.Popen(
            [*command, f"http://127.0.0.1:{server.server_port}/"], env=environ, stdout=log, stderr=log
        )
        try:
            return json.loads(said.get(timeout=300))
        finally:
            browser.kill()
            browser.wait()
            log.close()
            server.shutdown()


def test_a_browser_shows_sorts_and_finds(chromium: Path, tmp_path: Path) -> None:
    """Forty rows and then more; one step, the best, the worst, a text; the numbers under the pointer; no injection."""
    many = [f"row {place}" for place in range(50)]
    run = recorded(tmp_path, "aaaa1111", ROWS, {1: many, 3: ["three", HOSTILE]})
    text = json.dumps(page([read_record(run)])).replace("</", "<\\/")
    said = opened(chromium, f"{AROUND}<script>{DRIVER.replace('TEXT', text)}</script>", tmp_path / "profile")
    assert said == {
        "title": "tiny-aaaa1111",
        "images": 0,
        "first": 40,
        "count": "40 of 52",
        "more": 52,
        "step": ["three", HOSTILE],
        "best": "row 49",
        "worst": ["row 0", "three"],
        "found": [HOSTILE],
        "hover": "step 40.9",
        "left": "0.9",
    }
