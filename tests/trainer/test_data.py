"""Data: rows from files and the hub, prompts, the order of questions, and what a user reads when something is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from transformers import PreTrainedTokenizerFast

from trainer.contract.runner import DataConfig
from trainer.data import DataError, draw, load_questions
from trainer.data.questions import usual_longest

TEMPLATE = (
    "{% for m in messages %}<bos>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}bot: {% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(byte_model: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(byte_model)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "q.jsonl"
    rows = [{"question": f"What is {n} + {n}?", "answer": f"#### {2 * n}", "level": n} for n in (1, 22, 333)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    return path


def load(path: Path | str, tokenizer, longest: int = 512, answers: bool = True, split: str = "test", **config):
    return load_questions("train", split, DataConfig(train=str(path), **config), tokenizer, longest, answers=answers)


def test_rows_become_prompts_with_their_columns(questions: Path, tokenizer) -> None:
    """A row's prompt field is its text, its other columns stay with it, and an empty last line is no row."""
    loaded = load(questions, tokenizer)
    assert [question.text for question in loaded.questions] == [
        "What is 1 + 1?",
        "What is 22 + 22?",
        "What is 333 + 333?",
    ]
    assert loaded.questions[1].columns == {"question": "What is 22 + 22?", "answer": "#### 44", "level": 22}
    assert tokenizer.decode(loaded.questions[0].token_ids) == "What is 1 + 1?"


def test_a_file_that_windows_saved_is_read_as_it_looks(questions: Path, tokenizer) -> None:
    """A byte-order mark and carriage returns, which no editor shows, are no part of the data."""
    before = load(questions, tokenizer).questions
    questions.write_bytes(b"\xef\xbb\xbf" + questions.read_bytes().replace(b"\n", b"\r\n"))
    assert load(questions, tokenizer).questions == before


def test_a_template_and_a_system_prompt_shape_the_prompt(questions: Path, tokenizer) -> None:
    """The jinja2 template sees the columns; without a chat template the system prompt comes first, as plain text."""
    loaded = load(questions, tokenizer, prompt_template="{{ level }}: {{ question }}", system_prompt="Add.")
    assert loaded.questions[0].text == "1: What is 1 + 1?"
    assert tokenizer.decode(loaded.questions[0].token_ids) == "Add.\n\n1: What is 1 + 1?"


def test_the_chat_template_alone_places_special_tokens(questions: Path, tokenizer, monkeypatch) -> None:
    """The conversation is encoded once, with the generation prompt and with no second beginning-of-text."""
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
    ids = load(questions, tokenizer, system_prompt="Add.").questions[0].token_ids
    assert tokenizer.decode(ids) == "<bos>system: Add.\n<bos>user: What is 1 + 1?\nbot: "
    assert ids.count(tokenizer.bos_token_id) == 2


QWEN3 = TEMPLATE.replace(
    "bot: ",
    "bot: {% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}",
)
"""Its last turn, as https://huggingface.co/Qwen/Qwen3-4B writes it."""


def test_a_chat_template_is_given_its_variables(questions: Path, tokenizer, monkeypatch) -> None:
    """Qwen3's `enable_thinking: false` begins the answer with an empty thought; without it the template decides."""
    monkeypatch.setattr(tokenizer, "chat_template", QWEN3)
    asked = "<bos>user: What is 1 + 1?\nbot: "
    expected = {None: asked, True: asked, False: asked + "<think>\n\n</think>\n\n"}
    for thinking, text in expected.items():
        variables = {} if thinking is None else {"enable_thinking": thinking}
        ids = load(questions, tokenizer, chat_template_kwargs=variables).questions[0].token_ids
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    ("template", "whose"),
    [(TEMPLATE, "the model's chat template"), (None, "a chat template, which the model's tokenizer lacks")],
)
def test_a_variable_that_the_template_does_not_have_is_refused(
    template: str | None, whose: str, questions: Path, tokenizer, monkeypatch
) -> None:
    """It would do nothing, without a word: with a template of another model, or without one."""
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(DataError) as refused:
        load(questions, tokenizer, chat_template_kwargs={"enable_thinking": False})
    assert str(refused.value) == (
        f"data.chat_template_kwargs: 'enable_thinking' is no variable of {whose}; leave it out"
    )


