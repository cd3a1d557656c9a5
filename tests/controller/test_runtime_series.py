"""Which occurrences are one event, and which are too many. The clock is ours."""

from controller.runtime.series import BURST, Correlator, Series

BODY = {"reason": "Any"}


def sent(series: Series | None, now: float) -> int | None:
    """The count that would be sent, as the recorder marks it."""
    if series is None:
        return None
    series.told_at, series.told_count = now, series.count
    return series.count


def test_a_repetition_is_told_at_once_and_then_once_a_minute() -> None:
    """First and second occurrence are told; later ones when a minute has passed, with all that came meanwhile."""
    correlator = Correlator()
    told = [sent(correlator.take(("uid", "same"), BODY, now), now) for now in (0, 1, 2, 3, 60)]
    assert told == [1, 2, None, None, None]
    assert correlator.next_due() == 61
    assert correlator.due(60.9) == []
    (grown,) = correlator.due(61)
    assert sent(grown, 61) == 5
    assert correlator.next_due() is None


def test_what_is_said_again_after_six_minutes_is_another_event() -> None:
    """A series ends when it has been quiet for six minutes."""
    correlator = Correlator()
    first = correlator.take(("uid", "same"), BODY, 0)
    assert correlator.take(("uid", "same"), BODY, 360) is first
    assert correlator.take(("uid", "same"), BODY, 721) is not first


def test_an_object_has_a_budget() -> None:
    """So many different events at once, then one a minute; another object has its own, and repetitions are free."""
    correlator = Correlator()
    took = [correlator.take(("uid", str(number)), BODY, 0) for number in range(BURST + 5)]
    assert sum(one is not None for one in took) == BURST
    assert correlator.take(("other", "0"), BODY, 0) is not None
    assert correlator.take(("uid", "0"), BODY, 1) is took[0]
    assert correlator.take(("uid", "new"), BODY, 61) is not None
    assert correlator.take(("uid", "newer"), BODY, 62) is None


def test_what_is_kept_is_bounded() -> None:
    """A hundred thousand objects leave a few thousand series, the newest."""
    correlator = Correlator()
    for number in range(100_000):
        correlator.take((f"uid-{number}", "said"), BODY, 0)
    assert len(correlator.series) == len(correlator.budgets) == 4096
    assert ("uid-99999", "said") in correlator.series
