"""Reward functions with the signatures that TRL's documentation shows, and nothing of this project in them.

https://huggingface.co/docs/trl/grpo_trainer#using-a-custom-reward-function, its examples 1 to 5, and trl.rewards.
"""

import asyncio
import os
import re
import time
from pathlib import Path


def by_tokens(completions_ids, **kwargs):
    """Example 1, with the name that the documentation gives the ids."""
    return [float(len(ids)) for ids in completions_ids]


def by_characters(completions, **kwargs):
    """Example 1.1: plain text."""
    return [float(len(text)) for text in completions]


def two_blocks(completions, **kwargs):
    """Example 2: conversations, of which the first message is the model's."""
    answers = [turns[0]["content"] for turns in completions]
    return [float(bool(re.match(r"^<think>.*?</think><answer>.*?</answer>$", text))) for text in answers]


def boxed_truth(completions, ground_truth, **kwargs):
    """Example 3: a column of the data as a keyword."""
    found = [re.search(r"\\boxed\{(.*?)\}", text) for text in completions]
    return [float(bool(match) and match[1] == truth) for match, truth in zip(found, ground_truth, strict=True)]


def mathematics_only(prompts, completions, task, **kwargs):
    """Example 4: None for rows of another task."""
    pairs = zip(prompts, completions, task, strict=True)
    return [(1.0 if text in prompt else -1.0) if kind == "math" else None for prompt, text, kind in pairs]


def code_only(prompts, completions, task, **kwargs):
    return [0.5 if kind == "code" else None for kind in task]


async def remote(prompts, completions, **kwargs):
    """Example 5: a coroutine."""
    await asyncio.sleep(0.01)
    return [1.0 if text else 0.0 for text in completions]


def curriculum(completions, trainer_state, **kwargs):
    """`trainer_state` with what transformers' TrainerState calls global_step and max_steps."""
    return [trainer_state.global_step / trainer_state.max_steps] * len(completions)


def logs(completions, log_extra, log_metric, **kwargs):
    """The two callables that newer versions bring."""
    log_extra("length", [len(text) for text in completions])
    log_metric("mean", 1.0)
    return [1.0] * len(completions)


def logs_by_keyword(completions, **kwargs):
    """The same, taken from the keywords."""
    kwargs["log_extra"]("length", [len(text) for text in completions])
    kwargs["log_metric"]("mean", 1.0)
    return [1.0] * len(completions)


def accuracy(completions, solution, log_extra=None, **kwargs):
    """As trl.rewards.accuracy_reward is declared: conversations, `solution`, a callable that may be left out."""
    if log_extra:
        log_extra("solution", list(solution))
    return [float(turns[0]["content"] == truth) for turns, truth in zip(completions, solution, strict=True)]


def roles(prompts, completions, **kwargs):
    """Sums up the shape: roles of prompt and completion."""
    told = [[turn["role"] for turn in (*prompt, *turns)] for prompt, turns in zip(prompts, completions, strict=True)]
    return [float(names == ["system", "user", "assistant"]) for names in told]


def meets_the_other(completions, meeting, me, other, **kwargs):
    """Ends only while a second function runs beside it."""
    folder = Path(meeting[0])
    (folder / me).touch()
    while not (folder / other).exists():
        time.sleep(0.01)
    return [float(os.getpid() != int(os.environ["PARENT"]))] * len(completions)
