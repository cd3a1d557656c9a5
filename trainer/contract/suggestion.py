"""Suggesting a value: a request, a broken rule and the blamed field in; the nearest legal values out.

Every batch rule says that one product of counts divides another, so the values that can heal it are the multiples of
one number, or the divisors of one. That narrows the search; whether a value heals is judged as for any request.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import gcd, isqrt, lcm, prod

from trainer.contract.judgement import MAX_BATCH, MAX_GROUP, BatchRequest, Judgement, judge

PATIENCE = 4096
"""Candidates judged on each side before giving up: far above what the rules' periods need, and well under 0.1 s."""

_LOCAL = ("micro-over-batch", "accumulation")
_CHAIN = ("prompts-over-processes", "rows-over-devices", "whole-passes", *_LOCAL)


@dataclass(frozen=True, slots=True)
class _Divides:
    """`left` divides `right`, both products of fields and of fixed counts, while `rule` holds."""

    rule: str
    left: tuple[str | int, ...]
    right: tuple[str | int, ...]


def suggest(request: BatchRequest, rule: str, field: str, asked: float) -> tuple[int, ...]:
    """The nearest values of `field` below and above `asked` with which `rule` and all that depends on it hold.

    Other broken rules are ignored. Where none exists and other rules are broken, values that heal `rule` alone; where
    it is the only broken rule, nothing: no value would be accepted.
    """
    found = judge(request)
    others = set(found.broken) - {rule}
    searches = [others - _dependents(rule, found)]
    if others:
        searches += [others, set(found.held) | set(_CHAIN) | others]
    for ignored in searches:
        values = _search(request, found, rule, field, asked, frozenset(ignored - {rule}))
        if values:
            return values
    return ()


def _dependents(rule: str, found: Judgement) -> set[str]:
    """The rules that rest on the result of `rule`."""
    if rule == "group":
        return {"batch-of-groups", *_CHAIN}
    if rule == "batch-of-groups":
        return set(_CHAIN) if found.prompts_left_out else {"whole-passes", *_LOCAL}
    if rule in _CHAIN:
        return set(_CHAIN[_CHAIN.index(rule) + 1 :])
    return set()


def _search(
    request: BatchRequest, found: Judgement, rule: str, field: str, asked: float, ignored: frozenset[str]
) -> tuple[int, ...]:
    def heals(value: int) -> bool:
        after = judge(_put(request, field, value))
        return (rule in after.held or rule in ("range", "type")) and ignored.issuperset(after.broken)

    values = _candidates(request, found, field, ignored)
    below = values[: bisect_left(values, asked)][::-1]
    above = values[bisect_right(values, asked) :]
    nearest = (next(filter(heals, islice(side, PATIENCE)), None) for side in (below, above))
    return tuple(value for value in nearest if value is not None)


def _put(request: BatchRequest, field: str, value: int) -> BatchRequest:
    return replace(request, **{field: value, "unknown": request.unknown - {field}})  # type: ignore[arg-type]


