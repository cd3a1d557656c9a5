"""A real instruct model on real questions: SmolLM2-135M-Instruct, GSM8K, two processes of two devices, one step."""

import json
from pathlib import Path

import jax.numpy as jnp
import pytest
from launching import Launched, resolved

from trainer.checkpoint import fingerprint
from trainer.model.config import read_model_config
from trainer.model.weights import load_params

GSM8K = Path(__file__).parents[1] / "data" / "gsm8k"


def finished(smollm2: Path, folder: Path) -> Launched:
    """The finished run. Data is split over processes (dp) and weights inside each (fsdp): both hold all of them."""
    run = resolved(
        smollm2,
        GSM8K / "questions.jsonl",
        folder / "out",
        2,
        2,
        "data.system_prompt=Answer with a number.",
        "data.overlong=drop",
        steps=1,
        mesh_shape="2,2,1",
        rollout={"batch_size": 8, "num_pre_q": 4, "global_length": 96, "max_length_sample": 24},
        train={"grad_accum_steps": 2},
        optimizer={"learning_rate": 1e-5},
        rewards=[{"name": "correct"}, {"python": "reward_samples:letters", "weight": 0.01}],
    )
    # Unlike the small models, this one computes longer than an optimised program takes to compile.
    launched = Launched(run, folder, XLA_FLAGS="")
    launched.ended = launched.finish()
    return launched


@pytest.mark.long
def test_a_real_model_trains_on_questions_in_its_own_form(smollm2: Path, mesh_of, tmp_path: Path) -> None:
    """Two processes end with the same new parameters; the chat template was used, and rewards tell completions apart.

    One test, because the run takes longer than all that is asked of it.
    """
    launched = finished(smollm2, tmp_path)
    first, second = launched.ended
    before = load_params(smollm2, read_model_config(smollm2), mesh_of(1, 1, 1), jnp.float32)
    assert first.fingerprint == second.fingerprint != fingerprint(before)
    lines = (launched.folder / "completions/step-00000001.jsonl").read_text().splitlines()
    questions = {json.loads(line)["question"] for line in (GSM8K / "questions.jsonl").read_text().splitlines()}
    records = [json.loads(line) for line in lines]
    assert {record["prompt"] for record in records} <= questions
    assert all(record["completion"].isprintable() or "\n" in record["completion"] for record in records)
    for row in launched.metrics:
        assert row["update/grad_norm"] > 0
        assert row["reward/equal_groups"] < 1
        assert 60 < row["length/prompt/mean"] <= 96
