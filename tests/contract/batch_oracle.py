"""The batch rules a second time, by search instead of arithmetic; imports nothing of the project.

It reads like the table of rules: each rule is asked in words of counts, and rounding tries one plan after the other,
smallest first. Slow, and only as clever as it must be to judge the contract's answers.
"""
# ruff: noqa: N806 - the letters of the rules' table

from dataclasses import dataclass, field, replace
from itertools import count

Sizes = tuple[int, int, int]


@dataclass(frozen=True)
class Ask:
    """P, L, slices and the user's fields by their letters; `sizes` are dp, fsdp, tp as written, None means auto."""

    P: int
    L: int
    slices: int = 1
    sizes: Sizes | None = None
    B: int | None = None
    K: int = 8
    Q: int | None = None
    D: int | None = None
    M: int | None = None
    m: int | None = None
    A: int | None = None
    rounds: bool = False

    def having(self, letter: str, value: int) -> "Ask":
        return replace(self, **{letter: value})  # type: ignore[arg-type]


@dataclass
class Verdict:
    broken: set[str] = field(default_factory=set)
    ran: set[str] = field(default_factory=set)
    S: int | None = None
    G: int | None = None
    Q: int | None = None
    passes: int | None = None
    local: int | None = None
    M: int | None = None
    steps: int | None = None

    def ask(self, rule: str, holds: bool) -> bool:
        self.ran.add(rule)
        if not holds:
            self.broken.add(rule)
        return holds


def placed(ask: Ask) -> Sizes | None:
    """The mesh, by trying every size for -1; None where no mesh covers the devices."""
    devices = ask.P * ask.L
    sizes = ask.sizes or (ask.slices, -1, 1)
    if list(sizes).count(-1) > 1:
        return None
    for free in range(1, devices + 1):
        dp, fsdp, tp = (free if size == -1 else size for size in sizes)
        if min(dp, fsdp, tp) >= 1 and dp * fsdp * tp == devices and ask.L % tp == 0:
            return dp, fsdp, tp
    return None


def judge(ask: Ask) -> Verdict:
    verdict = Verdict()
    mesh = placed(ask)
    if verdict.ask("mesh", mesh is not None) and mesh is not None:
        verdict.S = ask.L // mesh[2]
        verdict.ask("mesh-over-slices", mesh[0] % ask.slices == 0)
    verdict.ask("group", ask.K > 1)
    verdict.ask("some-size", any(size is not None for size in (ask.B, ask.Q, ask.D)))
    if ask.B is not None and verdict.ask("batch-of-groups", ask.B % ask.K == 0):
        verdict.G = ask.B // ask.K
    if verdict.ask("one-micro-size", ask.M is None or ask.m is None):
        verdict.M = ask.M if ask.m is None else ask.m * ask.L
    if verdict.M is not None and verdict.S is not None:
        verdict.ask("micro-over-shards", verdict.M % verdict.S == 0)
    if verdict.ask("one-prompt-size", ask.Q is None or ask.D is None):
        verdict.Q = ask.Q if ask.D is None else ask.D * ask.L
        (_rounded if ask.rounds else _exact)(ask, verdict)
    if verdict.passes is not None and verdict.Q is not None:
        verdict.local = verdict.passes * verdict.Q * ask.K
        _micro_steps(ask, verdict, verdict.local)
    return verdict


def _exact(ask: Ask, verdict: Verdict) -> None:
    G, S = verdict.G, verdict.S
    derived = verdict.Q is None
    if derived:
        if G is None or not verdict.ask("prompts-over-processes", G % ask.P == 0):
            return
        verdict.Q = G // ask.P
    assert verdict.Q is not None
    if S is not None:
        verdict.ask("rows-over-devices", verdict.Q * ask.K % S == 0)
    if derived or ask.B is None:
        verdict.passes = 1
    elif G is not None and verdict.ask("whole-passes", G % (verdict.Q * ask.P) == 0):
        verdict.passes = G // (verdict.Q * ask.P)


