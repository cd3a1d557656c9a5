"""Generate: a model asked by hand answers what the rollout of training would."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from launching import resolved

from trainer.data.rows import DataError
from trainer.generate import main, rows_of
from trainer.model.config import read_model_config
from trainer.model.decoder import causal_attention, head, hidden_states
from trainer.model.source import load_tokenizer
from trainer.model.weights import load_params

PROMPT = "What is 2 + 2?"


def likeliest(folder: Path, mesh, prompt: str, count: int) -> str:
    """Greedy decoding the slow way: the whole text anew for every token."""
    config, tokenizer = read_model_config(folder), load_tokenizer(folder)
    params = load_params(folder, config, mesh, jnp.float32)
    ids = list(tokenizer(prompt)["input_ids"])
    begun = len(ids)
    while len(ids) < begun + count and ids[-1] != tokenizer.eos_token_id:
        tokens = jnp.array([ids], jnp.int32)
        places = jnp.arange(len(ids), dtype=jnp.int32)[None]
        hidden = hidden_states(
            params,
            config,
            tokens,
            places,
            causal_attention(jnp.ones_like(tokens, bool)),
            mesh=None,
            compute_dtype=jnp.float32,
        )
        ids.append(int(np.argmax(np.asarray(hidden[0, -1]) @ np.asarray(head(params)).T)))
    return tokenizer.decode(ids[begun:], skip_special_tokens=True)


def test_greedy_is_the_likeliest_token_each_time(byte_model: Path, mesh_of, capsys: pytest.CaptureFixture) -> None:
    """On eight devices, --greedy prints the text that decoding step by step on one gives, and nothing else."""
    assert main([str(byte_model), "--prompt", PROMPT, "--greedy", "--max-tokens", "12"]) == 0
    assert capsys.readouterr().out == likeliest(byte_model, mesh_of(1, 1, 1), PROMPT, 12) + "\n"


def test_a_run_is_asked_as_it_was_trained(
    byte_model: Path, mesh_of, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Prompt template, variables of the chat template and stop strings apply: completions end before the string."""
    asked = ["a", "What is 2 + 2?"]
    whole = [likeliest(byte_model, mesh_of(1, 1, 1), f"{text} =", 12) for text in asked]
    stop = whole[0][4:6]
    settings = (
        'data.prompt_template="{{ question }} "',
        'data.chat_template_kwargs={"ending": "="}',
        f"rollout.stop={json.dumps([stop])}",
    )
    run = resolved(byte_model, tmp_path / "d", tmp_path, 1, 8, *settings)
    (tmp_path / "run.json").write_text(json.dumps({"config": json.loads(run.to_json()), "model_revision": None}))
    shutil.copytree(byte_model, tmp_path / "export")
    (tmp_path / "export/chat_template.jinja").write_text("{{ messages[0].content }}{{ ending }}")
    prompts = [argument for text in asked for argument in ("--prompt", text)]
    assert main([str(tmp_path), *prompts, "--greedy", "--max-tokens", "12", "-o", "json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["completion"] for one in told] == [text.partition(stop)[0] for text in whole]
    assert told[0]["finished"]


def test_prompts_of_a_file_are_answered_in_order(
    byte_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Each line, blank ones aside, is a prompt; with -o json each completion is an object of its own."""
    (tmp_path / "asked.txt").write_text("one\n\nthree and more\n")
    arguments = ["--file", str(tmp_path / "asked.txt"), "--prompt", "zero", "--max-tokens", "5", "-o", "json"]
    assert main([str(byte_model), *arguments]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["prompt"] for one in told] == ["zero", "one", "three and more"]
    assert all(one["tokens"] == 5 or one["finished"] for one in told)
    assert main([str(byte_model), *arguments, "--seed", "1"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] != told


def test_rows_of_training_data_may_be_asked(tmp_path: Path) -> None:
    """A .jsonl file gives its rows with all their columns; an unreadable file is told in one line."""
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    assert [row.columns for row in rows_of(["p"], str(tmp_path / "rows.jsonl"), "question")] == [
        {"question": "p"},
        {"question": "q", "answer": "a"},
    ]
    with pytest.raises(DataError, match=r"--file: /no/file cannot be read \(No such file or directory\)"):
        rows_of([], "/no/file", "question")


def test_what_cannot_be_asked_is_told(byte_model: Path, capsys: pytest.CaptureFixture) -> None:
    """More tokens than the model has positions, no model, and no prompt: one line each, before any weight is read."""
    assert main([str(byte_model), "--prompt", PROMPT, "--max-tokens", "600"]) == 2
    assert capsys.readouterr().err == (
        "--max-tokens: 600 must be from 1 to 498: the model has 512 positions, and the longest prompt takes 14; use "
        "fewer, or a shorter prompt\n"
    )
    assert main(["/no/run", "--prompt", PROMPT]) == 5
    assert capsys.readouterr().err.startswith("/no/run is not a folder on this machine; give a folder that holds")
    with pytest.raises(SystemExit, match="2"):
        main([str(byte_model)])
    assert "give --prompt or --file" in capsys.readouterr().err


def test_the_command_line_is_the_trainers(byte_model: Path) -> None:
    """`python -m trainer generate` writes each prompt and its completion where there are several."""
    command = [sys.executable, "-m", "trainer", "generate", str(byte_model), "--greedy", "--max-tokens", "3"]
    ended = subprocess.run([*command, "--prompt", "a", "--prompt", "b"], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith(">>> a\n")
    assert "\n>>> b\n" in ended.stdout
