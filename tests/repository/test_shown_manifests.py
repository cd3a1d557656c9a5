"""What the documentation shows and no test can run here is at least well-formed: manifests, commands, chart values.

Whether an API server takes the manifests: tests/controlplane/test_shown_manifests.py.
"""

import re
import subprocess
from typing import Any

import pytest
import yaml

from controller.commands.documents import judge_text
from controller.tpu import TpuSlice, find_slice
from tests.documented import ROOT, Block, blocks, objects
from trainer.contract.runner import merge

READY_JOB = ROOT / "configs/jobs/qwen2.5-3b-gsm8k-v6e-4x4.yaml"
FOLDERS = ("charts", "configs", "controller", "examples", "tests", "trainer")
JOBS = [(block, body) for block, body in objects() if body["kind"] == "GRPOJob"]
PARTS = [block for block in blocks("yaml") if list(block.documents[0]) == ["spec"]]


def merged(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: merged(whole[key], value) if isinstance(value, dict) and isinstance(whole.get(key), dict) else value
        for key, value in part.items()
    }
    return whole | both


def violations(job: dict[str, Any]) -> list[str]:
    (judged,) = judge_text(yaml.safe_dump(job), "job.yaml", "job.yaml", ())
    return [str(violation) for violation in judged.violations]


@pytest.mark.parametrize(("block", "job"), [pytest.param(*one, id=str(one[0])) for one in JOBS])
def test_a_job_that_is_shown_is_valid(block: Block, job: dict[str, Any]) -> None:
    """`grpoctl validate` finds nothing in a job that a reader may copy."""
    assert violations(job) == []


@pytest.mark.parametrize("block", PARTS, ids=str)
def test_a_part_of_a_job_that_is_shown_is_valid(block: Block) -> None:
    """Laid over the last whole job of its page, or over a ready one, it is a valid job."""
    before = [job for other, job in JOBS if other.page == block.page and other.line < block.line]
    whole = before[-1] if before else yaml.safe_load(READY_JOB.read_text())
    (part,) = block.documents
    assert violations(merged(whole, part)) == []


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_commands_that_are_shown_can_be_read(block: Block) -> None:
    """A shell parses them, and the files of the repository that they name are there."""
    read = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")
    named = re.findall(rf"(?<![\w/.-])((?:{'|'.join(FOLDERS)})/[\w./-]+)", block.text)
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_values_that_are_shown_are_values_of_the_chart() -> None:
    """Each `--set` of a helm command names a key of values.yaml."""
    values = yaml.safe_load((ROOT / "charts/grpojob-operator/values.yaml").read_text())
    shown = {
        key
        for block in blocks("bash")
        for command in re.sub(r"\\\n", " ", block.text).splitlines()
        if "charts/grpojob-operator" in command
        for key in re.findall(r"--set (\S+?)=", command)
    }
    assert shown
    assert [key for key in sorted(shown) if not has(values, key)] == []


GUIDE = ROOT / "docs/gke.md"
LINK, CODE, NODES = r"\[.*?\]\(\.\./(configs/jobs/\S+?)\)", r"`(\S+)`", r"(?:two pools of )?(\d+)"
POOL = re.compile(rf"^\| {LINK} \| .*? \| {CODE} \| {NODES} \| (\S+) \|$", re.M)


@pytest.mark.parametrize("row", POOL.findall(GUIDE.read_text(encoding="utf-8")), ids=lambda row: row[0])
def test_a_node_pool_of_the_guide_fits_its_job(row: tuple[str, str, str, str]) -> None:
    """Machine type and nodes are those of the job's slice, and a topology is named where there are several hosts."""
    path, machine, nodes, topology = row
    tpu = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))["spec"]["tpu"]
    found = find_slice(tpu["accelerator"], tpu["topology"], tpu.get("machineType"))
    assert isinstance(found, TpuSlice)
    assert (machine, int(nodes)) == (found.machine_type, found.hosts)
    assert topology == (f"`{found.topology}`" if found.hosts > 1 else "–")


def test_every_ready_job_that_the_guide_names_has_its_pool() -> None:
    """No row of the guide's table escapes the test above."""
    named = set(re.findall(r"configs/jobs/[\w.-]+\.yaml", GUIDE.read_text(encoding="utf-8")))
    assert named == {row[0] for row in POOL.findall(GUIDE.read_text(encoding="utf-8"))} != set()


def has(values: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def test_every_block_with_yaml_is_of_a_kind_that_a_test_reads() -> None:
    """A whole object, a part of a job, or keys of a runner file: nothing else is shown as YAML."""
    strange = []
    for block in blocks("yaml"):
        for document in block.documents:
            if "kind" not in document and list(document) != ["spec"] and not runner_keys(document):
                strange.append(str(block))
    assert strange == []


def runner_keys(document: dict[str, Any]) -> bool:
    return not merge(yaml.safe_dump(document), (), "shown").violations
