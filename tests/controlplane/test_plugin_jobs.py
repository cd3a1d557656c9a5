"""`kubectl grpo` over jobs that are there: listed, shown, waited for, switched, cancelled."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from controller.cli import main
from controller.cluster.resources import GRPOJOBS
from controller.plugin import jobs
from tests.controller.test_cli import on_terminal
from tests.controlplane.admission import install_crd
from tests.controlplane.binaries import program as binary
from tests.controlplane.looking import until
from tests.controlplane.operating import Operating
from tests.controlplane.plugging import ROOT, Plugin
from tests.controlplane.world import World

RUN = [["run"]] * 9


def test_jobs_are_listed_with_what_people_ask_first(operating: Operating, grpo: Plugin) -> None:
    """The columns of `kubectl get`, by label and phase; as JSON the objects; over all namespaces with theirs."""
    operating.start()
    operating.apply("done", [["0"]])
    operating.apply("rests", RUN, suspend=True)
    operating.wait_phase("done", "Succeeded")
    operating.wait_phase("rests", "Suspended")
    operating.api.patch(GRPOJOBS, "rests", operating.namespace, {"metadata": {"labels": {"team": "a"}}})
    head, *rows = (line.split() for line in grpo("list").stdout.splitlines())
    assert head == ["NAME", "PHASE", "TPU", "STEP", "REWARD", "RESTARTS", "ETA", "AGE"]
    assert [row[:4] for row in rows] == [["done", "Succeeded", "cpu", "1x1"], ["rests", "Suspended", "cpu", "1x1"]]
    listed = json.loads(grpo("list", "-l", "team=a", "-o", "json").stdout)
    assert [(listed["kind"], one["kind"], one["metadata"]["name"]) for one in listed["items"]] == [
        ("List", "GRPOJob", "rests")
    ]
    assert [one["metadata"]["name"] for one in yaml.safe_load(grpo("list", "-o", "yaml").stdout)["items"]] == [
        "done",
        "rests",
    ]
    assert [line.split()[0] for line in grpo("list", "--phase", "succeeded").stdout.splitlines()] == ["NAME", "done"]
    everywhere = grpo("list", "-A").stdout.splitlines()
    assert everywhere[0].split()[:2] == ["NAMESPACE", "NAME"]
    assert [operating.namespace, "rests"] in [line.split()[:2] for line in everywhere]


def test_one_job_is_shown_on_one_screen(operating: Operating, grpo: Plugin) -> None:
    """Plan, attempts with their cause, conditions, pods and events; and the same as data."""
    operating.start()
    operating.apply("shown", [["wait:1 1", "wait:1 9"], ["run", "run"]], hosts=2)
    operating.wait(lambda: len(operating.attempts("shown")) == 1, "the first attempt's end")
    operating.wait(lambda: operating.condition("shown", "Running")[0] == "True", "the second attempt")
    operating.wait(lambda: "TrainerFailed" in operating.events("shown"), "the event of the failure")
    told = grpo("status", "shown").stdout
    assert re.search(r"^shown  Running  namespace \S+, cpu 2x1, age \d+s$", told, re.M)
    assert "32 sequences per step; each of 2 processes" in told
    assert "1 of 3 restarts, 0 of 100 disruptions" in told
    assert "TrainerFailed (Failure, exit code 1) in shown-slice-0-0-" in told
    assert re.search(r"^  Running +True +\d+s +Running +2 of 2 pods run$", told, re.M)
    assert re.search(r"^  shown-slice-0-1-\w+ +0 +1 +1 +Running +test-node +\d+s$", told, re.M)
    assert re.search(r"Warning +TrainerFailed +GRPOJob/shown", told)
    data = json.loads(grpo("status", "shown", "-o", "json").stdout)
    assert set(data) == {"job", "pods", "events", "hidden"}
    assert [(pod["host"], pod["attempt"], pod["phase"]) for pod in data["pods"]] == [
        (0, 1, "Running"),
        (1, 1, "Running"),
    ]
    assert "managedFields" not in data["job"]["metadata"]


def test_who_may_read_jobs_alone_sees_what_he_may(operating: Operating, grpo: Plugin) -> None:
    """The screen says what is hidden; what needs more says in one sentence what is not allowed."""
    operating.start()
    operating.apply("theirs", RUN)
    operating.wait_phase("theirs", "Running")
    viewer = grpo.as_user(grpojobs="get,list,watch")
    told = grpo("status", "theirs", kubeconfig=viewer).stdout
    assert "pods: not allowed to read them" in told
    assert "events: not allowed to read them" in told
    refused = grpo("suspend", "theirs", kubeconfig=viewer, code=3).stderr
    assert re.fullmatch(
        r'error: not allowed: User "\S+:user" cannot patch resource "grpojobs" .+; ask for .+\n', refused
    )
    assert "error: not allowed" in grpo("list", "-A", kubeconfig=viewer, code=3).stderr


def test_wait_exits_with_the_jobs_result(operating: Operating, grpo: Plugin) -> None:
    """0 where all succeeded, 1 where one failed or was deleted, 124 where the time is over; a line for each."""
    operating.start()
    operating.apply("good", [["wait:2 0"]])
    operating.apply("bad", [["2"]])
    operating.apply("long", RUN)
    assert grpo("wait", "good").stdout == "good succeeded: Completed: every process ended with exit code 0\n"
    told = grpo("wait", "bad", "good", code=1).stdout
    assert re.search(r"^bad failed: InvalidConfig: .*host 0 ends attempt 0 with 2", told, re.M)
    assert "not ended after 1 s: long" in grpo("wait", "--all", "--timeout", "1", code=124).stderr
    with grpo.begun("wait", "long", "-o", "json") as waiting:
        assert waiting.stderr is not None
        assert waiting.stderr.readline() == "waiting for 1 job\n"
        grpo("cancel", "long")
        printed, errors = waiting.communicate(timeout=60)
    assert (waiting.returncode, json.loads(printed)["items"]) == (1, [])
    assert "long was deleted before it ended" in errors
    ended = json.loads(grpo("wait", "good", "bad", "-o", "json", code=1).stdout)
    assert [one["status"]["phase"] for one in ended["items"]] == ["Succeeded", "Failed"]


def test_watch_prints_each_change_to_the_end(operating: Operating, grpo: Plugin) -> None:
    """A line for each phase, and the exit code of the job."""
    operating.start()
    operating.apply("seen", [["wait:2 0"]])
    phases = [line.split()[1] for line in grpo("watch", "seen").stdout.splitlines()]
    assert phases[0] == "PHASE"
    assert phases[-2:] == ["Running", "Succeeded"]
    assert len(set(phases)) == len(phases)


def test_all_jobs_are_watched_until_ctrl_c(operating: Operating, grpo: Plugin) -> None:
    """A line for each change of any job, and for its end; the exit code is that of an interrupt."""
    operating.apply("before", RUN, suspend=True)
    with grpo.begun("watch") as process:
        assert process.stdout is not None
        assert process.stdout.readline().split()[:2] == ["NAME", "PHASE"]
        assert process.stdout.readline().split()[:2] == ["before", "Pending"]
        operating.apply("after", RUN, suspend=True)
        assert process.stdout.readline().split()[:2] == ["after", "Pending"]
        grpo("cancel", "before")
        assert process.stdout.readline().split()[:2] == ["before", "Ending"]
        assert process.stdout.readline() == "before was deleted\n"
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=30)
    assert (process.returncode, printed, errors) == (130, "", "")


@pytest.mark.long
def test_wait_outlives_the_api_server(world: World, operating: Operating, grpo: Plugin) -> None:
    """It is killed and started again meanwhile."""
    operating.start()
    operating.apply("steady", [["wait:5 0"]])
    with grpo.begun("wait", "steady") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "waiting for 1 job\n"
        world.stop("kube-apiserver")
        world.start("kube-apiserver")
        printed, _ = process.communicate(timeout=120)
    assert (process.returncode, printed) == (0, "steady succeeded: Completed: every process ended with exit code 0\n")


def test_the_context_says_where_jobs_are(operating: Operating, grpo: Plugin, tmp_path: Path) -> None:
    """As kubectl takes it: the current context's namespace, or another's, unless -n names one."""
    operating.apply("here", RUN, suspend=True)
    known = yaml.safe_load(grpo.kubeconfig.read_text())
    (context,) = known["contexts"]
    known["contexts"].append(
        {"name": "team", "context": context["context"] | {"namespace": operating.namespace, "cluster": "test"}}
    )
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(known))

    def listed(*words: str) -> list[str]:
        ended = CliRunner().invoke(main, ["list", "--kubeconfig", str(path), *words])
        assert ended.exit_code == 0, ended.output
        return [line.split()[0] for line in ended.stdout.splitlines()]

    assert listed() == []
    assert listed("--context", "team") == ["NAME", "here"]
    assert listed("--context", "team", "-n", "default") == []
    known["current-context"] = "team"
    path.write_text(yaml.safe_dump(known))
    assert listed() == ["NAME", "here"]


def test_kubectl_finds_it_by_its_name(operating: Operating, grpo: Plugin, tmp_path: Path) -> None:
    """`kubectl grpo` runs the program that pyproject.toml names `kubectl-grpo`, and that calls itself so."""
    operating.apply("here", RUN, suspend=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"]["kubectl-grpo"].split(":")
    program = tmp_path / "kubectl-grpo"
    program.write_text(f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n")
    program.chmod(0o755)
    environ = os.environ | {
        "KUBECONFIG": str(grpo.kubeconfig),
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }

    def kubectl(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(binary("kubectl")), "grpo", *words]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    assert kubectl("list", "-n", operating.namespace).stdout.splitlines()[1].split()[0] == "here"
    wrong = kubectl("lst")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("Usage: kubectl grpo ")


def test_watch_draws_a_screen_on_a_terminal(operating: Operating, grpo: Plugin) -> None:
    """It is drawn again in its place, and stays as the job ended."""
    operating.start()
    operating.apply("drawn", [["wait:2 0"]])
    printed = on_terminal("watch", "drawn", "--kubeconfig", str(grpo.kubeconfig), "-n", operating.namespace)
    frames = printed.split("\x1b[1A")
    assert len(frames) > 2
    assert "Succeeded" in frames[-1]
    assert "every process ended with exit code 0" in frames[-1]


def test_top_shows_who_holds_devices(operating: Operating, grpo: Plugin) -> None:
    """The largest first, jobs without a machine not at all; and a sum."""
    operating.start()
    operating.apply("small", RUN)
    operating.apply("large", RUN, hosts=2)
    operating.apply("rests", RUN, suspend=True)
    for name in ("small", "large"):
        operating.wait_phase(name, "Running")
    _, *rows, last = grpo("top").stdout.splitlines()
    assert [row.split()[:3] for row in rows] == [["large", "Running", "2"], ["small", "Running", "1"]]
    assert last == "2 jobs, 3 chips, 0 tokens per second"
    assert [row["devices"] for row in json.loads(grpo("top", "-o", "json").stdout)] == [2, 1]


def test_jobs_are_suspended_resumed_and_cancelled(operating: Operating, grpo: Plugin) -> None:
    """What is so already, or over, is left; a cancelled job is gone with its pods."""
    operating.start()
    operating.apply("first", RUN)
    operating.apply("over", [["0"]])
    operating.wait_phase("first", "Running")
    operating.wait_phase("over", "Succeeded")
    told = grpo("suspend", "first", "over").stdout.splitlines()
    assert told == ["first suspended", "over has ended (Succeeded), left as it is"]
    operating.wait_phase("first", "Suspended")
    assert grpo("suspend", "first").stdout == "first is suspended already\n"
    assert grpo("resume", "first").stdout == "first resumed\n"
    operating.wait_phase("first", "Running")
    assert grpo("cancel", "first", "over").stdout.splitlines() == ["first cancelled", "over cancelled"]
    operating.wait(lambda: not operating.job("first") and not operating.pods("first"), "the job's end")


def test_a_hundred_jobs_are_one_command(operating: Operating, grpo: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """List, resume, suspend, wait and cancel take a hundred jobs at once, page by page, and each is told."""
    monkeypatch.setattr(jobs, "PAGE", 30)
    for number in range(100):
        body = operating.body(f"job-{number:03}", suspend=True)
        body["metadata"]["labels"] = {"sweep": "a" if number % 2 else "b"}
        operating.api.create(GRPOJOBS, body, operating.namespace)
    assert len(grpo("list").stdout.splitlines()) == 101
    assert len(json.loads(grpo("list", "-l", "sweep=a", "-o", "json").stdout)["items"]) == 50
    assert len(grpo("resume", "-l", "sweep=a").stdout.splitlines()) == 50
    assert grpo("suspend", "--all").stdout.count("suspended already") == 50
    assert grpo("wait", "--all", "--timeout", "0.5", code=124).stderr.count("job-") == 100
    assert grpo("cancel", "--all").stdout.count("cancelled") == 100
    assert "no jobs in namespace" in until(lambda: grpo("list").stderr, "the end of all jobs")


def test_a_job_that_is_not_there_is_told_with_what_was_meant(operating: Operating, grpo: Plugin) -> None:
    """The nearest name, the namespace where there is one, or how to find it; exit code 4."""
    operating.apply("training", RUN, suspend=True)
    assert "no job trainin in namespace" in grpo("status", "trainin", code=4).stderr
    assert "did you mean training?" in grpo("status", "trainin", code=4).stderr
    elsewhere = grpo("status", "training", "-n", "default", code=4).stderr
    assert f"there is one in namespace {operating.namespace}: give -n" in elsewhere
    assert "`kubectl grpo list -A` shows all" in grpo("logs", "nothing-like-it", code=4).stderr
    assert grpo("suspend", "training", "nothing-like-it", code=4).stdout == ""


def test_a_cluster_without_the_definition_is_told(operating: Operating, grpo: Plugin) -> None:
    """It is one sentence with the command that installs it, whatever was asked."""
    operating.world.kubectl("delete", "crd", "grpojobs.grpo.dev", "--timeout=30s")
    try:
        for words in (("list",), ("status", "any"), ("submit", grpo.file("any"))):
            told = until(lambda words=words: _lacking(grpo, words), "the end of the definition")
            assert "kubectl apply --server-side -f crds/grpojobs.yaml" in told
    finally:
        install_crd(operating.world)


def _lacking(grpo: Plugin, words: tuple[str, ...]) -> str | None:
    try:
        told: str = grpo(*words, code=3).stderr
    except AssertionError:  # it is still there
        return None
    return told if "knows no GRPOJob" in told else None


@pytest.mark.parametrize("words", [("suspend",), ("suspend", "a", "--all"), ("cancel",), ("watch", "a", "-A")])
def test_which_jobs_must_be_said(grpo: Plugin, words: tuple[str, ...]) -> None:
    """No command takes all jobs by accident."""
    assert grpo(*words, code=2).stderr.startswith("error: ")
