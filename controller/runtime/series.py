"""Which occurrences are one event: the same thing said again of the same object within six minutes.

Pure but for the clock that it is given; it sends nothing.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, ...]
SERIES_SECONDS = 360.0
REFRESH_SECONDS = 60.0
SERIES_KEPT = 4096
BURST, REFILL_SECONDS = 25, 60.0


@dataclass(slots=True)
class Series:
    """An event that was said `count` times; `name` is that of its object, once it was sent."""

    body: dict[str, Any]
    count: int = 1
    name: str | None = None
    last_seen: float = 0.0
    told_at: float = 0.0
    told_count: int = 0

    @property
    def is_behind(self) -> bool:
        return self.count > self.told_count


@dataclass(slots=True)
class Budget:
    """Of one object: so many events at once, and one more a minute."""

    tokens: float = BURST
    at: float = 0.0

    def spend(self, now: float) -> bool:
        self.tokens = min(BURST, self.tokens + (now - self.at) / REFILL_SECONDS)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(slots=True)
class Correlator:
    """Takes occurrences in, and says what is to be sent; what is old it forgets."""

    series: "OrderedDict[Key, Series]" = field(default_factory=OrderedDict)
    budgets: "OrderedDict[str, Budget]" = field(default_factory=OrderedDict)

    def take(self, key: Key, body: dict[str, Any], now: float) -> Series | None:
        """The series to send now, or None: it waits for `due`, or its object (`key[0]`) has spent its budget."""
        known = self.series.get(key)
        if known is not None and now - known.last_seen <= SERIES_SECONDS:
            known.count += 1
            known.last_seen = now
            self.series.move_to_end(key)
            return known if self._is_due(known, now) else None
        if not self._budget(key[0], now).spend(now):
            return None
        made = Series(body, last_seen=now)
        self.series[key] = made
        self.series.move_to_end(key)
        self._forget(self.series)
        return made

    def due(self, now: float) -> list[Series]:
        """Series that have grown and were last told of a minute ago."""
        return [one for one in self.series.values() if self._is_due(one, now)]

    def next_due(self) -> float | None:
        return min((one.told_at + REFRESH_SECONDS for one in self.series.values() if one.is_behind), default=None)

    def _is_due(self, one: Series, now: float) -> bool:
        return one.is_behind and (one.told_count <= 1 or now - one.told_at >= REFRESH_SECONDS)

    def _budget(self, of: str, now: float) -> Budget:
        budget = self.budgets.setdefault(of, Budget(at=now))
        self.budgets.move_to_end(of)
        self._forget(self.budgets)
        return budget

    @staticmethod
    def _forget(kept: "OrderedDict[Any, Any]") -> None:
        if len(kept) > SERIES_KEPT:
            kept.popitem(last=False)
