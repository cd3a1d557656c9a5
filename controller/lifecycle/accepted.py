"""The specification that a job was accepted with, kept beside what was made of it, and what of it was changed since.

The API server refuses such changes by the rules of the CRD; where those are missing a job goes on as it was accepted.
In: the job as it is, and its frozen ConfigMap. Out: the job as it counts, and the paths that differ. Pure.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from controller.crd import MUTABLE, MUTABLE_LIFECYCLE
from controller.grpojob import read_job

Body = Mapping[str, Any]
ACCEPTED_KEY = "accepted.json"
MOST_SHOWN = 8


def kept(spec: Body) -> str:
    """What the ConfigMap keeps of a specification."""
    return json.dumps(spec, separators=(",", ":"), sort_keys=True)


def as_accepted(job: Body, config_map: Body) -> Body:
    """The job with the specification that it was accepted with, but for what may change; as it is where none is kept:
    the ConfigMap's content was not read, or an earlier version wrote it.
    """
    text = (config_map.get("data") or {}).get(ACCEPTED_KEY)
    if text is None:
        return job
    spec, now = json.loads(text), job.get("spec", {})
    lifecycle = _overlaid(spec.get("lifecycle") or {}, now.get("lifecycle") or {}, MUTABLE_LIFECYCLE)
    spec = _overlaid(spec, now, MUTABLE)
    spec.pop("lifecycle", None)
    return {**job, "spec": spec | ({"lifecycle": lifecycle} if lifecycle else {})}


def changed(job: Body, accepted: Body) -> tuple[str, ...]:
    """The paths at which a job is not what it counts as. A default that was filled in meanwhile is no change."""
    paths = tuple(_differing(accepted.get("spec", {}), job.get("spec", {}), "spec"))
    if not paths:
        return ()
    then, now = read_job(accepted), read_job(job)
    same = (then.spec, then.runner.config, then.violations) == (now.spec, now.runner.config, now.violations)
    return () if same and then.runner.violations == now.runner.violations else paths


def shown(paths: tuple[str, ...]) -> str:
    more = f" and {len(paths) - MOST_SHOWN} more" if len(paths) > MOST_SHOWN else ""
    return ", ".join(paths[:MOST_SHOWN]) + more


def _overlaid(old: Body, new: Body, keys: tuple[str, ...]) -> dict[str, Any]:
    """`old` with these keys as they are in `new`."""
    return {key: value for key, value in old.items() if key not in keys} | {
        key: new[key] for key in keys if new.get(key) is not None
    }


def _differing(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _differing(old.get(key), new.get(key), f"{path}.{key}")
    elif old != new:
        yield path
