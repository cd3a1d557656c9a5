"""`grpoctl` as a program: exit codes, standard input, JSON, colour, imports."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from controller import __version__
from controller.cli import main

HERE = Path(__file__).parent
VALID = HERE / "accepted" / "round-up.yaml"
INVALID = HERE / "refused" / "unknown-key-many-at-once.yaml"
MALFORMED = HERE / "refused" / "yaml.yaml"
RULE_KEYS = {"rule", "path", "value", "message"}
PLAN_KEYS = [
    "processes",
    "devicesPerProcess",
    "hosts",
    "slices",
    "mesh",
    "groupSize",
    "sequencesPerStep",
    "promptsPerStep",
    "promptsPerPassPerProcess",
    "passes",
    "sequencesPerProcess",
    "sequencesPerMicroStep",
    "microSteps",
    "summary",
]


def grpoctl(*args: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> Result:
    """The command line inside this process; `as_program` starts one."""
    return CliRunner().invoke(main, args, input=stdin, env=env, prog_name="grpoctl")


def as_program(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "controller", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1], check=False)


HEAVY = ("jax", "kubernetes", "urllib3", "transformers", "numpy")


@pytest.mark.parametrize(
    ("program", "unwanted"),
    [
        ("import controller.cli", (*HEAVY, "pydantic", "jinja2", "rich")),
        (
            f"from controller.cli import main; main(['validate', {str(VALID)!r}], standalone_mode=False)",
            (*HEAVY, "jinja2", "rich"),
        ),
        (f"from controller.cli import main; main(['render', {str(VALID)!r}], standalone_mode=False)", HEAVY),
    ],
    ids=["import", "validate", "render"],
)
def test_a_command_loads_nothing_that_it_does_not_use(program: str, unwanted: tuple[str, ...]) -> None:
    """Neither JAX nor the Kubernetes client nor transformers is loaded to judge a job, nor what prints tables."""
    show = f"import sys\n{program}\nprint('LOADED', [name for name in {unwanted!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True, cwd=HERE.parents[1])
    assert done.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("validate", str(VALID)), 0),
        (("plan", str(VALID)), 0),
        (("render", str(VALID)), 0),
        (("validate", str(INVALID)), 1),
        (("validate", str(MALFORMED)), 1),
        (("validate", str(VALID), str(INVALID)), 1),
        (("plan", str(INVALID)), 1),
        (("render", str(INVALID)), 1),
        (("validate", "no-such-file.yaml"), 2),
        (("validate",), 2),
        (("validate", str(VALID), "--set", "steps"), 2),
        (("validate", str(VALID), "--set", "steps={"), 2),
        (("validate", "-", "-"), 2),
        (("explain", "no-such-rule"), 2),
        (("frobnicate",), 2),
        (("run", str(INVALID)), 2),
        (("--version",), 0),
    ],
)
def test_exit_codes(args: tuple[str, ...], code: int) -> None:
    """0 for valid, 1 for invalid, 2 for wrong usage; `run` speaks the trainer's codes, in which an invalid job is 2."""
    done = grpoctl(*args)
    assert done.exit_code == code
    assert done.exception is None or isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    ("job", "code"), [(VALID, 0), (INVALID, 1), (HERE / "none.yaml", 2)], ids=["valid", "invalid", "none"]
)
def test_the_program_exits_as_the_command_does(job: Path, code: int) -> None:
    """`python -m controller` is `grpoctl`, exit codes included."""
    assert as_program("validate", str(job)).returncode == code


def test_the_version_is_the_package_s() -> None:
    """`--version` names the program and its version."""
    assert grpoctl("--version").stdout == f"grpoctl {__version__}\n"


def test_standard_input_is_a_file_named_dash() -> None:
    """`-` reads a job from standard input, and errors of its text name it."""
    done = grpoctl("validate", "-", "-o", "json", stdin=VALID.read_bytes())
    (document,) = json.loads(done.stdout)
    assert (document["file"], document["valid"]) == ("-", True)
    assert "<stdin>:3:4: not YAML" in grpoctl("validate", "-", stdin=b"a: b\nc: {d: 1\n  e: 2\n").stdout


def test_a_yaml_error_is_told_with_file_line_and_column() -> None:
    """Malformed YAML is one violation with its place."""
    assert f"{MALFORMED}:7:8: not YAML" in grpoctl("validate", str(MALFORMED)).stdout


def test_text_that_is_not_utf8_is_told_with_its_line() -> None:
    """Bytes that are no UTF-8 are a violation of the rule yaml."""
    done = grpoctl("validate", "-", stdin=b"a: 1\nb: \xff\n")
    assert "<stdin>:2: not UTF-8 text" in done.stdout
    assert done.exit_code == 1


