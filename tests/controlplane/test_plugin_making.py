"""`kubectl grpo` makes jobs: with their code, changed, compared; and what is refused leaves nothing behind."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cluster.resources import CONFIG_MAPS
from tests.controlplane.operating import SCRIPT, Operating
from tests.controlplane.plugging import Plugin

ENDS = [{"name": "PLAN", "value": '[["0"]]'}]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with the scripted trainer as a user's code."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "trainer.py").write_text(SCRIPT.read_text())
    (folder / "notes.txt").write_text("as it was tried")
    (folder / "__pycache__").mkdir()
    return folder


def config_maps(operating: Operating) -> dict[str, dict[str, Any]]:
    """Those with somebody's code."""
    found = operating.api.list(CONFIG_MAPS, operating.namespace, "app.kubernetes.io/managed-by=grpoctl")["items"]
    return {one["metadata"]["name"]: one for one in found}


def test_a_file_becomes_a_job_that_owns_its_code(operating: Operating, grpo: Plugin, code: Path) -> None:
    """The folder is an immutable ConfigMap, is what the pods run, and goes with the job."""
    operating.start()
    told = grpo("submit", grpo.file("mine", code=None, env=ENDS), "--code", str(code), "--set", "steps=7").stdout
    assert told == "grpojob.grpo.dev/mine created\n"
    ((name, packed),) = config_maps(operating).items()
    assert packed["immutable"] is True
    assert set(packed["data"]) == {"trainer.py", "notes.txt"}
    job = operating.job("mine")
    assert (job["spec"]["code"], job["spec"]["steps"]) == ({"configMap": name}, 7)
    assert [owner["uid"] for owner in packed["metadata"]["ownerReferences"]] == [job["metadata"]["uid"]]
    operating.wait_phase("mine", "Succeeded")
    grpo("cancel", "mine")
    operating.wait(lambda: not config_maps(operating), "the end of the code")


def test_several_jobs_of_one_file_share_their_code(operating: Operating, grpo: Plugin, code: Path) -> None:
    """It has both as owners. A ConfigMap of the file is applied."""
    more = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "more"}, "data": {"a": "b"}}
    path = Path(grpo.file("one", suspend=True))
    path.write_text("---\n".join(yaml.safe_dump(one) for one in (more, operating.body("one"), operating.body("two"))))
    made = json.loads(grpo("submit", str(path), "--code", str(code), "-o", "json").stdout)
    assert [one["metadata"]["name"] for one in made["items"]] == ["one", "two"]
    (packed,) = config_maps(operating).values()
    assert [owner["name"] for owner in packed["metadata"]["ownerReferences"]] == ["one", "two"]
    assert operating.api.get(CONFIG_MAPS, "more", operating.namespace)["data"] == {"a": "b"}


def test_two_jobs_of_one_name_are_refused_together(operating: Operating, grpo: Plugin) -> None:
    """Before the first is made. A namespace that the file names is not overruled, and other kinds are not made."""
    path = Path(grpo.file("twin"))
    path.write_text("---\n".join([path.read_text()] * 2))
    assert "metadata.name: twin is the name of 2 jobs of the file" in grpo("submit", str(path), code=2).stderr
    body = operating.body("placed", suspend=True)
    body["metadata"]["namespace"] = operating.namespace
    path.write_text(yaml.safe_dump(body))
    assert "which was given with -n; leave one of them out" in grpo("submit", str(path), "-n", "default", code=2).stderr
    path.write_text(yaml.safe_dump(body) + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n")
    assert "the file has a Secret; apply it with kubectl" in grpo("submit", str(path), code=2).stderr
    assert grpo("list").stdout == ""


def test_a_name_that_is_taken_gets_a_suffix(operating: Operating, grpo: Plugin) -> None:
    """Refused with the way out; with a suffix, or a random one, another job is made, whose name is judged too."""
    path = grpo.file("taken", suspend=True)
    grpo("submit", path)
    refused = grpo("submit", path, code=1).stderr
    assert f"there is a job taken in namespace {operating.namespace}; give --name-suffix" in refused
    assert grpo("submit", path, "--name-suffix", "lr2").stdout == "grpojob.grpo.dev/taken-lr2 created\n"
    name = grpo("submit", path, "--name-suffix", "random").stdout.split("/")[1].split()[0]
    assert operating.job(name)["spec"]["suspend"] is True
    assert len(name) == len("taken-abcde")
    assert "metadata.name" in grpo("submit", path, "--name-suffix", "A_B", code=1).stderr


def test_what_is_refused_leaves_nothing_behind(operating: Operating, grpo: Plugin, code: Path) -> None:
    """A rule that is broken is told here; what only the cluster refuses, in its words. No ConfigMap is left."""
    invalid = grpo.file("bad", rollout={"batchSize": 100}, steps=0)
    told = grpo("submit", invalid, "--code", str(code), code=1).stderr
    assert "spec.rollout.batchSize: 100 must be a multiple of numPreQ = 8" in told
    assert "spec.steps: 0" in told
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}}
    quota |= {"spec": {"hard": {"count/grpojobs.grpo.dev": "0"}}}
    operating.world.kubectl("-n", operating.namespace, "apply", "-f", "-", stdin=json.dumps(quota))
    limited = grpo.file("limited")
    operating.wait(lambda: _is_refused(grpo, limited, code), "the quota")
    assert config_maps(operating) == {}
    assert operating.job("limited") == {}


def _is_refused(grpo: Plugin, path: str, code: Path) -> bool:
    try:
        told = grpo("submit", path, "--code", str(code), code=3).stderr
    except AssertionError:  # the quota is not counted yet
        grpo("cancel", "limited")
        return False
    assert "exceeded quota: none" in told
    return True


