"""Generate: ask a trained model by hand, with the rollout and the prompts of training.

In: a run, one of its checkpoints or a model, and prompts. Out: completions as text, or as JSON lines. It refuses to
know rewards: what an answer is worth, `python -m trainer --rewards-try` and evaluation tell.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from trainer.contract.exits import ExitCode, RunError
from trainer.contract.run import Sampling
from trainer.contract.runner import DataConfig, RolloutConfig
from trainer.data.prompts import PromptWriter, tokenize
from trainer.data.rows import DataError, Row, read_rows
from trainer.mesh import local_mesh
from trainer.model.config import UnsupportedModelError
from trainer.model.source import check_tokenizer, load_tokenizer, stop_ids
from trainer.rollout import Rollout, StopStrings, bucket
from trainer.trained import Trained, choose_platform, find

PROMPTS_AT_ONCE = 64
_DESCRIPTION = (
    "Ask a trained model. A run brings its system prompt, its prompt template, its chat template's variables and its "
    "sampling; a model is asked with its chat template alone."
)


@dataclass(frozen=True, slots=True)
class Completion:
    """`prompt` is the user's turn as text; `finished`: a stop token or a stop string came, and not the limit of tokens.

    `completion` ends before the stop string, as rewards saw it.
    """

    prompt: Any
    completion: str
    tokens: int
    finished: bool


def main(argv: list[str]) -> int:
    """The exit code of `python -m trainer generate …`."""
    parser = _parser()
    given = parser.parse_args(argv)
    if not given.prompt and given.file is None:
        parser.error("give --prompt or --file")
    try:
        choose_platform()
        found = find(given.source)
        rows = rows_of(given.prompt, given.file, _data(found).prompt_field)
        show = _as_json if given.output == "json" else _as_text(len(rows))
        for completion in generate(found, rows, given.max_tokens, greedy=given.greedy, seed=given.seed):
            print(show(completion), flush=True)
    except (RunError, DataError, UnsupportedModelError) as error:
        print(error, file=sys.stderr)
        return int(error.code if isinstance(error, RunError) else ExitCode.INPUT_NOT_REACHABLE)
    return int(ExitCode.DONE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m trainer generate", description=_DESCRIPTION)
    parser.add_argument("source", metavar="MODEL_OR_RUN", help="a hub id, a folder, a run folder, RUN/checkpoints/STEP")
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="may be given several times")
    parser.add_argument("--file", metavar="FILE", help="a prompt a line; .jsonl and .parquet: rows as in training")
    parser.add_argument("--greedy", action="store_true", help="always the likeliest token")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest completion (default: the run's, or 512)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="json: one object a line")
    return parser


def rows_of(prompts: Sequence[str], file: str | None, prompt_field: str) -> list[Row]:
    """Prompts of the command line, then those of the file. Raises DataError."""
    rows = [Row("--prompt", {prompt_field: text}) for text in prompts]
    if file is None:
        return rows
    if file.endswith((".jsonl", ".parquet")):
        return rows + read_rows("--file", file, "test")
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not UTF-8 text"
        raise DataError(f"--file: {file} cannot be read ({reason}); name a text file with a prompt a line") from None
    return rows + [Row(f"{file} line {n}", {prompt_field: line}) for n, line in enumerate(lines, 1) if line.strip()]


def generate(
    found: Trained, rows: Sequence[Row], max_tokens: int | None, *, greedy: bool, seed: int
) -> Iterator[Completion]:
    """One completion a row, in order. Raises DataError, RunError and UnsupportedModelError before the first."""
    tokenizer, data = load_tokenizer(found.folder), _data(found)
    check_tokenizer(tokenizer, found.config, found.folder)
    writer = PromptWriter(data)
    prompts = [writer.write("--prompt", row) for row in rows]
    encoded = tokenize(tokenizer, data, prompts)
    longest = max(map(len, encoded), default=1)
    sampling = _sampling(found, longest, max_tokens)
    compute = _compute_dtype(found)
    stops = StopStrings(sampling.stop, partial(tokenizer.decode, skip_special_tokens=True))
    rollout = Rollout(
        found.config,
        local_mesh(),
        sampling,
        stop_ids=stop_ids(tokenizer, found.config),
        pad_id=tokenizer.pad_token_id or 0,
        compute_dtype=jax.numpy.dtype(compute),
        end=stops.end if sampling.stop else None,
    )
    params = found.params(compute)
    for first in range(0, len(rows), PROMPTS_AT_ONCE):
        numbers = range(first, min(first + PROMPTS_AT_ONCE, len(rows)))
        asked = [encoded[number] for number in numbers]
        size = bucket(max(map(len, asked)), longest)
        made = rollout.generate(params, asked, numbers, 0, seed, size, samples=1, greedy=greedy)
        for place, number in enumerate(numbers):
            length = int(made.lengths[place])
            text = stops.text(made.tokens[place, :length].tolist())
            yield Completion(prompts[number], text, length, bool(made.finished[place]))


def _data(found: Trained) -> DataConfig:
    return DataConfig() if found.run is None else found.run.data


def _sampling(found: Trained, longest: int, max_tokens: int | None) -> Sampling:
    """The run's sampling, or that of a run without settings; the lengths fit the positions of the model."""
    base = RolloutConfig() if found.run is None else found.run.sampling
    wanted = base.max_length_sample if max_tokens is None else max_tokens
    room = found.config.max_positions - longest
    if wanted < 1 or room < 1 or (max_tokens is not None and wanted > room):
        raise RunError(
            ExitCode.INVALID_CONFIG,
            f"--max-tokens: {wanted} must be from 1 to {max(room, 0)}: the model has {found.config.max_positions} "
            f"positions, and the longest prompt takes {longest}; use fewer, or a shorter prompt",
        )
    values = {name: getattr(base, name) for name in Sampling.model_fields}
    return Sampling(**values | {"global_length": longest, "max_length_sample": min(wanted, room)})


def _compute_dtype(found: Trained) -> str:
    if found.run is not None and jax.default_backend() != "cpu":
        return found.run.precision.compute
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def _as_json(completion: Completion) -> str:
    return json.dumps(
        {
            "prompt": completion.prompt,
            "completion": completion.completion,
            "tokens": completion.tokens,
            "finished": completion.finished,
        },
        ensure_ascii=False,
    )


def _as_text(count: int) -> Callable[[Completion], str]:
    """One completion stands alone; of several, each follows its prompt."""
    return (lambda one: one.completion) if count == 1 else (lambda one: f">>> {one.prompt}\n{one.completion}\n")
