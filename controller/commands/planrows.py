"""The rows of a plan: a resolved job in, label, number and arithmetic out. Pure; it knows no terminal."""

from typing import NamedTuple

from controller.resolve import Resolved
from controller.tpu import TpuSlice
from trainer.contract.run import RunConfig


class Row(NamedTuple):
    """One number, and where it comes from."""

    label: str
    value: str
    how: str


def plan_groups(resolved: Resolved) -> tuple[list[Row], list[Row], list[Row]]:
    """The machine, the batch of one step, and the run."""
    return _machine(resolved), _step(resolved.run), [*_run(resolved.run), *_safety(resolved)]


def _machine(resolved: Resolved) -> list[Row]:
    devices, slices, batch = resolved.devices, resolved.slices, resolved.run.batch
    mesh = batch.mesh
    rows = []
    if isinstance(devices, TpuSlice):
        shape = (
            f"{devices.accelerator} {devices.topology} on {devices.machine_type}, {_count(devices.chips, 'chip')} each"
        )
        rows.append(Row("slices", str(slices), shape))
        per_host = (
            f"{_count(devices.chips_per_host, 'chip')} x {_count(devices.devices_per_chip, 'device')} on each host"
        )
    else:
        per_host = "CPU devices on each host"
    hosts = _count(devices.hosts, "host")
    across = f"{slices} slices x {hosts}" if slices > 1 else hosts
    return [
        *rows,
        Row("processes", str(batch.processes), f"{across}, one process each"),
        Row("devices per process", str(batch.devices_per_process), per_host),
        Row("devices", str(batch.processes * batch.devices_per_process), "processes x devices per process"),
        Row("mesh", f"{mesh.dp} x {mesh.fsdp} x {mesh.tp}", "dp x fsdp x tp"),
    ]


def _step(run: RunConfig) -> list[Row]:
    batch, sampling = run.batch, run.sampling
    passes = f"{_count(batch.passes, 'pass', 'es')} x {_count(batch.prompts_per_pass_per_process, 'prompt')}"
    prompts = f"{_count(batch.processes, 'process', 'es')} x {passes}"
    own = f"{passes} x {_count(batch.group_size, 'completion')}"
    shards = batch.devices_per_process // batch.mesh.tp
    per_shard = f"per process, {batch.sequences_per_micro_step // shards} on each of {_count(shards, 'data shard')}"
    tokens = batch.sequences_per_step * (sampling.global_length + sampling.max_length_sample)
    longest = f"sequences x ({sampling.global_length} prompt + {sampling.max_length_sample} completion), at most"
    refill = run.algorithm.dynamic_sampling
    most = [
        Row("prompts at most", str(batch.prompts_per_step * refill), f"{refill} x, to replace groups without variance")
    ]
    return [
        Row("prompts per step", str(batch.prompts_per_step), prompts),
        *(most if refill > 1 else []),
        Row("completions per prompt", str(batch.group_size), "the group that is compared"),
        Row("sequences per step", str(batch.sequences_per_step), "prompts x completions, over all processes"),
        Row("sequences per process", str(batch.sequences_per_process), own),
        Row("micro-steps", str(batch.micro_steps), "sequences per process / sequences per micro-step"),
        Row(
            "sequences per micro-step",
            str(batch.sequences_per_micro_step),
            per_shard,
        ),
        Row("tokens per step", f"{tokens:,}", longest),
    ]


def _run(run: RunConfig) -> list[Row]:
    sequences = run.steps * run.batch.sequences_per_step
    rows = [
        Row("steps", str(run.steps), f"{sequences:,} sequences of {run.model_path} on {run.data.train}"),
        Row("learning rate", f"{run.optimizer.learning_rate:g}", f"{run.optimizer.name}, {run.optimizer.schedule}"),
    ]
    if run.eval_every_steps:
        batches = "all questions" if run.eval_batches is None else f"{run.eval_batches} batches"
        split = "" if run.data.eval.endswith((".jsonl", ".parquet")) else f" {run.eval_split}"
        rows.append(Row("evaluation every", f"{run.eval_every_steps} steps", f"{batches} of {run.data.eval}{split}"))
    return rows


def _safety(resolved: Resolved) -> list[Row]:
    """What is saved, and what is lost at worst: by a SIGTERM, whose grace suffices for a checkpoint, and by a kill."""
    run, checkpoint = resolved.run, resolved.run.checkpoint
    if resolved.job.runner.config.output.uri is None:
        return [Row("lost with the pods", "all steps", "spec.output.uri is null: nothing survives them")]
    rows, cadence = [], _cadence(run)
    if cadence:
        rows.append(Row("checkpoint every", cadence, f"below {run.output_uri}, the last {checkpoint.keep} kept"))
    if checkpoint.best is not None:
        rows.append(Row("best checkpoint", "1", f"by {checkpoint.best}, saved when an evaluation beats all before"))
    seconds = resolved.job.spec.lifecycle.termination_grace_period_seconds
    saved = f"the open one: a checkpoint is made within {seconds} s (lifecycle.terminationGracePeriodSeconds)"
    rows.append(Row("lost by SIGTERM", "1 step", saved))
    since = "at most, and those made while a checkpoint is written: lost machine, or a grace too short"
    none = "lost machine, or a grace too short; give checkpoint.everySteps or checkpoint.everyMinutes"
    rows.append(Row("lost by a kill", cadence or "all steps", since if cadence else none))
    return rows


def _cadence(run: RunConfig) -> str:
    """The steps or minutes between two checkpoints at most, whichever is over first; empty where neither is given."""
    steps, minutes = run.checkpoint.every_steps, run.checkpoint.every_minutes
    return " or ".join([_count(steps, "step")] * (steps > 0) + [f"{minutes} min"] * (minutes > 0))


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{plural * (number != 1)}"