def test_json_is_a_list_with_one_object_a_document() -> None:
    """`-o json` lists every document of every file in order, those that do not parse too, with these keys alone."""
    done = grpoctl("validate", str(VALID), str(MALFORMED), str(INVALID), "-o", "json")
    documents = json.loads(done.stdout)
    assert [Path(document["file"]).stem for document in documents] == [VALID.stem, MALFORMED.stem, INVALID.stem]
    for document in documents:
        assert list(document) == ["file", "document", "name", "valid", "violations", "warnings", "plan"]
        assert all(set(found) == RULE_KEYS for found in document["violations"] + document["warnings"])
    valid, malformed, invalid = documents
    assert (valid["valid"], valid["name"], valid["document"]) == (True, "rounded", 0)
    assert list(valid["plan"]) == PLAN_KEYS
    assert valid["plan"]["mesh"] == {"dp": 1, "fsdp": 12, "tp": 1}
    assert (valid["plan"]["sequencesPerStep"], valid["plan"]["microSteps"]) == (144, 1)
    assert [found["rule"] for found in valid["warnings"]] == ["prompts-over-processes", "shared-output"]
    assert (malformed["valid"], malformed["name"], malformed["plan"]) == (False, None, None)
    assert [found["rule"] for found in malformed["violations"]] == ["yaml"]
    assert (invalid["name"], invalid["plan"]) == ("Many_Faults", None)


def test_plan_prints_the_json_of_validate() -> None:
    """Both commands print the same list."""
    assert grpoctl("plan", str(VALID), "-o", "json").stdout == grpoctl("validate", str(VALID), "-o", "json").stdout


def test_the_documents_of_a_file_are_counted() -> None:
    """A file of several jobs is judged job by job, and objects of other kinds are passed over."""
    two = VALID.read_bytes() + b"---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n---\n" + INVALID.read_bytes()
    documents = json.loads(grpoctl("validate", "-", "-o", "json", stdin=two).stdout)
    assert [(found["document"], found["name"], found["valid"]) for found in documents] == [
        (0, "rounded", True),
        (1, "s", True),
        (2, "Many_Faults", False),
    ]


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("rollout.batchSize=100", "spec.rollout.batchSize: 100 must be a multiple of numPreQ = 8"),
        ("tpu={accelerator: v5e, topology: 2x2}", 'spec.tpu.accelerator: "v5e" is no TPU accelerator of GKE'),
        ("modelPath.revision=1", "spec.modelPath.revision: 1 has no place here"),
        ("rewards[7].weight=1", "spec.rewards[7].weight: 1 has no place here"),
        ("stpes=1", 'spec.stpes: "stpes" is not a key of spec; did you mean steps?'),
    ],
)
def test_a_fault_of_a_set_value_says_where_it_came_from(assignment: str, told: str) -> None:
    """`--set` lays a YAML value below spec; when it breaks a rule the error names --set."""
    extra = ("--set", "cpu=null", "--set", "padding=null") if assignment.startswith("tpu") else ()
    done = grpoctl("validate", str(VALID), "--set", "rollout.padding=Reject", "--set", assignment, *extra)
    (line,) = [line for line in done.stdout.splitlines() if told in line]
    assert "(the value came from --set)" in line


def test_set_reaches_keys_lists_and_new_sections() -> None:
    """A later --set wins over an earlier one; missing sections are made; an index names an entry of a list."""
    job = HERE / "accepted" / "code-in-the-same-file.yaml"
    sets = ("rollout.batchSize=8", "rollout.batchSize=64", "checkpoint.keep=5", "rewards[1].weight=0.25")
    args = [word for assignment in sets for word in ("--set", assignment)]
    done = grpoctl("render", str(job), *args, "-o", "json")
    run = json.loads(
        next(found for found in json.loads(done.stdout)["items"] if "run.json" in found.get("data", {}))["data"][
            "run.json"
        ]
    )
    assert (run["batch"]["sequences_per_step"], run["checkpoint"]["keep"], run["rewards"][1]["weight"]) == (64, 5, 0.25)


def test_render_prints_what_kubectl_applies() -> None:
    """YAML and JSON hold the same objects: those of other kinds as they are, then each job's ConfigMap and JobSet."""
    job = str(HERE / "accepted" / "code-in-the-same-file.yaml")
    stream = [found for found in yaml.safe_load_all(grpoctl("render", job).stdout) if found]
    listed: dict[str, Any] = json.loads(grpoctl("render", job, "-o", "json").stdout)
    assert listed["kind"] == "List"
    assert listed["items"] == stream
    assert [found["kind"] for found in stream] == ["ConfigMap", "ConfigMap", "JobSet"]


