"""Dynamic sampling: of all groups that a step sampled, those that are trained on, dealt to the processes anew.

In: an `Experience` of as many passes as it took. Out: one of the size of the plan, as if only the chosen prompts had
been asked. It refuses to know how many passes a step may take, and what is learned.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.asking import Answers, Asker
from trainer.contract.batch import BatchPlan
from trainer.distributed import gather
from trainer.experience import Experience, Table, slots_of
from trainer.metrics import Row
from trainer.rewards import Scores


class Choice(NamedTuple):
    """`groups` are numbers of prompts in the step, as many as the plan has: the first `trained` of them differ, and the
    rest only fills the batch up. `walked` counts the prompts up to the last one that was needed.
    """

    groups: NDArray[np.int64]
    trained: int
    walked: int


def everything(plan: BatchPlan) -> Choice:
    """Without dynamic sampling: the prompts that were asked."""
    return Choice(np.arange(plan.prompts_per_step), plan.prompts_per_step, plan.prompts_per_step)


def choose(table: Table, plan: BatchPlan) -> Choice:
    """The first groups that differ, in the order of the data: which they are does not depend on how passes are cut.

    So what a pass sampled beyond the last one needed is not used, and those prompts are asked again in the next step.
    """
    differs = table.differing(plan.group_size)
    found = np.flatnonzero(differs)[: plan.prompts_per_step]
    missing = plan.prompts_per_step - len(found)
    walked = len(differs) if missing else int(found[-1]) + 1
    return Choice(np.concatenate([found, np.flatnonzero(~differs)[:missing]]), len(found), walked)


def rows_of(groups: NDArray[np.int64], group_size: int) -> NDArray[np.int64]:
    """The rows of these groups, one group after the other."""
    return (groups[:, None] * group_size + np.arange(group_size)).ravel()


def deal(found: Experience, choice: Choice, plan: BatchPlan, process: int, asker: Asker) -> Experience:
    """The chosen groups in the places of the step's prompts. All processes call it together: groups change hands."""
    table = found.table.take(rows_of(choice.groups, plan.group_size))
    tokens, logprobs = _exchanged(found, choice, plan, process)
    answers, scores = [], []
    for number in range(plan.passes):
        groups = np.array(slots_of(number, process, plan))
        rows = rows_of(groups, plan.group_size)
        ids = [tokens[row, : int(table.completion_tokens[row])].tolist() for row in rows]
        sampled = [logprobs[row, : int(table.completion_tokens[row])] for row in rows]
        asked = [found.questions[group] for group in choice.groups[groups] for _ in range(plan.group_size)]
        own = table.take(rows)
        answers.append(Answers(asked, ids, asker.texts(ids), own.finished, sampled))
        scores.append(Scores(asker.reward_names, own.values, own.failed, own.totals, {}))
    return Experience(answers, scores, table, [found.questions[group] for group in choice.groups])


def _exchanged(
    found: Experience, choice: Choice, plan: BatchPlan, process: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Token ids and log-probabilities [row, token] of all chosen groups, on every process.

    Each process gives those that it sampled, filled up to as many as any of them gives.
    """
    size = plan.prompts_per_pass_per_process
    owners = choice.groups // size % plan.processes
    most = int(np.bincount(owners).max()) * plan.group_size
    width = int(found.table.completion_tokens.max())
    own = np.zeros((most, 2, width), np.int32)
    ids = [row for answers in found.answers for row in answers.token_ids]
    sampled = [row for answers in found.answers for row in answers.logprobs or ()]
    mine = choice.groups[owners == process]
    places = rows_of(mine // (size * plan.processes) * size + mine % size, plan.group_size)
    for row, place in enumerate(places):
        own[row, 0, : len(ids[place])] = ids[place]
        own[row, 1, : len(ids[place])] = sampled[place].view(np.int32)
    # Of the groups of one owner, which is the how manieth in the order of the choice.
    among = np.array([np.sum(owners[:place] == owner) for place, owner in enumerate(owners)])
    everywhere = gather(own)[np.repeat(owners, plan.group_size), rows_of(among, plan.group_size)]
    return everywhere[:, 0], np.ascontiguousarray(everywhere[:, 1]).view(np.float32)


def choice_row(choice: Choice, passes: int) -> Row:
    """What dynamic sampling did in a step that took so many passes."""
    return {
        "dynamic_sampling/passes": passes,
        "dynamic_sampling/prompts": choice.walked,
        "dynamic_sampling/dropped": choice.walked - choice.trained,
        "dynamic_sampling/trained": choice.trained,
    }
