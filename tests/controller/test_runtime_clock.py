"""Which time it is for the operator: the API server's, whatever this machine's clock says."""

from datetime import UTC, datetime, timedelta

from controller.runtime.clock import HEARD_SECONDS, ServerClock

TOLD = "Tue, 24 Nov 2026 08:00:00 GMT"
MOMENT = datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC)


def test_the_server_s_time_goes_on_by_a_clock_that_nobody_sets() -> None:
    """Its own clock is asked before the first answer only; a later answer sets it right."""
    elapsed, own = [100.0], [datetime(1999, 1, 1, tzinfo=UTC)]
    clock = ServerClock(lambda: elapsed[0], lambda: own[0])
    assert clock.now() == own[0]
    clock.hear(TOLD)
    elapsed[0] += 3
    own[0] += timedelta(hours=5)
    assert clock.now() == MOMENT + timedelta(seconds=3)
    clock.hear("Tue, 24 Nov 2026 09:00:00 GMT")  # within ten seconds of the last one
    assert clock.now() == MOMENT + timedelta(seconds=3)
    elapsed[0] += HEARD_SECONDS
    clock.hear("Tue, 24 Nov 2026 09:00:00 GMT")
    assert clock.now() == MOMENT + timedelta(hours=1)


def test_what_is_no_date_is_not_heard() -> None:
    """A proxy may leave the header out, or put two into one."""
    own = datetime(1999, 1, 1, tzinfo=UTC)
    clock = ServerClock(lambda: 0.0, lambda: own)
    for date in (None, "", "soon", f"{TOLD}, {TOLD}"):
        clock.hear(date)
    assert clock.now() == own