def test_overlong_prompts_are_dropped_or_cut_from_the_left_and_counted(questions: Path, tokenizer) -> None:
    """`drop` leaves the long ones out, `truncate-left` keeps their last tokens; the summary says how many."""
    lengths = [len(question.token_ids) for question in load(questions, tokenizer).questions]
    assert lengths[0] < lengths[1]
    dropped = load(questions, tokenizer, longest=lengths[0])
    assert (len(dropped), dropped.summary) == (1, f"1 questions from {questions}, 2 dropped as overlong")
    cut = load(questions, tokenizer, longest=lengths[0], overlong="truncate-left")
    assert [len(question.token_ids) for question in cut.questions] == [lengths[0]] * 3
    assert cut.questions[2].token_ids == load(questions, tokenizer).questions[2].token_ids[-lengths[0] :]
    assert (cut.dropped, cut.truncated) == (0, 2)


@pytest.mark.parametrize(
    ("text", "config", "message"),
    [
        (
            b'{"question": "a", "answer": "1"}\n{"question": "b",, }\n',
            {},
            "FILE line 2 is not JSON (Expecting property",
        ),
        (b'{"question": "a", "answer": "1"}\n[1, 2]\n', {}, "FILE line 2 is a list, and must be an object"),
        (b'{"question": "\xff"}\n', {}, "FILE line 1 is not UTF-8 (byte 15); save the file as UTF-8"),
        (b"\n", {}, "FILE holds no rows; give a file with one JSON object per line"),
        (b'{"q": "a", "answer": "1"}\n', {}, "no field 'question'; set data.prompt_field to one of q, answer"),
        (b'{"question": "a"}\n', {}, "no field 'answer'; set data.answer_field to one of question"),
        (b'{"question": " ", "answer": "1"}\n', {}, "FILE line 1 gives an empty prompt"),
        (
            b'{"question": "a", "answer": "1"}\n',
            {"prompt_template": "{{ x }}"},
            "data.prompt_template: FILE line 1: 'x' is undefined; use the columns that the row has: question, answer",
        ),
        (
            b'{"question": "a", "answer": "1"}\n',
            {"prompt_template": "{{ x"},
            "data.prompt_template: line 1 is not jinja2",
        ),
        (
            b'{"question": "a long one", "answer": "1"}\n',
            {"overlong": "error"},
            "FILE line 1 has a prompt of 10 tokens, and rollout.global_length is 4; raise global_length, or set",
        ),
        (
            b'{"question": "a long one", "answer": "1"}\n',
            {},
            "all 1 prompts of FILE are longer than rollout.global_length = 4 tokens; raise global_length (the short",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_file_and_line(
    text: bytes, config: dict[str, str], message: str, tmp_path: Path, tokenizer
) -> None:
    """The message names the field of the configuration, the file and its line, what is wrong, and what to do."""
    path = tmp_path / "broken.jsonl"
    path.write_bytes(text)
    with pytest.raises(DataError) as refused:
        load(path, tokenizer, longest=4, **config)
    assert message.replace("FILE", str(path)) in str(refused.value)
    assert str(refused.value).startswith("data.")


def test_a_missing_file_is_told_at_once(tokenizer) -> None:
    """A path that does not exist is permanent, and the message says what may be given."""
    with pytest.raises(DataError, match=r"data.train: /no/such.jsonl cannot be read \(No such file") as refused:
        load("/no/such.jsonl", tokenizer)
    assert refused.value.permanent


def test_answers_are_needed_only_by_a_reward_that_reads_them(tmp_path: Path, tokenizer) -> None:
    """Rows without the answer field are fine where no reward compares with it."""
    path = tmp_path / "open.jsonl"
    path.write_text('{"question": "Tell me."}\n')
    assert len(load(path, tokenizer, answers=False)) == 1


def test_gsm8k_comes_from_the_hub_cache(tmp_path: Path) -> None:
    """`gsm8k` is openai/gsm8k as parquet: read from the cache offline, and a clear permanent error where it is not."""
    commit = "e53f048856ff4f594e959d75785d2c2d37b678ee"
    folder = tmp_path / "hub" / "datasets--openai--gsm8k"
    parquet_file = folder / "snapshots" / commit / "main" / "train-00000-of-00001.parquet"
    parquet_file.parent.mkdir(parents=True)
    table = pyarrow.table({"question": ["Two ducks?", "Three?"], "answer": ["#### 2", "#### 3"]})
    parquet.write_table(table, parquet_file)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    script = """
from trainer.data.rows import DataError, read_rows
print([row.columns["question"] for row in read_rows("data.train", "gsm8k", "train")])
for split in ("test", "dev"):
    try: read_rows("data.eval", "gsm8k", split)
    except DataError as error: print(error.permanent, error)
"""
    environ = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": ""}
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, check=True)
    lines = told.stdout.splitlines()
    assert lines[0] == "['Two ducks?', 'Three?']"
    assert lines[1].startswith("True data.eval: gsm8k is not in the hub's cache ")
    assert lines[2] == "True eval_split: 'dev' is no split of gsm8k; use train or test"


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 50),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=6),
)
def test_no_question_comes_twice_within_an_epoch(seed: int, size: int, cuts: list[int]) -> None:
    """However a run is cut into steps, each epoch holds every question once, in an order that the seed decides."""
    total = -(-sum(cuts) // size) * size
    whole = draw(seed, size, 0, total)
    for start in range(0, total, size):
        assert sorted(whole[start : start + size]) == list(range(size))
    cursor, pieces = 0, []
    for count in cuts:
        pieces += draw(seed, size, cursor, count)
        cursor += count
    assert pieces == whole[:cursor]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    """The order is that of this version for ever: a resumed run must find it again; epochs and seeds differ."""
    assert draw(0, 8, 0, 16) == [0, 3, 7, 5, 1, 2, 6, 4, 3, 7, 4, 2, 1, 6, 5, 0]
    assert draw(0, 100, 0, 100) != draw(0, 100, 100, 100)
    assert draw(0, 100, 0, 100) != draw(1, 100, 0, 100)


CONVERSATION = [
    {"role": "system", "content": "Add."},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "Well, "},
]


