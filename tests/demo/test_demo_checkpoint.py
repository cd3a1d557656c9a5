"""The demo's checkpoint: small, loaded with the ids it was trained with, and as able as its record says."""

import json
import random

import pytest
import tokenizers
import yaml
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from examples.demo import pretrain, sums
from examples.demo.tokenizer import CHAT_TEMPLATE, TAGS, train_tokenizer
from trainer.model.config import read_model_config
from trainer.model.source import load_tokenizer

MEBIBYTE = 2**20
EXAMPLES = list(sums.careless_examples(sums.split_sums()[2][:500], seed=1))
TEXTS = [
    *(
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{work}<|im_end|>"
        for question, work in EXAMPLES
    ),
    "it's  12,345\n\n and <answer>-7</answer>  é",
]


@pytest.fixture(scope="module")
def tokenizer():
    return PreTrainedTokenizerFast.from_pretrained(pretrain.CHECKPOINT)


@pytest.mark.parametrize("load", [AutoTokenizer.from_pretrained, load_tokenizer], ids=["transformers", "trainer"])
def test_every_way_to_load_the_tokenizer_gives_the_ids_of_its_file(load):
    """The saved tokenizer.json, transformers' own choice of class and the trainer's loader agree on every id."""
    saved = tokenizers.Tokenizer.from_file(str(pretrain.CHECKPOINT / "tokenizer.json"))
    loaded = load(pretrain.CHECKPOINT)
    assert [loaded(text)["input_ids"] for text in TEXTS] == [saved.encode(text).ids for text in TEXTS]
    assert loaded.eos_token_id == saved.token_to_id("<|im_end|>")
    assert loaded.chat_template == CHAT_TEMPLATE


def test_the_script_makes_the_saved_tokenizer_again(tokenizer):
    """Training the tokenizer anew gives the committed vocabulary, id for id."""
    examples = sums.careless_examples(sums.split_sums()[2], pretrain.SEED)
    assert train_tokenizer(pretrain.tokenizer_texts(list(examples))).get_vocab() == tokenizer.get_vocab()


def test_tokens_go_there_and_back_with_the_tags_kept(tokenizer):
    """Decoding without special tokens gives the working back, tags included, as a reward must see it."""
    for _, working in EXAMPLES:
        ids = [*tokenizer(working)["input_ids"], tokenizer.eos_token_id]
        assert tokenizer.decode(ids, skip_special_tokens=True) == working
    assert all(len(tokenizer(tag)["input_ids"]) == 1 for tag in TAGS)


def test_every_question_and_right_working_fits_the_jobs_lengths(tokenizer):
    """No prompt is longer than the job's prompts, and no right working than its completions."""
    rollout = yaml.safe_load((sums.HERE / "job.yaml").read_text(encoding="utf-8"))["spec"]["rollout"]
    held_out, train, _ = sums.split_sums()
    examples = list(sums.careless_examples([*held_out, *train], seed=1))
    careful = [sums.work(task, random.Random(0)) for task in [*held_out, *train]]
    assert max(len(pretrain.prompt_ids(tokenizer, question)) for question, _ in examples) <= rollout["globalLength"]
    assert max(len(tokenizer(working)["input_ids"]) + 1 for working in careful) <= rollout["maxLengthSample"]


def test_checkpoint_fits_its_tokenizer_and_the_repository(tokenizer):
    """One embedding a token, an end token that both name, and no more than four MiB in all."""
    config = read_model_config(pretrain.CHECKPOINT)
    assert config == pretrain.demo_model(tokenizer.eos_token_id)
    assert config.vocab == len(tokenizer)
    assert sum(path.stat().st_size for path in pretrain.CHECKPOINT.iterdir()) < 4 * MEBIBYTE


def test_checkpoint_is_as_able_as_recorded():
    """Greedy exact match on the held-out questions, before any GRPO, is what made.json says: some, but not most."""
    made = json.loads((pretrain.CHECKPOINT / "made.json").read_text(encoding="utf-8"))
    measured = pretrain.greedy_exact_match(pretrain.CHECKPOINT)
    # Another CPU may break a tie otherwise, which moves single questions, not percents.
    assert measured == pytest.approx(made["held_out_greedy_exact_match"], abs=0.02)
    assert 0.1 < measured < 0.6
