"""A rollout that ends with letters, for tests in one process and in two: tokens read as one of eight letters each."""

from trainer.rollout import StopStrings

LONGEST = 40
"""More than the chunk after which the host looks at the rows."""
STOPS = StopStrings(("fc",), lambda ids: "".join("abcdefgh"[token % 8] for token in ids))
