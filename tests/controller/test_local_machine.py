"""What a local run changes of the rendered pods, and what it leaves: environment, mounts, code, folders."""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.local import LocalError, Machine, run_job
from controller.local.replan import replan
from controller.local.run import run_manifests
from controller.local.sandbox import Mounts, objects_of
from controller.render import Manifests
from controller.resolve import Resolved
from trainer.contract.identity import identity

pytestmark = pytest.mark.skipif(os.name != "posix", reason="grpoctl run needs POSIX signals and says so elsewhere")

RENDERED = Path(__file__).parent / "rendered"
SHOW = """
import json, os, sys
sys.path[:] = sys.path[1:] if sys.path[0] == "" else sys.path
print(json.dumps({"env": dict(os.environ), "argv": sys.argv[1:], "cwd": os.getcwd(),
                  "run": json.load(open(os.environ["GRPO_RUN_CONFIG"]))}))
"""
SHELL = {"PATH": os.environ["PATH"], "HOME": "/home/me", "HF_HOME": "/home/me/models"}


class Shown:
    """What the processes of a run saw, by process, and what the run said."""

    def __init__(self, machine: Machine) -> None:
        assert isinstance(machine.out, io.StringIO)
        assert isinstance(machine.notes, io.StringIO)
        self.out, self.notes = machine.out.getvalue(), machine.notes.getvalue()
        lines = [line.partition(" | ")[2] for line in sorted(self.out.splitlines())]
        self.processes = [json.loads(line) for line in lines if line.startswith("{")]

    @property
    def env(self) -> dict[str, str]:
        env: dict[str, str] = self.processes[0]["env"]
        return env


Show = Callable[..., Shown]


@pytest.fixture
def show(tmp_path: Path) -> Show:
    """Runs a golden case's pods with a program that prints what it sees."""

    def show(case: str, program: str = SHOW, shell: dict[str, str] | None = None, **options: Any) -> Shown:
        config_map, job_set = yaml.safe_load_all((RENDERED / case / "manifests.yaml").read_text(encoding="utf-8"))
        (container,) = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
        container["command"] = ["python", "-c", program]
        machine = Machine(SHELL if shell is None else shell, tmp_path, io.StringIO(), io.StringIO(), colour=False)
        assert run_manifests(Manifests(config_map, job_set), machine=machine, **options) == 0, machine.notes.getvalue()  # type: ignore[attr-defined]
        return Shown(machine)

    return show


def _documents(case: str) -> list[Any]:
    return list(yaml.safe_load_all((RENDERED / case / "job.yaml").read_text(encoding="utf-8")))


def test_there_is_a_process_for_every_host(show: Show) -> None:
    """Each host of the job is a process with its own index, and all meet at one loopback address with a free port."""
    shown = show("cpu")
    assert [process["env"]["GRPO_HOST_INDEX"] for process in shown.processes] == ["0", "1"]
    addresses = {process["env"]["GRPO_COORDINATOR_ADDRESS"] for process in shown.processes}
    (address,) = addresses
    host, port = address.split(":")
    assert (host, port == "8482") == ("127.0.0.1", False)


def test_a_tpu_job_uses_cpu_devices_and_says_so(show: Show) -> None:
    """Two slices of four hosts are eight processes here; the plan stays as it is, only the platform changes."""
    shown = show("two-slices-spot")
    assert len(shown.processes) == 8
    assert {process["env"]["JAX_PLATFORMS"] for process in shown.processes} == {"cpu"}
    assert shown.processes[5]["env"]["GRPO_SLICE_INDEX"] == "1"
    assert shown.env["MEGASCALE_COORDINATOR_ADDRESS"] == "127.0.0.1"
    assert "the job asks for TPUs; here its processes use JAX's CPU devices" in shown.notes


def test_the_run_config_is_that_of_the_pod(show: Show) -> None:
    """Each process reads run.json of the ConfigMap, by the path in argument and environment alike."""
    shown = show("cpu")
    config_map = next(yaml.safe_load_all((RENDERED / "cpu" / "manifests.yaml").read_text(encoding="utf-8")))
    assert shown.processes[1]["run"] == json.loads(config_map["data"]["run.json"])
    assert shown.processes[1]["argv"] == ["--run-config", shown.processes[1]["env"]["GRPO_RUN_CONFIG"]]