def test_render_writes_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-o dir` writes one file for each object, and prints their names."""
    monkeypatch.chdir(tmp_path)
    done = grpoctl("render", str(VALID), "-o", "dir", "--folder", "out", "--namespace", "team-a")
    written = sorted((tmp_path / "out").iterdir())
    assert [Path(line) for line in sorted(done.stdout.splitlines())] == [path.relative_to(tmp_path) for path in written]
    objects = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in written]
    assert [(found["kind"], found["metadata"]["namespace"]) for found in objects] == [
        ("ConfigMap", "team-a"),
        ("JobSet", "team-a"),
    ]


def test_render_prints_nothing_where_one_job_is_invalid() -> None:
    """Of two jobs with one fault nothing reaches kubectl; the reasons go to the error stream."""
    done = grpoctl("render", str(VALID), str(INVALID))
    assert done.stdout == ""
    assert "spec.stpes" in done.stderr


def test_init_writes_a_job_that_validates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`init` writes a commented job which is valid as it stands, and overwrites only when told to."""
    monkeypatch.chdir(tmp_path)
    assert grpoctl("init").exit_code == 0
    assert grpoctl("validate", "job.yaml").exit_code == 0
    again = grpoctl("init", "job.yaml")
    assert (again.exit_code, "job.yaml exists" in again.stderr) == (2, True)
    assert grpoctl("init", "--force").exit_code == 0
    assert grpoctl("init", "-").stdout == (tmp_path / "job.yaml").read_text(encoding="utf-8")


def test_the_comments_of_init_can_be_uncommented() -> None:
    """What the template offers in comments is accepted once it is uncommented."""
    lines = grpoctl("init", "-").stdout.splitlines()
    optional = ("checkpoint:", "everySteps:", "output:", "uri:", "volumes:", "persistentVolumeClaim:", "claimName:")
    also = ("volumeMounts:", "mountPath:", "env:", "valueFrom:", "secretKeyRef:", "key:", "name:", "- name:")
    words = (*optional, *also)
    job = "\n".join(
        line.replace("# ", "", 1)
        if line.lstrip().startswith("# ") and line.split("# ")[1].lstrip().startswith(words)
        else line
        for line in lines
    )
    done = grpoctl("validate", "-", stdin=job.encode())
    assert done.exit_code == 0, done.stdout
    assert "warning" not in done.stdout


def test_explain_tells_a_rule_and_lists_all() -> None:
    """`explain RULE` says what it asks for, and why; without a rule all are listed; a misspelt one gets the nearest."""
    from trainer.contract.rules import RULES

    told = " ".join(grpoctl("explain", "whole-passes").stdout.split())
    assert " ".join(RULES["whole-passes"].explanation.split()) in told
    listed = grpoctl("explain").stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(RULES)
    assert "whole-pass is no rule; use whole-passes" in grpoctl("explain", "whole-pass").stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_ask_grpoctl(shell: str) -> None:
    """The script of each shell asks grpoctl itself for what can follow."""
    assert "_GRPOCTL_COMPLETE" in grpoctl("completion", shell).stdout


def test_completion_knows_commands_and_rules() -> None:
    """What can follow is completed: commands, and the rules of `explain`."""
    asked = {"_GRPOCTL_COMPLETE": "bash_complete", "COMP_WORDS": "grpoctl explain whole", "COMP_CWORD": "2"}
    assert grpoctl(env=asked).stdout.split() == ["plain,whole-passes"]
    asked |= {"COMP_WORDS": "grpoctl va", "COMP_CWORD": "1"}
    assert grpoctl(env=asked).stdout.split() == ["plain,validate"]


def test_a_line_that_is_wrong_so_far_completes_to_nothing() -> None:
    """While a shell asks, an unknown command is no error."""
    asked = {"_GRPOCTL_COMPLETE": "bash_complete", "COMP_WORDS": "grpoctl valdate job", "COMP_CWORD": "2"}
    assert grpoctl(env=asked).exception is None or isinstance(grpoctl(env=asked).exception, SystemExit)


def test_a_misspelt_command_is_told_with_the_nearest() -> None:
    """What is no command gets the nearest one."""
    assert "no such command: valdate; did you mean validate?" in grpoctl("valdate").stderr


def on_terminal(*args: str, **env: str) -> str:
    """What a program prints where its output is a terminal."""
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminal")
    ours, its = pty.openpty()
    environment = {**{key: value for key, value in os.environ.items() if key != "NO_COLOR"}, "TERM": "xterm", **env}
    process = subprocess.Popen(
        [sys.executable, "-m", "controller", *args], stdout=its, cwd=HERE.parents[1], env=environment
    )
    os.close(its)
    printed = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        printed += part
    process.wait()
    os.close(ours)
    return printed.decode()


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_colour_is_for_terminals_without_no_color(command: str) -> None:
    """Escape sequences are printed to a terminal alone, and not there either where NO_COLOR is set."""
    assert "\x1b[" in on_terminal(command, str(VALID))
    assert "\x1b[" not in on_terminal(command, str(VALID), NO_COLOR="1")
    assert "\x1b[" not in grpoctl(command, str(VALID)).stdout


def test_run_takes_one_job(tmp_path: Path) -> None:
    """A file with two jobs is wrong usage of `run`."""
    (tmp_path / "two.yaml").write_bytes(VALID.read_bytes() + b"---\n" + VALID.read_bytes())
    done = grpoctl("run", str(tmp_path / "two.yaml"))
    assert done.exit_code == 2
    assert "holds 2 jobs" in done.stderr


def test_run_on_other_devices_tells_both_plans() -> None:
    """With fewer processes the batch may become invalid: then both plans' words are told and nothing is started."""
    done = grpoctl(
        "run", str(VALID), "--processes", "5", "--set", "rollout.padding=Reject", "--set", "rollout.batchSize=144"
    )
    assert "the job's plan: 18 prompts x 8 completions" in done.stderr
    assert "spec.rollout.batchSize: 144 must give every process as many prompts" in done.stderr
    assert done.exit_code == 2
