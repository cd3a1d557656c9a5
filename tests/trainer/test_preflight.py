"""What can be wrong before a run begins: one clear error each, and its exit code."""

import json
import shutil
from pathlib import Path

import pytest
from launching import Launched, resolved, sums

from trainer.contract.exits import ExitCode, RunError
from trainer.data import DataError
from trainer.inputs import patiently


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return sums(tmp_path / "sums.jsonl")


def refused(run, scratch: Path, **environ: str) -> tuple[int, str]:
    """Exit code and the one line on stderr, which is told nowhere else."""
    ended = Launched(run, scratch, **environ).wait()[0]
    assert ended.cause is not None
    line = f"trainer: {ended.cause.name}, exit code {ended.code}: {ended.cause.message}\n"
    assert ended.err == line
    assert ended.cause.message not in ended.out
    return ended.code, ended.cause.message


def test_a_missing_model(data: Path, tmp_path: Path) -> None:
    """A folder that does not exist ends with 5, at once, and says what may be given."""
    code, message = refused(resolved(Path("/no/model"), data, tmp_path / "out", 1, 1), tmp_path / "a")
    assert code == 5
    assert message.startswith("model_path: /no/model is not a folder on this machine; give a folder that holds")
    hub = refused(resolved(Path("nobody/nothing"), data, tmp_path / "out", 1, 1), tmp_path / "b")
    assert hub[0] == 5
    assert "nobody/nothing is not in the hub's cache" in hub[1]


def test_a_tokenizer_that_does_not_fit(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """A tokenizer with more ids than the model has embeddings ends with 5, with both numbers."""
    model = tmp_path / "model"
    shutil.copytree(byte_model, model)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"extra{number}": number for number in range(259, 600)}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    code, message = refused(resolved(model, data, tmp_path / "out", 1, 1), tmp_path / "a")
    assert code == 5
    assert "the tokenizer makes ids up to 599, but the model has embeddings for 512" in message


def test_lengths_and_heads_of_a_folder_are_checked_here(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """Rules that need the model's shape run again for a folder, all of them at once, and end with 2."""
    run = resolved(byte_model, data, tmp_path / "out", 1, 8, "rollout.global_length=600", mesh_shape="1,1,8")
    code, message = refused(run, tmp_path / "a")
    assert code == 2
    assert message.splitlines()[0].startswith("rollout.global_length: 600 + max_length_sample 16 = 616 tokens must be")
    assert message.splitlines()[1].startswith("mesh_shape: ")


def test_an_output_folder_that_cannot_be_written(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """An output below something that is no folder ends with 5 and names the output."""
    (tmp_path / "file").write_text("")
    code, message = refused(resolved(byte_model, data, tmp_path / "file" / "out", 1, 1), tmp_path / "a")
    assert code == 5
    assert message.startswith(f"output.uri: {tmp_path}/file/out cannot be written (Not a directory")


def test_a_broken_line_of_data(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """A line that is not JSON ends with 5, with its file and number."""
    lines = data.read_text().splitlines()
    lines[6] = lines[6][:-1]
    data.write_text("\n".join(lines) + "\n")
    code, message = refused(resolved(byte_model, data, tmp_path / "out", 1, 1), tmp_path / "a")
    assert code == 5
    assert message.startswith(f"data.train: {data} line 7 is not JSON (Expecting ',' delimiter at column ")
    assert message.endswith("; correct or remove the line")


def test_a_reward_that_cannot_be_imported(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """A reward's module that does not exist ends with 5 and names the field."""
    run = resolved(byte_model, data, tmp_path / "out", 1, 1, rewards=[{"name": "tags"}, {"python": "nowhere:score"}])
    code, message = refused(run, tmp_path / "a")
    assert code == 5
    assert message.startswith("rewards[1].python: 'nowhere:score': there is no module 'nowhere' in ")


def test_another_number_of_devices(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """A machine that gives JAX other devices than the plan has ends with 4."""
    run = resolved(byte_model, data, tmp_path / "out", 1, 4)
    # With a second platform named, the devices are the machine's own: one CPU.
    code, message = refused(run, tmp_path / "a", JAX_PLATFORMS="cpu,cpu")
    assert code == 4
    assert message == "the plan has 1 process(es) with 4 device(s) each, and JAX found 1 device(s) on process 0"


def test_after_a_completed_step_what_is_not_reachable_may_heal(byte_model: Path, data: Path, tmp_path: Path) -> None:
    """In a folder with a completed step the same error ends with 1: what worked once may work again."""
    launched = Launched(resolved(Path("/no/model"), data, tmp_path / "out", 1, 1), tmp_path / "a")
    launched.folder.mkdir(parents=True)
    (launched.folder / "metrics.jsonl").write_text('{"step": 1}\n')
    ended = launched.wait()[0]
    assert (ended.code, ended.cause.name) == (1, "Failed")


def test_a_run_json_of_another_contract(tmp_path: Path, byte_model: Path, data: Path) -> None:
    """A version that this trainer does not read ends with 3, a run.json with an unknown field with 2."""
    run = resolved(byte_model, data, tmp_path / "out", 1, 1)
    newer = run.to_json().replace('"schema_version": 1', '"schema_version": 99')
    assert Launched(run, tmp_path / "a", run_json=newer).wait()[0].code == 3
    unknown = run.to_json().replace('"seed": 0', '"seed": 0, "sed": 1')
    ended = Launched(run, tmp_path / "b", run_json=unknown).wait()[0]
    assert ended.code == 2
    assert "sed" in ended.err


def test_the_hub_is_asked_again_for_five_minutes() -> None:
    """What may heal is tried with growing pauses until five minutes are over; a permanent fault fails at once."""
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    def unreachable() -> None:
        raise DataError("data.train: no answer", permanent=False)

    with pytest.raises(RunError) as gave_up:
        patiently(unreachable, sleep, lambda: clock[0])
    assert gave_up.value.code is ExitCode.INPUT_NOT_REACHABLE
    assert 240 <= clock[0] <= 300

    def missing() -> None:
        raise DataError("data.train: no such file")

    begun = clock[0]
    with pytest.raises(RunError):
        patiently(missing, sleep, lambda: clock[0])
    assert clock[0] == begun