def test_the_shell_hands_on_only_what_a_pod_would_not_say(show: Show) -> None:
    """Variables that describe a cluster's process come from the pod or not at all; others are the user's."""
    shell = SHELL | {
        "GRPO_ATTEMPT": "9",
        "JAX_ENABLE_X64": "1",
        "TPU_WORKER_ID": "3",
        "MEGASCALE_PORT": "1",
        "HF_HUB_OFFLINE": "1",
    }
    env = show("cpu", shell=shell).env
    assert env["GRPO_ATTEMPT"] == "0"
    assert not {"JAX_ENABLE_X64", "TPU_WORKER_ID", "MEGASCALE_PORT"} & env.keys()
    assert env["HF_HUB_OFFLINE"] == "1"


def test_the_machine_keeps_its_own_home_and_model_cache(show: Show) -> None:
    """A pod needs volumes for these; here a model that was downloaded before is found again."""
    env = show("cpu").env
    assert (env["HOME"], env["HF_HOME"]) == ("/home/me", "/home/me/models")
    assert "TMPDIR" not in env


def test_the_working_folder_is_the_users(show: Show, tmp_path: Path) -> None:
    """What a pod writes to /workspace lies where the command was typed; a module there does not shadow the trainer."""
    (tmp_path / "trainer.py").write_text("raise SystemExit('shadowed')")
    shown = show("cpu", program="import trainer.contract.exits\n" + SHOW)
    assert shown.processes[0]["cwd"] == str(tmp_path)


def test_users_code_comes_from_the_files_config_map(show: Show) -> None:
    """`spec.code` names a ConfigMap that is another document of the file."""
    program = "import rewards\nprint(rewards.short(['p'], ['abc'], [[1]]))"
    shown = show("user-code", program=program, documents=_documents("user-code"))
    assert sorted(shown.out.splitlines()) == ["0 | [0.25]", "1 | [0.25]"]


def test_users_code_may_be_a_folder(show: Show, tmp_path: Path) -> None:
    """`--code DIR` stands for the ConfigMap, sub-packages included."""
    package = tmp_path / "mine" / "deep"
    package.mkdir(parents=True)
    (package / "rewards.py").write_text("WHERE = __file__")
    shown = show("user-code", program="import deep.rewards as r; print(r.WHERE)", code=tmp_path / "mine")
    where = package / "rewards.py"
    assert sorted(shown.out.splitlines()) == [f"0 | {where}", f"1 | {where}"]


def test_missing_code_is_refused_before_anything_starts(show: Show) -> None:
    """Without the ConfigMap and without a folder the run says where the code may come from."""
    with pytest.raises(LocalError) as refused:
        show("user-code")
    assert str(refused.value) == (
        "spec.code.configMap: my-rewards is not in this file; "
        "add the ConfigMap to it as another document, or give the folder with --code DIR"
    )


def test_a_folder_that_no_process_would_see_is_refused(resolve_job: Callable[..., Resolved], tmp_path: Path) -> None:
    """`--code` stands for `spec.code`: without it the cluster would not find the code that the local run found."""
    with pytest.raises(LocalError, match=r"--code: the job has no spec\.code"):
        run_job(resolve_job(), machine=Machine.here(colour=False), code=tmp_path)


def test_a_shared_volume_is_a_folder_here(show: Show, tmp_path: Path) -> None:
    """A claim's mount path becomes a folder below the working folder, in run.json and in the environment alike."""
    shared = {"kind": "ConfigMap", "metadata": {"name": "shared-settings"}, "data": {"LEVEL": "3"}}
    shown = show("pod-settings", shell=SHELL | {"HF_TOKEN": "t"}, documents=[shared])
    folder = tmp_path / "volumes" / "runs"
    assert shown.processes[0]["run"]["output_uri"] == f"{folder}/grpo"
    assert (shown.env["HF_HOME"], shown.env["LEVEL"], shown.env["HF_TOKEN"]) == (f"{folder}/models", "3", "t")
    assert folder.is_dir()
    assert f"volume runs is the folder {folder} here" in shown.notes
    assert shown.env["GREETING"] == f"grüß dich 😀 from {shown.env['GRPO_RUN_ID']}"


