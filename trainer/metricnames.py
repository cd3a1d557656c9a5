"""Every metric that a run may write, in one table: what it counts, in which unit, and when it is there.

`docs/metrics.md` is made from it, and a test holds it against the rows of a real run. It refuses to know how anything
is measured.
"""

import re
from dataclasses import dataclass

LOSS_NEAR_ZERO = (
    "A loss near 0 is no fault. The advantages of a group sum to 0, and in the first update on a batch the policy is "
    "the one that sampled, so its ratio is 1: the terms of the loss cancel, its gradient does not. Watch the reward "
    "and the evaluation instead."
)


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` may hold `*`, the name of a reward. `when` is empty where every training step has it.

    `trl` is what TRL's GRPOTrainer calls the same number.
    """

    name: str
    unit: str
    meaning: str
    when: str = ""
    trl: str = ""

    def fits(self, written: str) -> bool:
        return self.star_in(written) is not None

    def star_in(self, written: str) -> str | None:
        """What stands for `*` in a name as a run writes it, "" where there is none; None for another metric."""
        found = re.fullmatch(re.escape(self.name).replace(r"\*", "([^/]+)"), written)
        return None if found is None else "".join(found.groups())


_EVALUATED = "steps that were evaluated"
_SAMPLED = "evaluations with several samples"
_LATER = "batches with old log-probabilities"
_BUFFER = "runs with an `overlong_buffer`"
_CAP = "runs with an `importance_cap`"
_DYNAMIC = "runs with `dynamic_sampling`"
_KNOWN = "devices whose peak is known"
_SAVED = "steps that were saved"

METRICS = (
    Metric("step", "", "the step; 0 is the model before the first", "every row"),
    Metric("epoch", "", "how often the training data was gone through", trl="epoch"),
    Metric("data/dropped", "prompts", "longer than `global_length`, and left out of the training data"),
    Metric("data/truncated", "prompts", "longer than `global_length`, of which the last tokens are asked"),
    Metric(
        "reward/total/mean", "", "mean of the weighted sum of the rewards, over all scored completions", trl="reward"
    ),
    Metric("reward/total/std", "", "population standard deviation of the total reward over completions"),
    Metric("reward/total/min", "", "the smallest total reward of a completion"),
    Metric("reward/total/max", "", "the largest total reward of a completion"),
    Metric("reward/*/mean", "", "mean of one reward, without its weight", trl="rewards/*/mean"),
    Metric("reward/*/failed", "completions", "where this reward raised or ran out of time"),
    Metric("reward/unscorable", "completions", "those without a total reward; they teach nothing"),
    Metric(
        "reward/equal_groups",
        "share",
        "groups whose rewards are all equal: they teach nothing",
        trl="frac_reward_zero_std",
    ),
    Metric(
        "reward/group_std",
        "",
        "mean over the groups of the population standard deviation of their total rewards",
        trl="reward_std",
    ),
    Metric("reward/overlong_penalty", "", "mean of what is added to long completions' total", _BUFFER),
    Metric("length/prompt/mean", "tokens", "mean length of the prompts"),
    Metric("length/prompt/max", "tokens", "the longest prompt"),
    Metric(
        "length/completion/mean",
        "tokens",
        "mean length of the completions, stop token included",
        trl="completions/mean_length",
    ),
    Metric("length/completion/max", "tokens", "the longest completion", trl="completions/max_length"),
    Metric(
        "length/truncated",
        "share",
        "completions that were cut off at `max_length_sample`",
        trl="completions/clipped_ratio",
    ),
    Metric("finish/stop", "share", "completions that ended with a stop token"),
    Metric("finish/length", "share", "completions that reached `max_length_sample` before"),
    Metric("padding/rollout", "share", "sampled token places of rows that had ended before the longest of their pass"),
    Metric("padding/update", "share", "token places of the update without a token, or with a group's prompt once more"),
    Metric("dynamic_sampling/passes", "", "rollout passes that the step took", _DYNAMIC),
    Metric(
        "dynamic_sampling/prompts", "prompts", "from the first that was asked to the last that was needed", _DYNAMIC
    ),
    Metric("dynamic_sampling/dropped", "prompts", "of the prompts asked, those whose group had no variance", _DYNAMIC),
    Metric("dynamic_sampling/trained", "prompts", "whose groups were trained on: the effective batch", _DYNAMIC),
    Metric("update/loss", "", "the loss that was descended; see below", trl="loss"),
    Metric("update/entropy", "nats", "mean entropy of the policy per completion token", trl="entropy"),
    Metric("update/grad_norm", "", "norm of the gradient over all parameters, before clipping", trl="grad_norm"),
    Metric(
        "update/clip_share",
        "share",
        "completion tokens where the clip, or the bound of CISPO, took over",
        trl="clip_ratio/region_mean",
    ),
    Metric("update/kl_old", "nats", "divergence from the policy before the first update on the batch", _LATER),
    Metric("update/kl_reference", "nats", "divergence from the frozen reference", "`train.beta` > 0", trl="kl"),
    Metric("update/mismatch_k3", "nats", "divergence of the policy that the update computes from the one that sampled"),
    Metric(
        "update/mismatch_largest",
        "nats",
        "largest difference between the two log-probabilities of a token",
        trl="sampling/sampling_logp_difference/max",
    ),
    Metric("update/importance_cut", "share", "completion tokens whose weight the `importance_cap` cut", _CAP),
    Metric("update/completion_tokens", "tokens", "completion tokens that were trained on; where none, nothing changes"),
    Metric("update/learning_rate", "", "the learning rate of the step", trl="learning_rate"),
    Metric("update/finite", "", "1 where loss and gradient were finite; else the step was not applied"),
    Metric("time/rollout_s", "seconds", "sampling the completions"),
    Metric("time/rewards_s", "seconds", "scoring the completions"),
    Metric("time/update_s", "seconds", "gradients and the optimizer's step"),
    Metric(
        "time/compile_s",
        "seconds",
        "compiling, within the phases: where lengths need a batch of another size than before",
    ),
    Metric("time/step_s", "seconds", "the whole step, without evaluation and checkpoint"),
    Metric(
        "time/checkpoint_s", "seconds", "what a checkpoint took from training; most of it is written behind", _SAVED
    ),
    Metric("checkpoint/failed", "checkpoints", "that could not be written in this attempt so far", _SAVED),
    Metric("throughput/completion_tokens_per_s", "tokens/s", "sampled tokens over the time of the whole step"),
    Metric(
        "throughput/completion_tokens_per_s_per_device",
        "tokens/s",
        "sampled tokens per device and second of the whole step",
    ),
    Metric("throughput/update_mfu", "share", "operations of the update's model over the devices' bf16 peak", _KNOWN),
    Metric(
        "throughput/decode_bandwidth_share",
        "share",
        "the least that decoding must read, over what the memory could give in the time of the rollout",
        _KNOWN,
    ),
    Metric("memory/device_peak_gib", "GiB", "most memory used on a device of process 0 so far", "not on CPU"),
    Metric("batch/sequences_per_step", "sequences", "the effective batch over all processes"),
    Metric("batch/prompts_per_step", "prompts", "over all processes"),
    Metric("batch/group_size", "completions", "per prompt"),
    Metric("batch/passes", "", "rollout passes per step"),
    Metric("batch/micro_steps", "", "gradient accumulation steps per update"),
    Metric("batch/sequences_per_process", "sequences", "per step"),
    Metric("batch/processes", "", "processes of the run"),
    Metric("batch/devices", "", "devices of the run"),
    Metric("eval/questions", "questions", "that were asked, each once", _EVALUATED),
    Metric("eval/dropped", "questions", "with prompts longer than `global_length`, which are never asked", _EVALUATED),
    Metric("eval/truncated", "questions", "whose prompts were cut to `global_length`", _EVALUATED),
    Metric("eval/reward/total/mean", "", "mean total reward of the answers", _EVALUATED),
    Metric("eval/reward/total/std", "", "population standard deviation of the total reward over answers", _EVALUATED),
    Metric("eval/reward/total/min", "", "the smallest total reward", _EVALUATED),
    Metric("eval/reward/total/max", "", "the largest total reward", _EVALUATED),
    Metric("eval/reward/*/mean", "", "mean of one reward; `correct` is the accuracy", _EVALUATED),
    Metric("eval/reward/*/failed", "answers", "where this reward raised or ran out of time", _EVALUATED),
    Metric("eval/reward/unscorable", "answers", "those without a total reward", _EVALUATED),
    Metric("eval/length/completion/mean", "tokens", "mean length of the answers", _EVALUATED),
    Metric("eval/length/completion/max", "tokens", "the longest answer", _EVALUATED),
    Metric("eval/length/truncated", "share", "answers that were cut off", _EVALUATED),
    Metric("eval/finish/stop", "share", "answers that ended with a stop token", _EVALUATED),
    Metric("eval/finish/length", "share", "answers that reached `max_length_sample` before", _EVALUATED),
    Metric("eval/pass@*", "share", "questions of which one of k samples passes, without bias", _SAMPLED),
    Metric("eval/maj@*", "share", "questions whose most frequent answer of k samples passes", _SAMPLED),
    Metric("eval/samples", "", "answers per question", _EVALUATED),
    Metric("time/evaluation_s", "seconds", "the evaluation", _EVALUATED),
)


def metric_of(written: str) -> Metric | None:
    """The entry of a name as a run writes it; None where it is not in the table."""
    return next((metric for metric in METRICS if metric.fits(written)), None)
