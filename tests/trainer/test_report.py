"""The report: one page from run folders, whole without a network, with nothing that a run wrote taken for markup."""

import json
import math
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from recorded import recorded, sample

from trainer.contract.exits import RunError
from trainer.report import main
from trainer.report.charts import chart_of, moving_mean, number, thinned, ticks
from trainer.report.page import page
from trainer.report.record import MOST_LETTERS, MOST_SAMPLES, read_record

HOSTILE = "</td></script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">&amp;"
ROWS = [
    {"step": 0, "eval/reward/correct/mean": 0.25, "eval/questions": 8},
    *({"step": n, "reward/total/mean": n / 10, "time/step_s": 2.0, "update/loss": math.nan} for n in (1, 2)),
    {"step": 3, "reward/total/mean": 0.3, "time/step_s": 2.0, "update/loss": 0.5, "eval/reward/correct/mean": 0.75},
    {"step": 4, "reward/total/mean": 0.9, "time/step_s": 20.0, "update/loss": 0.25},
]


class Page(HTMLParser):
    """Elements with their attributes, the text of each, and whether all that was opened is closed."""

    VOID = frozenset({"meta", "input", "line", "circle", "path", "br"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text.replace("<wbr>", ""))  # a name is one text, wherever its line may end
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return recorded(tmp_path, "aaaa1111", ROWS, {1: ["one", HOSTILE], 10: ["three"]})


def test_a_page_has_curves_times_completions_plan_and_configuration(run: Path) -> None:
    """Every metric that changes has a chart, every completion a row, every key of plan and configuration a line."""
    found = Page(page([read_record(run)]))
    assert found.open == []
    charts = {figure["data-metric"] for figure in found.all("figure")}
    assert charts == {"eval/reward/correct/mean", "reward/total/mean", "update/loss", "time/step_s"}
    assert [row["data-total"] for row in found.all("tr") if "data-total" in row] == ["0", "1", "0"]
    heads = found.texts["th"]
    assert {"sequences_per_step", "mesh.fsdp", "optimizer.learning_rate", "rewards[0].python"} <= set(heads)
    assert {"not finished, step 4 of 3", "0.25 → 0.75", "0.1 → 0.9", "2 s"} <= set(found.texts["dd"])
    assert any("A loss near 0 is no fault." in text for text in found.texts["p"])


def test_a_page_loads_nothing(run: Path) -> None:
    """No element names another file, and the page's own policy forbids it; only our script, by its digest, may run."""
    text = page([read_record(run)])
    found = Page(text)
    assert [found for _, found in found.elements if {"src", "srcset", "data", "action"} & found.keys()] == []
    assert all(str(link["href"]).startswith("#") for link in found.all("a"))
    assert found.all("link") == []
    assert "url(" not in text
    assert "@import" not in text
    policy = found.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert str(policy).startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")


def test_what_a_run_wrote_is_text(run: Path) -> None:
    """Markup in a completion is shown as it was written, and makes no element; so is markup in the name of a metric."""
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": n, "reward/<img src=x></script>/mean": n}) + "\n" for n in (1, 2))
    )
    found = Page(page([read_record(run)]))
    assert HOSTILE in found.texts["div"]
    assert found.all("img") == []
    assert len(found.all("script")) == 2
    scripts = found.texts["script"]
    assert json.loads(scripts[0]) == {"reward/<img src=x></script>/mean": [[[1, 2], [1, 2]]]}


def test_two_runs_are_laid_over_one_another(run: Path, tmp_path: Path) -> None:
    """A chart has a curve a run, a metric of one run alone has one; the keys that differ are marked."""
    rows = [{"step": n, "reward/total/mean": n / 5, "update/kl": n} for n in (1, 2)]
    other = recorded(tmp_path, "bbbb2222", rows, {1: ["four"]}, "optimizer.learning_rate=0.5")
    text = page([read_record(run), read_record(other)])
    found = Page(text)
    curves = [group["class"] for group in found.all("g")]
    assert (curves.count("run0"), curves.count("run1")) == (4, 2)
    assert len(found.all("tr", **{"class": "differs"})) == 1
    assert [row["data-run"] for row in found.all("tr") if "data-run" in row] == ["0", "0", "0", "1"]
    assert found.texts["title"] == ["tiny-aaaa1111 and tiny-bbbb2222"]


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    """Without a step there are no curves and no completions, and the configuration is there; one evaluation is no
    change.
    """
    examined = Page(page([read_record(recorded(tmp_path, "dddd4444", ROWS[:1], {}))]))
    assert examined.texts["dd"] == ["not finished, step 0 of 3", "0.25"]
    found = Page(page([read_record(recorded(tmp_path, "cccc3333", [], {}))]))
    assert found.all("figure") == []
    assert "None was written yet." in found.texts["p"]
    assert "model_path" in found.texts["th"]


def test_a_killed_run_has_a_page(run: Path) -> None:
    """A line that a kill cut short is left out of metrics and completions, and an unscorable completion has a dash."""
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "rew')
    path = run / "completions" / "step-00000010.jsonl"
    path.write_text(json.dumps(sample(10, "unscored", None)) + '\n{"step": 10, "com')
    record = read_record(run)
    assert (record.step, [found.completion for found in record.samples]) == (4, ["one", HOSTILE, "unscored"])
    assert Page(page([record])).texts["b"].count("–") == 1


