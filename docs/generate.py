"""Writes what follows from the code, the pages of docs/ and the CRD; `--check` fails where one of them is stale."""

import argparse
import json
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import annotated_types as at
from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from controller import crd
from controller.grpojob import ClusterSpec
from controller.lifecycle.conditions import Reason
from controller.statustypes import GRPOJobStatus
from trainer.contract.documents import dump_document
from trainer.contract.rules import RULES
from trainer.contract.runner import RunnerConfig
from trainer.metricnames import LOSS_NEAR_ZERO, METRICS

HERE = Path(__file__).parent
MUTABLE = {
    "suspend": "yes",
    **{f"lifecycle.{key}": "yes" for key in crd.MUTABLE_LIFECYCLE},
    "queue": "while suspended",
    "queue.localQueue": "while suspended",
    "queue.workloadPriorityClass": "while suspended",
}
PLAIN = {int: "integer", str: "string", float: "number", bool: "boolean", type(None): "null", JsonValue: "any"}
BOUNDS = ((at.Gt, "gt", ">"), (at.Ge, "ge", "≥"), (at.Lt, "lt", "<"), (at.Le, "le", "≤"))


def unwrapped(hint: typing.Any) -> typing.Any:
    return unwrapped(hint.__origin__) if typing.get_origin(hint) is typing.Annotated else hint


