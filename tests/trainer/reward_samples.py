"""Reward functions as users write them; imported by name in the processes that the trainer starts for them."""

import asyncio
import os
import time

NOT_A_FUNCTION = 3


def brevity(completions, **kwargs):
    return [-len(completion) / 10 for completion in completions]


def trl_style(prompts, completions, completion_ids, level, scale=1.0, **kwargs):
    return [None if rank == "skip" else scale * len(ids) for rank, ids in zip(level, completion_ids, strict=True)]


def two_columns(completions, answer):
    return [float(completion == gold) for completion, gold in zip(completions, answer, strict=True)]


async def slow_judge(completions, **kwargs):
    async def judge(completion):
        await asyncio.sleep(0.05)
        return float(len(completion))

    return await asyncio.gather(*(judge(completion) for completion in completions))


def raises(completions, **kwargs):
    raise KeyError("solution")


def nothing(completions, **kwargs):
    """Its author forgot to return."""


def too_few(completions, **kwargs):
    return [1.0]


def not_finite(completions, **kwargs):
    return [{"": float("inf"), "?": float("nan"), "-": None}.get(completion, 1.0) for completion in completions]


def hangs_on_hang(completions, **kwargs):
    if "hang" in completions:
        time.sleep(60)
    return [1.0] * len(completions)


def dies(completions, **kwargs):
    os._exit(3)


def platform(completions, **kwargs):
    return [float(os.environ["JAX_PLATFORMS"] == "cpu")] * len(completions)


def letters(completions, **kwargs):
    """Something that random tokens earn now and then, and no two rows alike."""
    time.sleep(float(os.environ.get("SECONDS_PER_REWARD", "0")))
    return [sum(map(str.isalpha, completion)) + len(completion) / 100 for completion in completions]


calls = []


def hangs_after_the_first_call(completions, **kwargs):
    if calls:
        time.sleep(600)
    calls.append(1)
    return letters(completions)


def short(completions, **kwargs):
    """Passes about half of what a model with random weights writes."""
    return [float(sum(map(str.isalpha, completion)) < 5) for completion in completions]


def explodes_on_seven(prompts, completions, **kwargs):
    """Numbers that are finite, and whose sum over the tokens of a batch is not, for one question."""
    return [3e38 * (place % 2) if prompt.startswith("7 ") else place % 2 for place, prompt in enumerate(prompts)]


def letters_of_odd(prompts, completions, **kwargs):
    """As `letters`, and for questions that begin with an even number all the same."""
    odd = [int(prompt.split()[0]) % 2 for prompt in prompts]
    return [there * score for there, score in zip(odd, letters(completions), strict=True)]