def conversations(path: Path, *prompts: object) -> Path:
    path.write_text("".join(json.dumps({"prompt": prompt, "answer": "2"}) + "\n" for prompt in prompts))
    return path


def test_a_conversation_is_written_by_the_chat_template(tmp_path: Path, tokenizer, monkeypatch) -> None:
    """Messages are taken as they are; the system prompt of the configuration joins those that have none."""
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
    path = conversations(tmp_path / "c.jsonl", CONVERSATION[:2], CONVERSATION[1:2])
    loaded = load(path, tokenizer, prompt_field="prompt", system_prompt="Count.")
    assert [tokenizer.decode(question.token_ids) for question in loaded.questions] == [
        "<bos>system: Add.\n<bos>user: 1 + 1?\nbot: ",
        "<bos>system: Count.\n<bos>user: 1 + 1?\nbot: ",
    ]
    assert loaded.questions[0].prompt == CONVERSATION[:2]
    assert loaded.questions[0].text == "1 + 1?"


def test_a_begun_answer_is_continued(tmp_path: Path, tokenizer, monkeypatch) -> None:
    """A conversation that ends with the model's turn is left open there, without a new turn."""
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
    path = conversations(tmp_path / "c.jsonl", CONVERSATION)
    ids = load(path, tokenizer, prompt_field="prompt").questions[0].token_ids
    assert tokenizer.decode(ids) == "<bos>system: Add.\n<bos>user: 1 + 1?\n<bos>assistant: Well, "


@pytest.mark.parametrize("prompt", [[], ["text"], [{"role": "user"}], [{"role": "user", "content": 3}]])
def test_a_list_that_is_no_conversation_is_named_by_its_line(prompt: list, tmp_path: Path, tokenizer) -> None:
    """The row is told, and what a message looks like."""
    path = conversations(tmp_path / "c.jsonl", "fine", prompt)
    with pytest.raises(DataError, match=r"c.jsonl line 2 has a list for a prompt, and not every item .*messages such"):
        load(path, tokenizer, prompt_field="prompt")


def test_conversations_need_a_chat_template(tmp_path: Path, tokenizer) -> None:
    """A tokenizer without a template cannot write them, and nothing is guessed."""
    path = conversations(tmp_path / "c.jsonl", CONVERSATION)
    with pytest.raises(DataError, match=r"^data.prompt_field: the rows hold conversations, and .* no chat template"):
        load(path, tokenizer, prompt_field="prompt")


def test_one_long_prompt_among_many_is_not_the_usual_size() -> None:
    """Of 1,000 prompts one is long: one step of four in 250 meets it. Where one in ten is long, most of eight do."""
    assert usual_longest([10] * 999 + [1000], 4) == 10
    assert usual_longest([10] * 90 + [1000] * 10, 8) == 1000
