"""Batch requests for property tests: some that fit, some that miss by one number, and some that are wild."""
# ruff: noqa: N806 - the letters of the rules' table

from batch_oracle import FIELDS, Ask
from hypothesis import strategies as st


@st.composite
def fitting(draw: st.DrawFn, *, rounds: bool | None = None) -> Ask:
    """A request made from a plan, with what can be derived left out at random."""
    slices = draw(st.sampled_from((1, 1, 2)))
    P, L = slices * draw(st.integers(1, 4)), draw(st.sampled_from((1, 2, 3, 4, 8)))
    tp = draw(st.sampled_from([tp for tp in (1, 1, 2, 4) if L % tp == 0]))
    S, K = L // tp, draw(st.integers(2, 10))
    Q = next(Q for Q in range(draw(st.integers(1, 12)), 100) if Q * K % S == 0)
    form = draw(st.sampled_from(("one pass", "passes", "no batch")))
    prompts = draw(st.sampled_from(("Q", "D"))) if form != "one pass" else "none"
    if prompts == "D":
        Q = L * draw(st.integers(1, 3))
    passes = draw(st.integers(1, 6)) if form == "passes" else 1
    local = Q * K * passes
    M = draw(st.sampled_from([size for size in range(S, local + 1, S) if local % size == 0]))
    micro = draw(st.sampled_from(("none", "M", "m") if M % L == 0 else ("none", "M")))
    return Ask(
        P=P,
        L=L,
        slices=slices,
        sizes=draw(st.sampled_from(((slices, -1, tp), (-1, 1, tp), *((None,) if tp == 1 else ())))),
        B=None if form == "no batch" else local * P,
        K=K,
        Q=Q if prompts == "Q" else None,
        D=Q // L if prompts == "D" else None,
        M=M if micro == "M" else None,
        m=M // L if micro == "m" else None,
        A=draw(st.sampled_from((None, local // M))),
        rounds=draw(st.booleans()) if rounds is None else rounds,
    )


@st.composite
def missing(draw: st.DrawFn, *, rounds: bool | None = None) -> Ask:
    """A fitting request with one number changed, or one given that should have been left out."""
    ask = draw(fitting(rounds=rounds))
    letter = draw(st.sampled_from(sorted(FIELDS.values())))
    value = getattr(ask, letter) or draw(st.integers(1, 6))
    return ask.having(letter, max(1, value + draw(st.integers(-9, 9))))


@st.composite
def wild(draw: st.DrawFn, *, rounds: bool | None = None) -> Ask:
    """A request whose numbers have nothing to do with each other."""
    slices = draw(st.sampled_from((1, 1, 1, 2)))
    P, L = slices * draw(st.integers(1, 4)), draw(st.sampled_from((1, 2, 3, 4, 8)))
    mesh = st.tuples(*(st.sampled_from((-1, 1, 1, 2, 4)) for _ in range(3)))
    return Ask(
        P=P,
        L=L,
        slices=slices,
        sizes=draw(st.one_of(st.none(), st.just((1, -1, 1)), mesh)),
        B=draw(st.one_of(st.none(), st.integers(1, 200))),
        K=draw(st.integers(1, 12)),
        Q=draw(st.one_of(st.none(), st.none(), st.integers(1, 20))),
        D=draw(st.one_of(st.none(), st.none(), st.integers(1, 5))),
        M=draw(st.one_of(st.none(), st.integers(1, 40))),
        m=draw(st.one_of(st.none(), st.none(), st.integers(1, 6))),
        A=draw(st.one_of(st.none(), st.integers(1, 12))),
        rounds=draw(st.booleans()) if rounds is None else rounds,
    )


def asks(*, rounds: bool | None = None) -> st.SearchStrategy[Ask]:
    return st.one_of(fitting(rounds=rounds), missing(rounds=rounds), missing(rounds=rounds), wild(rounds=rounds))
