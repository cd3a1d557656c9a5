"""The report in a browser: its script runs under its own policy, finds what is asked for, and nothing else does."""

import json
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from recorded import recorded
from test_report import HOSTILE, ROWS

from trainer.report.page import page
from trainer.report.record import read_record

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is on PATH, so the report's script was not run")

AROUND = '<meta charset="utf-8"><iframe id="frame" width="1200" height="800"></iframe><pre id="said"></pre>'
DRIVER = """
const frame = document.getElementById("frame");
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
  document.getElementById("said").textContent = JSON.stringify(said);
};
"""


def test_a_browser_shows_sorts_and_finds(tmp_path: Path) -> None:
    """Forty rows and then more; one step, the best, the worst, a text; the numbers under the pointer; no injection."""
    many = [f"row {place}" for place in range(50)]
    run = recorded(tmp_path, "aaaa1111", ROWS, {1: many, 3: ["three", HOSTILE]})
    text = json.dumps(page([read_record(run)])).replace("</", "<\\/")
    driver = tmp_path / "driver.html"
    driver.write_text(f"{AROUND}<script>{DRIVER.replace('TEXT', text)}</script>", encoding="utf-8")
    assert BROWSER is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    wait = ["--virtual-time-budget=10000", "--dump-dom", driver.as_uri()]
    dom = subprocess.run([BROWSER, *options, *wait], capture_output=True, text=True, check=True, timeout=120).stdout
    said = json.loads(unescape(dom.rpartition('<pre id="said">')[2].partition("</pre>")[0]))
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