def _fits(ask: Ask, verdict: Verdict, local: int) -> bool:
    """Whether a process can do whole micro-steps over `local` sequences that fill its shards alike."""
    assert verdict.S is not None
    if verdict.M is not None:
        return local % verdict.M == 0 and local % verdict.S == 0
    parts = ask.A or 1
    return local % parts == 0 and local // parts % verdict.S == 0


def _rounded(ask: Ask, verdict: Verdict) -> None:
    G, S = verdict.G, verdict.S
    if S is None:
        verdict.Q = None
        return
    known = "one-micro-size" not in verdict.broken and "micro-over-shards" not in verdict.broken
    if verdict.Q is None:
        if G is None or not known:
            return
        verdict.ran |= {"prompts-over-processes", "rows-over-devices"}
        verdict.Q = next(Q for Q in count(1) if Q * ask.P >= G and _fits(ask, verdict, Q * ask.K))
        verdict.passes = 1
        return
    verdict.ran.add("rows-over-devices")
    verdict.Q = next(Q for Q in count(verdict.Q) if Q * ask.K % S == 0)
    if ask.B is None:
        verdict.passes = 1
    elif G is not None and known:
        verdict.ran.add("whole-passes")
        prompts = verdict.Q * ask.P
        verdict.passes = next(n for n in count(1) if n * prompts >= G and _fits(ask, verdict, n * verdict.Q * ask.K))


def _micro_steps(ask: Ask, verdict: Verdict, local: int) -> None:
    if "one-micro-size" in verdict.broken:
        return
    if verdict.M is not None:
        if verdict.ask("micro-over-batch", local % verdict.M == 0):
            verdict.steps = local // verdict.M
            if ask.A is not None and not verdict.ask("accumulation", verdict.steps == ask.A):
                verdict.steps = None
        return
    parts = ask.A or 1
    holds = local % parts == 0
    if holds and verdict.S is not None and "rows-over-devices" not in verdict.broken:
        holds = local // parts % verdict.S == 0
    if ask.A is None or verdict.ask("accumulation", holds):
        verdict.steps, verdict.M = parts, local // parts


FIELDS = {
    "rollout.batch_size": "B",
    "rollout.num_pre_q": "K",
    "rollout.prompt_batch_size": "Q",
    "rollout.per_device_batch_size": "D",
    "train.micro_batch_size": "M",
    "train.per_device_micro_batch_size": "m",
    "train.grad_accum_steps": "A",
}


def dependents(rule: str, ask: Ask) -> set[str]:
    """The rules that rest on the result of `rule`, directly or not."""
    left_out = ask.Q is None and ask.D is None
    rests_on = {
        "batch-of-groups": {"group"},
        "prompts-over-processes": {"batch-of-groups"},
        "rows-over-devices": {"group", "prompts-over-processes"} if left_out else {"group"},
        "whole-passes": {"batch-of-groups", "rows-over-devices"},
        "micro-over-batch": {"whole-passes", "rows-over-devices"},
        "accumulation": {"micro-over-batch", "whole-passes", "rows-over-devices"},
    }
    found = {rule}
    while more := {name for name, sources in rests_on.items() if sources & found} - found:
        found |= more
    return found - {rule}


def heals(ask: Ask, rule: str, letter: str, value: int) -> bool:
    """Whether `rule` and all that rest on it hold with another value, and no rule breaks that held before."""
    before, after = judge(ask), judge(ask.having(letter, value))
    ignored = before.broken - {rule} - dependents(rule, ask)
    return rule in after.ran and after.broken <= ignored


def nearest(ask: Ask, rule: str, letter: str, limit: int) -> tuple[int | None, int | None]:
    """The nearest healing values below and above, up to `limit`."""
    asked = getattr(ask, letter)
    below = next((value for value in range(asked - 1, 0, -1) if heals(ask, rule, letter, value)), None)
    above = next((value for value in range(asked + 1, limit + 1) if heals(ask, rule, letter, value)), None)
    return below, above