def type_name(hint: typing.Any) -> str:
    hint = unwrapped(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" if value != "" else '`""`' for value in arguments)
    if origin is tuple:
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return f"map of {type_name(arguments[1])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(argument) for argument in arguments)
    return "object" if isinstance(hint, type) and issubclass(hint, BaseModel) else PLAIN[hint]


def constraints(hint: typing.Any) -> Iterator[typing.Any]:
    """Every constraint on a value itself: those inside an Optional count, those on a list's items do not."""
    if typing.get_origin(hint) is typing.Annotated:
        yield from hint.__metadata__
        yield from constraints(hint.__origin__)
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        for argument in typing.get_args(hint):
            yield from constraints(argument)
    elif hasattr(hint, "metadata"):
        for item in hint.metadata:
            yield from constraints(item) if isinstance(item, FieldInfo) else (item,)


def bounds(field: FieldInfo) -> str:
    found: list[str] = []
    for item in [*field.metadata, *constraints(field.annotation)]:
        for constraint in [item, *getattr(item, "metadata", [])]:
            found += [
                f"{sign} {getattr(constraint, key)}" for kind, key, sign in BOUNDS if isinstance(constraint, kind)
            ]
            if isinstance(constraint, at.MinLen) and constraint.min_length > 0:
                found.append(f"length ≥ {constraint.min_length}")
            if isinstance(constraint, at.MaxLen):
                found.append(f"length ≤ {constraint.max_length}")
    return ", ".join(dict.fromkeys(found))


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        return "; ".join(f"`{item.model_dump_json(exclude_defaults=True)}`" for item in value)
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def section(field: FieldInfo) -> tuple[type[BaseModel] | None, bool]:
    """The section that a field holds, and whether it holds a list of them."""
    pending = [unwrapped(field.annotation)]
    while pending:
        hint = unwrapped(pending.pop())
        if isinstance(hint, type) and issubclass(hint, BaseModel):
            return hint, False
        if typing.get_origin(hint) is tuple:
            item = unwrapped(typing.get_args(hint)[0])
            return (item, True) if isinstance(item, type) and issubclass(item, BaseModel) else (None, True)
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            pending += typing.get_args(hint)
    return None, False


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = prefix + (field.alias or name)
        description = (field.description or "").replace("|", "\\|")
        mutable = MUTABLE.get(path, "no")
        kind, value, range_ = type_name(field.annotation), default(field), bounds(field)
        yield f"| `{path}` | {kind} | {value} | {range_} | {mutable} | {description} |"
        inner, many = section(field)
        if inner:
            yield from rows(inner, f"{path}[]." if many else f"{path}.")


STATUS_HEAD = ("| key | type | |", "|---|---|---|")


def status_rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = prefix + (field.alias or name)
        yield f"| `{path}` | {type_name(field.annotation)} | {field.description or ''} |"
        inner, many = section(field)
        if inner:
            yield from status_rows(inner, f"{path}[]." if many else f"{path}.")


HEAD = "| key | type | default | range | mutable | |\n|---|---|---|---|---|---|"


def api_page() -> str:
    return "\n".join(
        [
            "# Every key of a GRPOJob",
            "",
            "Generated from `trainer/contract/runner.py` and `controller/grpojob.py` by `make generate`.",
            "Paths are below `spec`. A runner YAML has the keys of the first table in snake_case:",
            "`rollout.batchSize` is `rollout.batch_size`. Absent and null mean the same. A default `null` in a batch",
            "field means *not given*: the [rules](rules.md) derive it.",
            "",
            "## The runner's tree",
            "",
            HEAD,
            *rows(RunnerConfig),
            "",
            "## The cluster's part",
            "",
            HEAD,
            *rows(ClusterSpec),
            "",
            "## The status",
            "",
            "Written by the controller alone; paths are below `status`. Terminal conditions are sticky.",
            "",
            *STATUS_HEAD,
            *status_rows(GRPOJobStatus),
            "",
        ]
    )


def rules_page() -> str:
    lines = [
        "# The rules",
        "",
        "Generated from `trainer/contract/rules.py` by `make generate`; `grpoctl explain RULE` prints the same.",
        "P = processes (slices × hosts), L = devices per process, K = completions per prompt,",
        "S = L / tp data shards of a process.",
        "",
    ]
    for rule in RULES.values():
        lines += [f"## {rule.id}", "", f"**{rule.title}**", "", rule.explanation, "", "```", rule.example, "```", ""]
    return "\n".join(lines)


METRICS_INTRODUCTION = (
    "Generated from `trainer/metricnames.py` by `make generate`. A run writes them into `metrics.jsonl`, one row a",
    "step; a step that is made again after a restart replaces its row, and a number that JSON cannot hold is null.",
    "`*` is the name of a reward, and in `pass@*` a number of samples. Where nothing else is said, every training step",
    "has the metric. `grpoctl report` draws them. Names are `group/thing/statistic`: Weights & Biases and TensorBoard",
    "make a panel of each group. The last column is what TRL's GRPOTrainer calls the same number; its deviations are",
    "those of a sample.",
)
METRICS_SHARES = (
    "`throughput/update_mfu` counts what the model needs (6 operations a weight and token, and causal attention) on",
    "real tokens; neither padding nor what rematerialisation computes again is credited.",
    "`throughput/decode_bandwidth_share` is the floor that memory sets to decoding, over the time of the whole",
    "rollout, reading the prompts included. Both are told where the peak of the device is known: the table with its",
    "sources is `trainer/data/peaks.json`. The peak is that of bfloat16, also for a run that computes in float32.",
)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def metrics_page() -> str:
    rows = (f"| `{one.name}` | {one.unit} | {one.meaning} | {one.when} | {code(one.trl)} |" for one in METRICS)
    head = ("| name | unit | what it is | where | in TRL |", "|---|---|---|---|---|")
    loss = ("## A loss near 0", "", LOSS_NEAR_ZERO, "")
    shares = ("## Shares of the machine", "", *METRICS_SHARES, "")
    return "\n".join(["# The metrics", "", *METRICS_INTRODUCTION, "", *head, *rows, "", *loss, *shares])


TROUBLESHOOTING_INTRODUCTION = (
    "Generated from `controller/lifecycle/conditions.py` by `make generate`. A condition of a GRPOJob, an attempt in",
    "`status.attempts.last` and an event carry one of these reasons:",
    "",
    "```",
    "kubectl describe grpojob NAME",
    "kubectl get grpojob NAME -o yaml",
    "```",
)


def troubleshooting_page() -> str:
    lines = ["# Why a job stands as it stands", "", *TROUBLESHOOTING_INTRODUCTION, ""]
    for reason in Reason:
        lines += [f"## {reason.word}", "", reason.meaning, ""]
        lines += [f"**What to do.** {reason.remedy}", ""] if reason.remedy else []
    return "\n".join(lines)


def crd_file() -> str:
    return f"# Generated from the types by `make generate`.\n{dump_document(crd.definition())}"


def chart_crd_file() -> str:
    """The same definition as the chart installs it: it outlives the release, and the jobs with it."""
    definition = crd.definition()
    kept = {"annotations": {"helm.sh/resource-policy": "keep"}}
    definition["metadata"] = definition["metadata"] | kept
    return f"# Generated from the types by `make generate`.\n{dump_document(definition)}"


GENERATED = {
    HERE / "api.md": api_page,
    HERE / "rules.md": rules_page,
    HERE / "metrics.md": metrics_page,
    HERE / "troubleshooting.md": troubleshooting_page,
    HERE.parent / "crds" / "grpojobs.yaml": crd_file,
    HERE.parent / "charts" / "grpojob-operator" / "files" / "grpojobs.yaml": chart_crd_file,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is stale")
    check = parser.parse_args().check
    stale = []
    for path, make in GENERATED.items():
        text = make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path.name)
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.exit(f"stale: {', '.join(stale)}; run `make generate`")
    print(f"{'written' if stale else 'fresh'}: {', '.join(path.name for path in GENERATED)}")


if __name__ == "__main__":
    main()
