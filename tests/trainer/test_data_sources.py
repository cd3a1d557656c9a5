"""Where rows come from: parquet and JSONL files, patterns, and data sets of a hub, fetched once and then offline."""

import json
from pathlib import Path

import pyarrow
import pytest
from hubs import Hub
from huggingface_hub import constants
from pyarrow import parquet

from trainer.contract.runner import DataConfig
from trainer.data import DataError
from trainer.data.hub import HubName, choose, parse, pin
from trainer.data.questions import load_questions
from trainer.data.rows import read_rows


def table(path: Path, *questions: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    messages = [[{"role": "user", "content": question, "name": None}] for question in questions]
    columns = {"question": questions, "messages": messages, "answer": [str(len(q)) for q in questions]}
    parquet.write_table(pyarrow.table(columns), path)
    return path


def questions(field: str, source: object, split: str = "train") -> list[str]:
    return [row.columns["question"] for row in read_rows(field, str(source), split)]


def test_a_parquet_file_is_read_row_by_row(tmp_path: Path) -> None:
    """Columns keep their types, nested ones too, and a row's place is its number in the file."""
    path = table(tmp_path / "q.parquet", "one", "three")
    rows = read_rows("data.train", str(path), "train")
    assert [row.columns["answer"] for row in rows] == ["3", "5"]
    assert rows[1].columns["messages"] == [{"role": "user", "content": "three", "name": None}]
    assert rows[1].place == f"{path} row 2"


def test_conversations_of_parquet_are_messages(tmp_path: Path) -> None:
    """The columns are mapped by name, and a message is its role and content whatever else the table holds."""

    class Tokenizer:
        chat_template = "given"

        def get_chat_template(self):
            return self.chat_template

        def apply_chat_template(self, messages, **_):
            return json.dumps(messages)

        def __call__(self, texts, add_special_tokens):
            return {"input_ids": [list(text.encode()) for text in texts]}

    config = DataConfig(train=str(table(tmp_path / "q.parquet", "one")), prompt_field="messages", answer_field="answer")
    loaded = load_questions("train", "train", config, Tokenizer(), 100, answers=True)
    assert loaded.questions[0].prompt == [{"role": "user", "content": "one"}]
    assert json.loads(bytes(loaded.questions[0].token_ids)) == loaded.questions[0].prompt


def test_a_pattern_reads_its_files_in_order(tmp_path: Path) -> None:
    """`*` in the name stands for all files called so, by name, parquet or JSONL."""
    table(tmp_path / "part-2.parquet", "two")
    (tmp_path / "part-1.jsonl").write_text('{"question": "one"}\n')
    assert questions("data.train", tmp_path / "part-*") == ["one", "two"]
    with pytest.raises(DataError, match=r"^data.train: no file is called like .*none-\*; give JSONL or parquet files"):
        questions("data.train", tmp_path / "none-*")


def test_a_file_that_is_no_parquet_is_told(tmp_path: Path) -> None:
    """The library's reason stands in the message."""
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match=rf"^data.train: {path} is not parquet \(.*; write the file again"):
        read_rows("data.train", str(path), "train")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("owner/set", HubName("owner/set", None, None)),
        ("owner/set:main", HubName("owner/set", "main", None)),
        ("owner/set:main@v1.0", HubName("owner/set", "main", "v1.0")),
        ("owner/set@refs/pr/1", HubName("owner/set", None, "refs/pr/1")),
        ("/owner/set", None),
        ("a/b/c", None),
        ("../set", None),
        ("set", None),
    ],
)
def test_a_name_of_the_hub_is_owner_and_name(source: str, name: HubName | None) -> None:
    """With a config and a revision where they are wanted; a path is no such name."""
    assert parse(source) == name


LAYOUTS = [
    (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"], 2),
    (["train.jsonl", "test.jsonl", "README.md"], 1),
    (["train.parquet", "train.jsonl"], 1),
    (["default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"], 2),
    (["data/train_sft-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"], 1),
    (["my_train_0.jsonl", "constrained.jsonl"], 1),
]


@pytest.mark.parametrize(("files", "count"), LAYOUTS)
def test_a_split_is_a_word_of_the_names(files: list[str], count: int) -> None:
    """The usual layouts of the hub; parquet is taken where both kinds are there; other splits are left alone."""
    chosen = choose("data.train", "o/s", files, None, "train")
    assert len(chosen) == count
    assert all("train" in file and "sft" not in file and "constrained" not in file for file in chosen)


def test_what_is_not_clear_is_refused() -> None:
    """No such split, several tables without a config, and shards that are missing from a cache."""
    with pytest.raises(
        DataError, match=r"^eval_split: o/s on the hub has no files of split 'test' \(it holds train.js"
    ):
        choose("data.eval", "o/s", ["train.jsonl"], None, "test")
    two = ["main/train-00000-of-00001.parquet", "socratic/train-00000-of-00001.parquet"]
    with pytest.raises(
        DataError, match=r"several tables with a split 'train' \(main, socratic\); name one, .* o/s:main"
    ):
        choose("data.train", "o/s", two, None, "train")
    assert choose("data.train", "o/s", two, "socratic", "train") == two[1:]
    with pytest.raises(DataError, match="only 1 of the 3 files of o/s are in the hub's cache"):
        choose("data.train", "o/s", ["data/train-00001-of-00003.parquet"], None, "train")


def test_a_data_set_is_fetched_once_and_then_read_offline(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Online the split's shards are fetched, and no other file; offline the same rows come from the cache."""
    names = [f"data/train-0000{number}-of-00002.parquet" for number in (0, 1)]
    files = {name: table(tmp_path / name, text) for name, text in zip(names, ("one", "two"), strict=True)}
    held_out = {"data/test-00000-of-00001.parquet": table(tmp_path / "held-out.parquet", "held out")}
    commit = hub.push("datasets", "own/set", files | held_out)

    assert questions("data.train", "own/set") == ["one", "two"]
    assert hub.fetched == [f"datasets/own/set {commit} {name}" for name in names]
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert questions("data.train", "own/set") == ["one", "two"]
    with pytest.raises(DataError, match=r"^data.train: own/set is not in the hub's cache .*HF_HUB_OFFLINE") as lacking:
        questions("data.train", "own/set", "test")
    assert lacking.value.permanent
    assert hub.asked == []


def test_the_hubs_own_parquet_copy_is_used(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository in another form is read from the branch to which the hub converts it, offline too."""
    (tmp_path / "train.csv").write_text("question\n")
    hub.push("datasets", "own/set", {"train.csv": tmp_path / "train.csv"})
    copy = {"default/train/0000.parquet": table(tmp_path / "0.parquet", "converted")}
    commit = hub.push("datasets", "own/set", copy, branch="refs/convert/parquet")
    assert pin("data.train", "own/set", "train").commit == commit
    assert questions("data.train", "own/set") == ["converted"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert questions("data.train", "own/set") == ["converted"]


def test_a_name_that_the_hub_does_not_know_is_permanent(hub: Hub) -> None:
    """A misspelt name will not be there later; the message says what to check."""
    with pytest.raises(DataError, match=r"^data.train: own/sett is neither here nor a data set on the hub \(") as told:
        questions("data.train", "own/sett")
    assert str(told.value).endswith("check the spelling, or set HF_TOKEN where it is private")
    assert told.value.permanent