def test_a_page_holds_the_latest_completions_and_two_evaluations(run: Path) -> None:
    """Of many completions the latest are kept and the others counted; evaluations are the first and the last."""
    lines = [json.dumps(sample(2, str(place), 0.0)) for place in range(MOST_SAMPLES)]
    (run / "completions" / "step-00000002.jsonl").write_text("\n".join(lines))
    for step in (0, 5, 10):
        folder = run / "eval" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        for process in (1, 0):
            body = sample(step, f"answer {process}", 1.0) | {"question": process}
            (folder / f"process-{process}.jsonl").write_text(json.dumps(body))
    record = read_record(run)
    assert record.left_out == 3
    answers = [(found.step, found.completion) for found in record.samples if found.evaluated]
    assert answers == [(0, "answer 0"), (0, "answer 1"), (10, "answer 0"), (10, "answer 1")]


def test_long_completions_make_no_endless_page(run: Path) -> None:
    """Of completions with many letters fewer are kept, the latest of training and the first of an evaluation."""
    long = "x" * (MOST_LETTERS // 3)
    bodies = [sample(20, f"{place}{long}", 0.0) | {"question": place} for place in range(5)]
    text = "".join(json.dumps(body) + "\n" for body in bodies)
    (run / "completions" / "step-00000020.jsonl").write_text(text)
    (run / "eval" / "step-00000020").mkdir(parents=True)
    (run / "eval" / "step-00000020" / "process-0.jsonl").write_text(text)
    record = read_record(run)
    assert [(found.completion[0], found.evaluated) for found in record.samples] == [
        ("3", False),
        ("4", False),
        ("0", True),
        ("1", True),
    ]
    assert record.left_out == 6


def test_what_is_no_run_is_told(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder above the runs is refused with their names, exit code 2; so is a page that cannot be written."""
    assert main([str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told == f"{tmp_path}: no run folder, it has no run.json; it holds tiny-aaaa1111: name one of them\n"
    assert main([str(run), "-o", str(tmp_path / "no" / "page.html")]) == 2
    assert "no/page.html: cannot be written (No such file or directory); give a file with -o" in capsys.readouterr().err
    (run / "run.json").write_text("[]")
    with pytest.raises(RunError, match=r"run\.json: cannot be read"):
        read_record(run)


def test_grpoctl_writes_the_page_beside_the_run(run: Path, tmp_path: Path) -> None:
    """`grpoctl report RUN` says where the page is; of two runs it is named after the second too."""
    other = recorded(tmp_path, "bbbb2222", ROWS, {})
    for runs, name in (([run], "report.html"), ([run, other], "report-with-tiny-bbbb2222.html")):
        command = [sys.executable, "-m", "controller", "report", *map(str, runs)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"written: {run / name}\n", "")
        assert (run / name).read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_curve_is_drawn_where_its_numbers_are() -> None:
    """The lowest point lies on the lowest grid line, the highest on the highest, steps from the left to the right."""
    chart = chart_of([(0, [(0.0, 0.0), (5.0, 2.0), (10.0, 1.0)])])
    assert chart is not None
    assert chart.curves[0].d == "M46 166L198 10L350 88"
    assert [(tick.at, tick.label) for tick in chart.y_ticks] == [
        (166.0, "0"),
        (127.0, "0.5"),
        (88.0, "1"),
        (49.0, "1.5"),
        (10.0, "2"),
    ]
    assert [tick.label for tick in chart.x_ticks] == ["0", "2", "4", "6", "8", "10"]
    assert chart_of([(0, [])]) is None
    short = chart_of([(0, [(0.0, 0.0), (1.0, 2.0)])])
    assert short is not None
    assert [tick.label for tick in short.x_ticks] == ["0", "1"]  # there is no half a step


def test_a_peak_does_not_flatten_the_rest() -> None:
    """A value above three medians is drawn at the top, and told; without the wish nothing is cut."""
    points = [(float(step), 10.0 if step == 0 else 1.0) for step in range(6)]
    cut = chart_of([(0, points)], cuts_peaks=True)
    assert cut is not None
    assert (cut.peak, cut.y_ticks[-1].label) == ("10", "3")
    whole = chart_of([(0, points)])
    assert whole is not None
    assert (whole.peak, whole.y_ticks[-1].label) == ("", "10")


def test_ticks_are_round_and_hold_the_numbers() -> None:
    """Steps of 1, 2 or 5 times a power of ten; a constant has room around it."""
    assert ticks(0.13, 0.87, 4) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(-3.0, 12.0, 4) == [-5.0, 0.0, 5.0, 10.0, 15.0]
    around = ticks(7.0, 7.0, 4)
    assert around[0] < 7.0 < around[-1]


def test_a_very_long_curve_keeps_its_peaks() -> None:
    """Of ten thousand steps a thousand points are drawn, the lowest and the highest among them, in their order."""
    points = [(float(step), float(step == 4321) - float(step == 77)) for step in range(10_000)]
    drawn = thinned(points)
    assert 900 < len(drawn) <= 1000
    assert list(drawn) == sorted(drawn)
    assert {(77.0, -1.0), (4321.0, 1.0)} <= set(drawn)
    assert thinned(points[:1000]) == points[:1000]


def test_a_long_curve_is_smoothed_by_its_neighbours() -> None:
    """The mean over the point and those beside it; at the ends over those there are."""
    assert moving_mean([(0.0, 0.0), (1.0, 3.0), (2.0, 6.0)]) == [(0.0, 1.5), (1.0, 3.0), (2.0, 4.5)]
    assert [number(value) for value in (0.0, 12345.6, 0.012345, 1.2345e-6, -2.5)] == [
        "0",
        "12,346",
        "0.01235",
        "1.23e-06",
        "-2.5",
    ]
