"""What of a configuration makes a run the run that it is, and what may change while it goes on.

In: a RunConfig, and the one that a run was begun with. Out: an identity, and the differences. Refuses to know folders.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.contract.run import RunConfig
from trainer.contract.violations import shown

FREE = (
    "schema_version",
    "name",
    "steps",
    "precision.remat",
    "data.eval",
    "algorithm.on_non_finite",
    "batch",
    "eval_every_steps",
    "eval_batches",
    "eval_split",
    "eval",
    "checkpoint",
    "progress_deadline_seconds",
    "output_uri",
    "export",
    "wandb_project",
    "wandb_name",
)
"""Paths that may change, with all below them: how far a run goes, on what machine, what is measured, kept and told."""

BOUND = ("batch.group_size", "batch.sequences_per_step", "checkpoint.init_from")
"""Paths below a free one that may not change."""

_SPELLED = {
    "batch.group_size": "rollout.num_pre_q",
    "batch.sequences_per_step": "rollout.batch_size",
    "algorithm.ppo_epochs": "train.ppo_epochs",
    "algorithm.beta": "train.beta",
    "algorithm.on_non_finite": "train.on_non_finite",
    "output_uri": "output.uri",
}
"""Where the runner's tree has what a RunConfig holds elsewhere; `sampling` is its `rollout`."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not what it was, at a path of the runner's tree. `matters`: the run would be another one."""

    path: str
    old: Any
    new: Any
    matters: bool

    def __str__(self) -> str:
        return f"{self.path}: {shown(self.old)} -> {shown(self.new)}"


def identity(run: RunConfig) -> str:
    """The SHA-256 of what may not change: the same for the same run on another machine, or going further."""
    plain = run.model_dump(mode="json")
    bound = {path: value for path, value in _leaves(plain) if _matters(path, plain)}
    return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()


def differences(begun: Mapping[str, Any], run: RunConfig) -> tuple[Difference, ...]:
    """What differs from the configuration in a run.json, in the order of `run`. Keys that it lacks are not compared."""
    plain = run.model_dump(mode="json")
    old, new = dict(_leaves(begun)), dict(_leaves(plain))
    paths = [path for path in new if path in old] + [path for path in old if path not in new]
    found = ((path, old[path], new.get(path)) for path in paths if old[path] != new.get(path))
    return tuple(Difference(_spelled(path), before, now, _matters(path, plain)) for path, before, now in found)


def _matters(path: str, plain: Mapping[str, Any]) -> bool:
    if path == "steps":
        return bool(plain["optimizer"]["schedule"] != "constant")
    return _below(path, BOUND) or not _below(path, FREE)


def _below(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith((root + ".", root + "[")) for root in roots)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Values that are no mappings, and lists of values; an empty mapping is a value."""
    if isinstance(value, Mapping) and (value or not path):
        for key, below in value.items():
            yield from _leaves(below, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _spelled(path: str) -> str:
    return _SPELLED.get(path) or ("rollout" + path.removeprefix("sampling") if path.startswith("sampling.") else path)
