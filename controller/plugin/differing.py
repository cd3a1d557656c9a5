"""In what two jobs differ, once all that was left out has its default. Pure.

In: two jobs as read. Out: the paths whose values are not the same, in the order of their names.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from controller.grpojob import GRPOJob


class Difference(NamedTuple):
    path: str
    first: Any
    second: Any


def differences(first: GRPOJob, second: GRPOJob) -> list[Difference]:
    """Names, labels and what the API server adds are no differences."""
    ours, theirs = dict(_leaves(_effective(first))), dict(_leaves(_effective(second)))
    return [
        Difference(path, ours.get(path), theirs.get(path))
        for path in sorted(ours.keys() | theirs.keys())
        if ours.get(path) != theirs.get(path)
    ]


def _effective(job: GRPOJob) -> dict[str, Any]:
    parts = (job.runner.config, job.spec)
    return {key: value for part in parts for key, value in part.model_dump(mode="json", by_alias=True).items()}


def _leaves(value: Any, path: str = "spec") -> Iterator[tuple[str, Any]]:
    """Each value that is no mapping, by its path; lists are values as a whole."""
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _leaves(below, f"{path}.{key}")
    elif value not in (None, {}, []):
        yield path, value
