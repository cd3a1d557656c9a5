"""Stop strings: exact cuts, on any mesh, by one compiled loop that the host interrupts once a chunk."""

import jax.numpy as jnp
import numpy as np
import pytest

from trainer.model.config import read_model_config
from trainer.model.weights import load_params
from trainer.rollout import Rollout, StopStrings

PROMPTS, SAMPLES = [[5, 6, 7, 8, 9], [11, 12], [40] * 7], 8
SETTINGS = {"longest": 70, "temperature": 3.0}


def text_of(ids: list[int]) -> str:
    """One letter a token, so that a stop string of one letter comes early and one of three late."""
    return "".join("abcdefgh"[token % 8] for token in ids)


def generate(oracles, mesh, sampling, stop=(), ids=()):
    folder = oracles / "qwen2-untied"
    config = read_model_config(folder)
    end = StopStrings(stop, text_of).end if stop else None
    rollout = Rollout(config, mesh, sampling, stop_ids=ids, pad_id=0, compute_dtype=jnp.float32, end=end)
    params = load_params(folder, config, mesh, jnp.float32)
    return rollout.generate(params, PROMPTS, range(3), 1, 4, 16, samples=SAMPLES)


@pytest.fixture(scope="module")
def free(oracles, mesh_of, sampling_of):
    """What is sampled where nothing stops."""
    return generate(oracles, mesh_of(1, 1, 1), sampling_of(**SETTINGS))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2)])
def test_rows_end_with_the_token_that_completes_a_stop_string(oracles, mesh_of, sampling_of, free, shape):
    """Tokens up to there are those of an unstopped row; behind is padding, and no probability."""
    stop = ("abc", "hh")
    done = generate(oracles, mesh_of(*shape), sampling_of(**SETTINGS), stop)
    for row, whole in enumerate(free.tokens):
        text = text_of(whole.tolist())
        ends = [text.find(string) + len(string) for string in stop if string in text]
        length = min(ends, default=70)
        assert (done.lengths[row], done.finished[row]) == (length, bool(ends))
        inside = np.arange(70) < length
        np.testing.assert_array_equal(done.tokens[row], np.where(inside, whole, 0))
        np.testing.assert_allclose(
            done.sampled_logprobs[row], np.where(inside, free.sampled_logprobs[row], 0), atol=1e-4
        )
    assert (done.lengths > 32).sum() > 3  # some rows go on beyond the first look
    assert (done.lengths < 32).sum() > 3


def test_nothing_is_computed_after_the_chunk_in_which_the_last_row_ended(oracles, mesh_of, sampling_of, free):
    """A letter that all rows say early ends generation at the first look, and not at the longest completion."""
    done = generate(oracles, mesh_of(1, 1, 1), sampling_of(**SETTINGS), ("a", "b", "c", "d"))
    assert done.finished.all()
    assert done.lengths.max() < 32
    assert done.steps == 33


def test_a_stop_token_before_the_string_comes_first(oracles, mesh_of, sampling_of, free):
    """Where a row samples a stop token and would have said the string later, it ends with the token, and vice versa."""
    token = free.tokens[0, 3].item()
    done = generate(oracles, mesh_of(1, 1, 1), sampling_of(**SETTINGS), ("hh",), (token,))
    for row, whole in enumerate(free.tokens.tolist()):
        said = text_of(whole).find("hh") + 2
        ends = [end for end in (said, whole.index(token) + 1 if token in whole else 1) if end > 1]
        assert done.lengths[row] == min(ends, default=70)


def test_chunks_compile_once_for_each_size_of_the_suffix(oracles, mesh_of, sampling_of, compilations):
    """Other prompts of the same shape, that end after another number of chunks, compile nothing."""
    folder, mesh = oracles / "qwen2-untied", mesh_of(2, 1, 1)
    config = read_model_config(folder)
    end = StopStrings(("hh",), text_of).end
    rollout = Rollout(config, mesh, sampling_of(**SETTINGS), stop_ids=(), pad_id=0, compute_dtype=jnp.float32, end=end)
    params = load_params(folder, config, mesh, jnp.float32)
    rollout.generate(params, PROMPTS[:2], [0, 1], 0, 0, 16, samples=2)
    first = len(compilations)
    steps = {rollout.generate(params, PROMPTS[1:], [0, 1], step, 0, 16, samples=2).steps for step in range(1, 6)}
    assert len(compilations) == first
    assert len(steps) > 1


def test_text_ends_before_the_string_that_begins_first() -> None:
    """Of "1 + 1 = 2</answer> So", `</answer>` leaves "1 + 1 = 2"; the tokens hold the whole of the token it ends in."""
    pieces = ["1 + 1 ", "= 2</an", "swer> So", " on"]

    def decode(ids: list[int]) -> str:
        return "".join(pieces[number] for number in ids)

    stops = StopStrings(("</answer>", " So on"), decode)
    assert stops.end([0, 1], 0) is None
    assert stops.end([0, 1, 2, 3], 2) == 3
    assert stops.text([0, 1, 2]) == "1 + 1 = 2"
    assert stops.text([0, 1]) == "1 + 1 = 2</an"


def test_a_character_of_several_tokens_stops_with_its_last() -> None:
    """Bytes of one character in two tokens say nothing before the second."""
    parts = [b"a", "é".encode()[:1], "é".encode()[1:], b"b"]
    stops = StopStrings(("é",), lambda ids: b"".join(parts[number] for number in ids).decode(errors="replace"))
    assert stops.end([0, 1], 0) is None
    assert stops.end([0, 1, 2, 3], 2) == 3
    assert stops.text([0, 1, 2]) == "a"
