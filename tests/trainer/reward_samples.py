"""Reward functions as users write them; imported by name in the processes that the trainer starts for them."""

import asyncio
import multiprocessing
import os
import signal
import stat
import time
from contextlib import suppress
from pathlib import Path

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


kept = {}


async def keeps_a_connection(completions, **kwargs):
    """As clients that are opened once and then used in their own loop."""
    loop = asyncio.get_running_loop()
    return [float(kept.setdefault("loop", loop) is loop)] * len(completions)


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


def tries_code(completions, notes, **kwargs):
    """As rewards that run what was written do: in a process for it, which may hang."""
    tried = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60.0 * ("hang" in completions),))
    tried.start()
    Path(notes[0]).write_text(str(tried.pid))
    tried.join()
    return [1.0] * len(completions)


def dies(completions, **kwargs):
    os._exit(3)


def platform(completions, **kwargs):
    return [float(os.environ["JAX_PLATFORMS"] == "cpu")] * len(completions)


def letters(completions, **kwargs):
    """Something that random tokens earn now and then, and no two rows alike; held up while a file exists."""
    time.sleep(float(os.environ.get("SECONDS_PER_REWARD", "0")))
    while Path(os.environ.get("REWARDS_WAIT_FOR_REMOVAL_OF", "/nowhere")).exists():
        time.sleep(0.05)
    return [sum(map(str.isalpha, completion)) + len(completion) / 100 for completion in completions]


calls = []


def second_call_on_process_1():
    calls.append(1)
    return len(calls) == 2 and os.environ["GRPO_HOST_INDEX"] == "1"


def is_socket(fd):
    with suppress(OSError):
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    return False


def breaks_off_an_answer(completions, **kwargs):
    """On process 1 the second call writes the beginning of a message to the trainer, and never the rest."""
    if second_call_on_process_1():
        # Those of the event loop do not block.
        (answers,) = (fd for fd in range(3, 64) if is_socket(fd) and os.get_blocking(fd))
        os.write(answers, (4096).to_bytes(4, "big") + b"half")
        time.sleep(600)
    return letters(completions)


def freezes_the_trainer(completions, **kwargs):
    if second_call_on_process_1():
        os.kill(os.getppid(), signal.SIGSTOP)
    return letters(completions)


def takes_its_time_once(completions, seconds, **kwargs):
    if second_call_on_process_1():
        time.sleep(seconds)
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
