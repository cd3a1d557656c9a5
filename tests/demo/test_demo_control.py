"""The demo's control: rewards as the job gives them, for completions that did not earn them."""

from types import SimpleNamespace

from examples.demo.control import earned, shuffled

GOLD = "880"
RIGHT, BARE, WRONG = "<think>…</think><answer>880</answer>", "880", "<think>…</think><answer>870</answer>"


def test_a_completion_earns_what_the_job_gives() -> None:
    """0.8 for the right answer and 0.2 for its form, as the job's weights have it."""
    assert [earned(text, GOLD) for text in (RIGHT, BARE, WRONG, "")] == [1.0, 0.8, 0.2, 0.0]


def test_the_control_deals_the_same_rewards_to_others() -> None:
    """As many rewards of each size, in an order that each step has of its own, again the same for the same step."""
    texts = [RIGHT, BARE, WRONG, ""] * 32
    deal = [shuffled(texts, [GOLD] * 128, SimpleNamespace(global_step=step), prompts=texts) for step in (1, 1, 2)]
    honest = [earned(text, GOLD) for text in texts]
    assert [sorted(one) for one in deal] == [sorted(honest)] * 3
    assert deal[0] == deal[1] != deal[2] != honest
    kept = sum(one == right for one, right in zip(deal[0], honest, strict=True))
    assert 16 < kept < 48, "a quarter stays by chance where four sizes are as frequent"
