"""The built-in rewards that a string decides: the shape of a completion. `correct` stands in `scoring`."""

from trainer.rewards.answers import TAGS


def format_reward(completion: str) -> float:
    """1.0 for `<think>…</think> <answer>…</answer>` with nothing but white space around and between, else 0.0."""
    text = completion.strip()
    positions = [text.find(tag) for tag in TAGS]
    if any(text.count(tag) != 1 for tag in TAGS) or positions != sorted(positions):
        return 0.0
    between = text[positions[1] + len(TAGS[1]) : positions[2]]
    whole = positions[0] == 0 and text.endswith(TAGS[3]) and not between.strip()
    return 1.0 if whole else 0.0


def tags_reward(completion: str) -> float:
    """A quarter for each of the four tags that occurs exactly once."""
    return sum(completion.count(tag) == 1 for tag in TAGS) / len(TAGS)
