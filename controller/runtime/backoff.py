"""How long to wait before the next try: longer each time, never in step with others. It keeps no time itself."""

import random
from dataclasses import dataclass, field

MOST_DOUBLINGS = 30


@dataclass(slots=True)
class Backoff:
    """Delays in seconds that double from `first` to `most`, of each a random part between a half and all."""

    first: float
    most: float
    chance: random.Random = field(default_factory=random.Random)
    failures: int = 0

    def next(self, at_least: float | None = None) -> float:
        """`at_least` is what the server asked for, which no `most` shortens."""
        delay = min(self.most, self.first * 2.0 ** min(self.failures, MOST_DOUBLINGS))
        self.failures += 1
        return max(delay * (0.5 + self.chance.random() / 2), at_least or 0.0)

    def reset(self) -> None:
        self.failures = 0