def test_the_temporary_folder_is_gone_afterwards(show: Show) -> None:
    """ConfigMaps, and with them a user's Secrets, are not left on the disk."""
    assert not Path(show("cpu").env["GRPO_RUN_CONFIG"]).exists()


def test_mounts_rewrite_whole_paths_only() -> None:
    """A path under a mount moves, in a list joined by colons too; a longer mount wins; other text stays."""
    mounts = Mounts.of({"/data": "/x", "/data/deep": "/y", "/etc/grpo": "/z"})
    assert mounts.local("/data/a") == "/x/a"
    assert mounts.local("/data/deep/a:/data:/etc/grpo-code") == "/y/a:/x:/etc/grpo-code"
    assert mounts.local("/database") == "/database"
    assert mounts.local("gs://data/a") == "gs://data/a"
    assert mounts.local_data({"a": ["/data", 1, None]}) == {"a": ["/x", 1, None]}


def test_objects_are_read_as_kubernetes_does() -> None:
    """A Secret's data is base64 and its stringData is text; a ConfigMap's data is text and its binaryData base64."""
    documents = [
        {"kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "Yg=="}, "stringData": {"c": "d"}},
        {"kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}, "binaryData": {"c": "ZA=="}},
        {"kind": "Service", "metadata": {"name": "x"}},
    ]
    both = {"a": b"b", "c": b"d"}
    assert objects_of(documents) == {("Secret", "s"): both, ("ConfigMap", "m"): both}


@pytest.fixture
def run_ids(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run ids of the jobs that `run_job` rendered, which are not started."""
    ids: list[str] = []

    def note_run_id(manifests: Manifests, **_: Any) -> int:
        ids.append(manifests.job_set["metadata"]["labels"]["grpo.dev/run-id"])
        return 0

    monkeypatch.setattr("controller.local.run.run_manifests", note_run_id)
    return ids


def test_the_same_job_resumes_and_a_new_run_starts_afresh(
    resolve_job: Callable[..., Resolved], run_ids: list[str]
) -> None:
    """The run id is the RunConfig's identity, so the same file finds its folder; --new-run has another each time."""
    resolved, machine = resolve_job(), Machine.here(colour=False)
    for new_run in (False, False, True, True):
        run_job(resolved, machine=machine, new_run=new_run)
    assert run_ids[0] == run_ids[1] == identity(resolved.run)[:8]
    assert len(set(run_ids)) == 3
    assert all(len(run_id) == 8 for run_id in run_ids)


def test_the_same_job_on_other_devices(resolve_job: Callable[..., Resolved]) -> None:
    """--processes and --devices-per-process resolve the job anew as cpu hosts; what is not given stays."""
    was = resolve_job({"rollout": {"batchSize": 128}})
    again = replan(was.job, was, processes=2, devices_per_process=None).resolved
    assert again is not None
    assert (again.run.batch.processes, again.run.batch.devices_per_process) == (2, 4)
    assert again.run.batch.sequences_per_step == was.run.batch.sequences_per_step == 128
    refused = replan(was.job, was, processes=3, devices_per_process=4)
    assert [violation.rule for violation in refused.violations] == ["prompts-over-processes"]


def test_colour_marks_processes_only_when_asked(tmp_path: Path) -> None:
    """On a terminal each process's prefix has a colour; elsewhere there is no escape sequence."""
    config_map, job_set = yaml.safe_load_all((RENDERED / "cpu" / "manifests.yaml").read_text(encoding="utf-8"))
    (container,) = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    container["command"] = ["python", "-c", "print('x')"]
    for colour in (True, False):
        machine = Machine(SHELL, tmp_path, io.StringIO(), io.StringIO(), colour, python=sys.executable)
        run_manifests(Manifests(config_map, job_set), machine=machine)
        assert ("\033[" in Shown(machine).out) is colour
