"""Stop strings: where in its tokens a completion has said one, and its text up to there.

In: a row's token ids. Out: a length in tokens, or the text before. It refuses to know the loop that
generates, and how a row that has ended is left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StopStrings:
    """`strings` may be none; `decode` gives the text of token ids as rewards and people see it."""

    strings: tuple[str, ...]
    decode: Callable[[list[int]], str]

    def end(self, ids: Sequence[int], seen: int) -> int | None:
        """The fewest first tokens, more than `seen`, whose text has a stop string in it; None where all have none.

        The token that completes the string counts, though its text may go on: it was sampled, and is what ended the
        row, as a stop token is. Prefixes are decoded one by one, and only of a row that has a stop string: a token's
        own text says nothing where a character, or a space before a word, comes of several.
        """
        if not self._has_one(self.decode(list(ids))):
            return None
        prefixes = range(seen + 1, len(ids))
        return next((size for size in prefixes if self._has_one(self.decode(list(ids[:size])))), len(ids))

    def text(self, ids: list[int]) -> str:
        """The text up to the stop string that begins first; all of it where there is none."""
        text = self.decode(ids)
        places = [place for string in self.strings if (place := text.find(string)) >= 0]
        return text[: min(places, default=len(text))]

    def _has_one(self, text: str) -> bool:
        return any(string in text for string in self.strings)