def _candidates(request: BatchRequest, found: Judgement, field: str, ignored: frozenset[str]) -> Sequence[int]:
    """A rising sequence that holds every value of `field` that may heal, and few others."""
    if field == "num_pre_q":
        return range(1, MAX_GROUP + 1)
    step, multiple = 1, 0
    probe = _put(request, field, 1)
    for relation in _relations(probe, judge(probe), ignored):
        left, right = _value(probe, relation.left), _value(probe, relation.right)
        if field in relation.right:
            step = lcm(step, left // gcd(left, right))
        if field in relation.left:
            if right % left:
                return ()
            multiple = gcd(multiple, right // left)
    if multiple:
        return (
            [step * factor for factor in _divisors(multiple // step, MAX_BATCH // step)] if multiple % step == 0 else []
        )
    if field == "batch_size" and _must_meet_steps(probe, found, ignored):
        return _meeting_steps(probe, range(step, MAX_BATCH + 1, step))
    return range(step, MAX_BATCH + 1, step)


def _value(request: BatchRequest, factors: tuple[str | int, ...]) -> int:
    return prod(getattr(request, factor) if isinstance(factor, str) else factor for factor in factors)


def _divisors(number: int, limit: int) -> list[int]:
    """The divisors of `number` up to `limit`, rising."""
    low = [divisor for divisor in range(1, min(isqrt(number), limit) + 1) if number % divisor == 0]
    return sorted({*low, *(number // divisor for divisor in low if number // divisor <= limit)})


def _relations(request: BatchRequest, found: Judgement, ignored: frozenset[str]) -> Iterator[_Divides]:
    """What must divide what for the rules that are not ignored; rules that rounding heals ask nothing."""
    rounds = request.padding == "RoundUp"
    batch = request.gives("batch_size") and request.knows("num_pre_q")
    prompts = _term(request, "prompt_batch_size", "per_device_batch_size")
    micro = _term(request, "micro_batch_size", "per_device_micro_batch_size")
    asked = list(_shard_relations(found, micro))
    if batch:
        asked.append(_Divides("batch-of-groups", ("num_pre_q",), ("batch_size",)))
    if not rounds and request.knows("num_pre_q", "padding"):
        asked += _pass_relations(request, found, batch and "batch-of-groups" not in ignored, prompts)
    if not (rounds and batch) and ignored.isdisjoint({"batch-of-groups", "prompts-over-processes", "whole-passes"}):
        steps = ("grad_accum_steps",) if request.gives("grad_accum_steps") else ()
        if micro is not None and "micro-over-batch" in ignored:
            steps = ()
        asked += _step_relations(request, found, batch, prompts, micro, steps)
    return (relation for relation in asked if relation.rule not in ignored)


def _term(request: BatchRequest, whole: str, per_device: str) -> tuple[str | int, ...] | None:
    """The factors of a size that has two names; None where it is left out, given twice or not known."""
    if not request.knows(whole, per_device) or request.gives(whole) == request.gives(per_device):
        return None
    return (whole,) if request.gives(whole) else (per_device, request.devices_per_process)


def _shard_relations(found: Judgement, micro: tuple[str | int, ...] | None) -> Iterator[_Divides]:
    if micro is not None and found.shards is not None:
        yield _Divides("micro-over-shards", (found.shards,), micro)


def _pass_relations(
    request: BatchRequest, found: Judgement, batch: bool, prompts: tuple[str | int, ...] | None
) -> Iterator[_Divides]:
    processes, shards = request.processes, found.shards or 1
    if prompts is not None:
        yield _Divides("rows-over-devices", (shards,), (*prompts, "num_pre_q"))
        if batch:
            yield _Divides("whole-passes", (*prompts, "num_pre_q", processes), ("batch_size",))
    elif batch and found.prompts_left_out:
        yield _Divides("prompts-over-processes", ("num_pre_q", processes), ("batch_size",))
        yield _Divides("rows-over-devices", (shards, processes), ("batch_size",))


def _step_relations(
    request: BatchRequest,
    found: Judgement,
    batch: bool,
    prompts: tuple[str | int, ...] | None,
    micro: tuple[str | int, ...] | None,
    steps: tuple[str, ...],
) -> Iterator[_Divides]:
    """Relations over the sequences of a process: batch_size / processes, or those of the one pass."""
    if batch and (prompts is not None or found.prompts_left_out):
        share: tuple[str | int, ...] = (request.processes,)
        local: tuple[str | int, ...] = ("batch_size",)
    elif request.padding == "RoundUp" and found.local is not None:
        share, local = (), (found.local,)
    elif prompts is not None and request.knows("batch_size", "num_pre_q"):
        share, local = (), (*prompts, "num_pre_q")
    else:
        return
    if micro is not None:
        yield _Divides("micro-over-batch", (*micro, *share), local)
        if steps:
            yield _Divides("accumulation", (*micro, *steps, *share), local)
            yield _Divides("accumulation", local, (*micro, *steps, *share))
    elif found.micro_left_out and steps:
        yield _Divides("accumulation", (*steps, *share), local)


def _must_meet_steps(request: BatchRequest, found: Judgement, ignored: frozenset[str]) -> bool:
    """Rounded batches with both a micro size and its steps: their product is the one effective batch allowed."""
    both = found.micro is not None and request.gives("grad_accum_steps")
    return both and request.padding == "RoundUp" and "accumulation" not in ignored


def _meeting_steps(request: BatchRequest, values: range) -> Sequence[int]:
    """Those batches that rounding takes to micro size x steps; the effective batch never falls as the batch grows."""
    steps, found = request.grad_accum_steps, judge(request)
    if found.micro is None or steps is None or found.unit is None:
        return values

    def effective(batch: int) -> int:
        return judge(_put(request, "batch_size", batch)).local or 0

    wanted = found.micro * steps
    return values[bisect_left(values, wanted, key=effective) : bisect_right(values, wanted, key=effective)]
