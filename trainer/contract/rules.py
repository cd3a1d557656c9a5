"""Every rule by its id: what it asks for, why, and an example; shown by `grpoctl explain` and in the documentation.

Out: a table, in the order in which a job meets the rules. Decides nothing; the rules themselves live where their inputs
are: the batch rules in `judgement.py`, those of the runner's tree in `checks.py`, the cluster's in the controller.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """`title` is one line, `explanation` says why, `example` is what breaks the rule and what heals it."""

    id: str
    title: str
    explanation: str
    example: str


_TABLE = (
    Rule(
        "yaml",
        "a file is well-formed YAML",
        "Syntax errors are told with file, line and column. Scalars are read as kubectl reads them (YAML 1.1), aliases "
        "may neither loop nor unfold to huge values, and a runner configuration is one document.",
        "rollout: {batch_size: 128    -> close the brace",
    ),
    Rule(
        "duplicate-key",
        "a key stands once",
        "YAML readers keep one of two equal keys without a word, and not all of them the same one.",
        "steps: 100\nsteps: 200        -> keep one of them",
    ),
    Rule(
        "unknown-key",
        "only known keys",
        "A misspelt key would be ignored and its default would train instead, so unknown keys are refused with the "
        "nearest known one. Keys of the original runner that did nothing are refused with that reason.",
        "rollout: {batchsize: 128}    -> did you mean batch_size?",
    ),
    Rule(
        "required",
        "what has no default is given",
        "A run needs a model, and each reward a name or a Python function.",
        "model_path: null    -> give a hub id[@revision] or a folder",
    ),
    Rule(
        "type",
        "values have the type of their key",
        "Whole numbers are numbers without a fraction (8.0 is 8, because the API server stores 8 so); booleans and "
        "text are never taken for numbers. Null means the same as leaving the key out. Learning rates may be 1e-6.",
        'num_pre_q: "8"    -> write it without quotes',
    ),
    Rule(
        "range",
        "values lie within their bounds, or among their words",
        "Every number has bounds and every choice a list of words; the fix names the nearest value that all rules of "
        "the batch accept.",
        "num_pre_q: 2000    -> use 1024",
    ),
    Rule(
        "name",
        "the job's name serves for its JobSet, pods and labels",
        "A name is a DNS label (RFC 1035: lower-case letters, digits and dashes, a letter first), and the longest pod "
        "name and the coordinator's label value made from it have at most 63 characters.",
        "name: My_Job    -> my-job",
    ),
    Rule(
        "one-device-kind",
        "exactly one of tpu and cpu",
        "A job runs on TPU slices or on CPU hosts; the number of processes and devices comes from that one section.",
        "tpu: {...} beside cpu: {...}    -> leave one out",
    ),
    Rule(
        "tpu-shape",
        "accelerator, topology and machine type name one slice that GKE offers",
        "Hosts and devices follow from the three. Where accelerator and topology leave a choice (2x4 on v5e and v6e "
        "is one host of eight chips or two of four), machineType must make it.",
        "accelerator: tpu-v6e-slice, topology: 2x4    -> add machineType: ct6e-standard-8t or ct6e-standard-4t",
    ),
    Rule(
        "slices-multi-host",
        "several slices are multi-host slices",
        "Multislice training joins slices of several hosts each; single-host slices cannot be joined.",
        "slices: 2 with topology 2x2    -> use a larger topology, or slices: 1",
    ),
    Rule(
        "capacity-fields",
        "capacity fields fit the capacity type",
        "A reservation's name belongs to type Reservation, and that type needs one.",
        "capacity: {type: Spot, reservation: mine}    -> leave reservation out",
    ),
    Rule(
        "code-one-of",
        "user's code has one source",
        "Code comes from a ConfigMap, or from a uri with its sha256.",
        "code: {configMap: a, uri: b}    -> leave one out",
    ),
    Rule(
        "reserved-env",
        "user's environment and labels do not collide with the operator's",
        "Process identity travels in variables and labels that the operator sets (GRPO_*, JAX_*, TPU_*, MEGASCALE_*); "
        "a second value would start a process that believes to be another.",
        "env: [{name: JAX_PLATFORMS, value: cpu}]    -> remove it",
    ),
    Rule(
        "secret-by-reference",
        "secrets come by reference",
        "A token written into a job is readable by whoever may read jobs; name a Secret instead.",
        "env: [{name: HF_TOKEN, value: hf_...}]    -> valueFrom: {secretKeyRef: {name: hf, key: token}}",
    ),
    Rule(
        "shared-output",
        "checkpoints lie where every host and the next attempt can read them",
        "Checkpoints need an output.uri; with more than one host it lies in a bucket (gs://) or on a shared volume.",
        "checkpoint: {every_steps: 10} without output    -> give output.uri in a bucket or on a shared volume",
    ),
    Rule(
        "not-yet",
        "keys of parts that are not built yet keep their default",
        "The tree is complete, so that a file stays valid later; a part that this version does not have is refused, "
        "never ignored.",
        "model_path: gs://a/b    -> give a hub id or a folder",
    ),
    Rule(
        "preset-conflict",
        "an override does not contradict the algorithm's preset",
        "A preset is a published algorithm. An override that turns it into another one, or that could have no effect, "
        "is a mistake in one of the two keys.",
        "algorithm: {preset: rloo, advantage: grpo}    -> leave advantage out",
    ),
    Rule(
        "reward-weights",
        "one weight for each reward, and one name",
        "reward_weights is a shorthand for the weights of rewards, in their order. Two rewards of one name would share "
        "a metric.",
        "reward_weights: [1, 1] with three rewards    -> give three",
    ),
    Rule(
        "mesh",
        "mesh_shape covers all devices, and tp stays inside a process",
        "dp x fsdp x tp is the number of devices of the run; one of them may be -1. Devices lie in process-major "
        "order, so with tp dividing the devices of a process a tensor-parallel group never crosses hosts.",
        "mesh_shape: 2,3,1 on 8 devices    -> 2,-1,1",
    ),
    Rule(
        "mesh-over-slices",
        "the number of slices divides dp",
        "Slices are joined by a slower network, which data parallelism alone can afford.",
        "mesh_shape: 1,-1,1 on two slices    -> 2,-1,1",
    ),
    Rule(
        "model-over-tp",
        "tp divides the model's heads and hidden sizes",
        "Tensor parallelism splits heads, kv heads, hidden and intermediate size. Checked for hub ids of a bundled "
        "table, and at the trainer's start for folders.",
        "mesh_shape: 1,-1,4 with Qwen2.5-0.5B (14 heads, 2 kv heads)    -> tp 1 or 2",
    ),
    Rule(
        "lengths",
        "prompt and completion fit the model's positions",
        "global_length + max_length_sample is at most max_position_embeddings. Checked where the model is known.",
        "max_length_sample: 40000 with a model of 32768 positions    -> use 32256",
    ),
    Rule(
        "group",
        "a prompt has at least two completions",
        "Estimators such as GRPO and RLOO compare the completions of one prompt: with one, every advantage is zero.",
        "num_pre_q: 1    -> use 2",
    ),
    Rule(
        "some-size",
        "batch_size, prompt_batch_size or per_device_batch_size is given",
        "A step needs a size: global sequences, or prompts per pass, from which the other follows.",
        "rollout: {num_pre_q: 8}    -> give batch_size or prompt_batch_size",
    ),
    Rule(
        "one-prompt-size",
        "at most one of prompt_batch_size and per_device_batch_size",
        "Both set the prompts per pass of a process: per_device_batch_size x devices is prompt_batch_size.",
        "prompt_batch_size: 8 beside per_device_batch_size: 1    -> leave one out",
    ),
    Rule(
        "batch-of-groups",
        "batch_size is a multiple of num_pre_q",
        "batch_size counts sequences, and each prompt has num_pre_q of them.",
        "batch_size: 100 with num_pre_q: 8    -> use 96 or 104",
    ),
    Rule(
        "prompts-over-processes",
        "the prompts of a step divide over the processes",
        "With no prompt size given, each process takes the same number of prompts in one pass.",
        "batch_size: 128, num_pre_q: 8 on 3 processes: 16 prompts    -> use 120 or 144",
    ),
    Rule(
        "rows-over-devices",
        "the rows of a pass divide over the data shards of a process",
        "Every data shard (devices / tp) decodes the same number of sequences.",
        "prompt_batch_size: 4, num_pre_q: 3 on 8 devices: 12 rows    -> use 8",
    ),
    Rule(
        "whole-passes",
        "the prompts of a step make whole passes",
        "batch_size / num_pre_q prompts are sampled in passes of prompt_batch_size on every process.",
        "batch_size: 128, num_pre_q: 8, prompt_batch_size: 6: 16 prompts    -> use 4 or 8",
    ),
    Rule(
        "one-micro-size",
        "at most one of micro_batch_size and per_device_micro_batch_size",
        "Both set the sequences per micro-step of a process.",
        "micro_batch_size: 16 beside per_device_micro_batch_size: 2    -> leave one out",
    ),
    Rule(
        "micro-over-batch",
        "the sequences of a process divide into micro-batches",
        "The update accumulates whole micro-batches, so that it equals one over the whole batch.",
        "micro_batch_size: 16 with 8 sequences per process    -> use 8",
    ),
    Rule(
        "micro-over-shards",
        "a micro-batch divides over the data shards of a process",
        "Every data shard takes the same number of sequences of a micro-step, and none moves between devices.",
        "micro_batch_size: 12 on 8 devices    -> use 8 or 16",
    ),
    Rule(
        "accumulation",
        "grad_accum_steps agrees with the batch",
        "It is normally left out and derived. With a micro size it must be sequences per process / micro size; without "
        "one it divides the sequences of a process into parts that fill every data shard alike.",
        "grad_accum_steps: 3 with 128 sequences and micro_batch_size: 16    -> use 8, or leave it out",
    ),
)

RULES: dict[str, Rule] = {rule.id: rule for rule in _TABLE}
"""Every rule by id."""