def test_a_dry_run_makes_nothing(operating: Operating, grpo: Plugin, code: Path) -> None:
    """The cluster says whether it would take the job."""
    told = grpo("submit", grpo.file("tried"), "--code", str(code), "--dry-run").stdout
    assert told == "grpojob.grpo.dev/tried created (server dry run)\n"
    assert operating.job("tried") == {}
    assert config_maps(operating) == {}


def test_a_clone_is_the_same_but_for_what_is_set(operating: Operating, grpo: Plugin, code: Path) -> None:
    """It shares the code of its original, which stays until the last is gone, and does not rest where that does."""
    operating.start()
    grpo("submit", grpo.file("first", env=ENDS, suspend=True), "--code", str(code))
    cloned = json.loads(grpo("clone", "first", "--name-suffix", "b", "--set", "steps=7", "-o", "json").stdout)
    assert (cloned["metadata"]["name"], cloned["spec"]["steps"]) == ("first-b", 7)
    assert cloned["spec"]["code"] == operating.job("first")["spec"]["code"]
    grpo("cancel", "first")
    assert operating.wait_phase("first-b", "Succeeded")
    operating.wait(lambda: _owners(operating) == ["first-b"], "the end of the original's part in the code")
    assert grpo("clone", "first-b", "--dry-run").stdout.endswith(" created (server dry run)\n")
    told = grpo("clone", "first-b", "--set", "rollout.batchSize=100", code=1).stderr
    assert "spec.rollout.batchSize: 100 must be a multiple of" in told
    grpo("cancel", "first-b")
    operating.wait(lambda: not config_maps(operating), "the end of the code")


def _owners(operating: Operating) -> list[str]:
    (packed,) = config_maps(operating).values()
    return [owner["name"] for owner in packed["metadata"]["ownerReferences"]]


def test_a_clone_names_shared_code_again(operating: Operating, grpo: Plugin) -> None:
    """What nobody owns is not copied; what is gone is told."""
    operating.apply("shares", suspend=True)
    cloned = json.loads(grpo("clone", "shares", "-o", "json").stdout)
    assert cloned["spec"]["code"] == {"configMap": "script"}
    operating.api.delete(CONFIG_MAPS, "script", operating.namespace)
    assert "spec.code.configMap: script is gone" in grpo("clone", "shares", code=1).stderr


def test_jobs_are_compared_by_what_they_come_to(operating: Operating, grpo: Plugin) -> None:
    """A file and the job made of it are the same, whatever the server filled in; else keys are told with values."""
    path = grpo.file("a", suspend=True)
    grpo("submit", path)
    assert "have the same specification" in grpo("diff", path, "a").stderr
    grpo("clone", "a", "--name-suffix", "b", "--set", "steps=7", "--set", "suspend=true", "--set", "rollout.topK=5")
    head, *rows = (line.split() for line in grpo("diff", "a", "a-b", code=1).stdout.splitlines())
    assert head == ["KEY", "a", "a-b"]
    assert rows == [["spec.rollout.topK", "0", "5"], ["spec.steps", "100", "7"]]
    told = json.loads(grpo("diff", "a", "a-b", "-o", "json", code=1).stdout)
    assert told[1] == {"path": "spec.steps", "a": 100, "b": 7}
    assert "is no file with one GRPOJob" in grpo("diff", str(Path(__file__)), "a", code=2).stderr


def test_validate_asks_the_server_too(operating: Operating, grpo: Plugin) -> None:
    """What only it knows is told like any violation: that a job that is there cannot be changed so."""
    path = grpo.file("there", suspend=True)
    assert ": valid\n" in grpo("validate", path, "--server").stdout
    grpo("submit", path)
    assert ": valid\n" in grpo("validate", path, "--server").stdout
    told = grpo("validate", path, "--server", "--set", "steps=7", code=1).stdout
    assert "invalid, 1 violation" in told
    assert "spec.steps: Forbidden: stays as it was when the job was made" in told
    (document,) = json.loads(grpo("validate", path, "--server", "-o", "json", "--set", "steps=7", code=1).stdout)
    assert [violation["rule"] for violation in document["violations"]] == ["server"]
    assert operating.job("there")["spec"].get("steps", 100) == 100


def test_the_rights_that_the_page_names_are_enough(operating: Operating, grpo: Plugin, code: Path) -> None:
    """docs/kubectl.md: what looking, making and switching need."""
    user = grpo.as_user(
        grpojobs="get,list,watch,create,patch,delete",
        pods="get,list",
        logs="get",
        events="list",
        configmaps="create,get,patch,delete",
    )
    operating.start()
    plan = [{"name": "PLAN", "value": '[["say:3 run"]]'}]
    path = grpo.file("allowed", env=plan)
    grpo("submit", path, "--code", str(code), kubeconfig=user)
    operating.wait_phase("allowed", "Running")
    operating.wait(lambda: len(grpo("logs", "allowed", kubeconfig=user).stdout.splitlines()) == 3, "what is said")
    assert "not allowed" not in grpo("status", "allowed", kubeconfig=user).stdout
    for words in (("list",), ("top",), ("clone", "allowed"), ("suspend", "--all"), ("resume", "allowed")):
        grpo(*words, kubeconfig=user)
    assert (
        ": valid\n" in grpo("validate", path, "--set", "code={configMap: script}", "--server", "-n", "default").stdout
    )
    grpo("cancel", "--all", kubeconfig=user)
    operating.wait(lambda: not config_maps(operating), "the end of the code")
