"""Two processes and one hub: a name is one commit for both and for every attempt, and each file is fetched once."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hubs import Hub
from launching import free_port, sums

FILES = ("config.json", "model.safetensors", "tokenizer.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def served(folder: Path) -> tuple[Hub, list[str], list[dict]]:
    """The hub, the two commits of its model (the branch is at the second), and what two processes got."""
    hub = Hub()
    commits = []
    for version in "ab":
        files = {name: folder / f"{version}-{name}" for name in (*FILES, "README.md")}
        for path in files.values():
            path.write_text(f"{path.name} of {version}")
        commits.append(hub.push("models", "own/model", files))
    hub.push("datasets", "own/sums", {"data/train.jsonl": sums(folder / "sums.jsonl")})
    record = {"model_path": {"source": "own/model", "split": None, "commit": commits[0], "files": list(FILES)}}
    command = [sys.executable, str(Path(__file__).with_name("fetching.py"))]
    port, path = str(free_port()), os.pathsep.join(map(str, (Path(__file__).parents[2], Path(__file__).parent)))
    started = [
        subprocess.Popen(
            [*command, str(index), port, str(folder), json.dumps(record)],
            env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    hub.close()
    return hub, commits, [json.loads(output.splitlines()[-1]) for output in outputs]


def test_each_file_is_fetched_once_for_all(served: tuple[Hub, list[str], list[dict]], folder: Path) -> None:
    """Process 0 fetches what is wanted, and the other one, with a cache of its own, finds it in the run folder."""
    hub, (_, new), told = served
    assert [one["apart"][0] for one in told] == [new, new]
    assert told[0]["apart"][1].startswith(f"{folder}/first-0/")
    assert told[1]["apart"][1] == f"{folder}/tiny-0123abcd/inputs/models/own/model/{new}"
    read = [[(Path(one["apart"][1]) / name).read_text() for name in FILES] for one in told]
    assert read == [[f"b-{name} of b" for name in FILES]] * 2
    assert [line for line in hub.fetched if new in line] == [f"models/own/model {new} {name}" for name in FILES]


def test_another_attempt_asks_the_hub_nothing(served: tuple[Hub, list[str], list[dict]]) -> None:
    """With empty caches both processes find the commit of the first attempt in the run folder, which recorded it."""
    hub, (_, new), told = served
    assert [one["again"] for one in told] == [[new, told[1]["apart"][1], told[0]["apart"][2]]] * 2
    assert told[0]["again"][2]["model_path"] == {"source": "own/model", "split": None, "commit": new} | {
        "files": list(FILES)
    }
    assert hub.asked.count("GET /api/models/own/model") == 1


def test_a_recorded_commit_stays_where_its_branch_moved_on(served: tuple[Hub, list[str], list[dict]]) -> None:
    """Where the processes share no folder, each fetches that commit for itself."""
    hub, (old, _), told = served
    assert [one["unshared"][0] for one in told] == [old, old]
    assert [(Path(one["unshared"][1]) / "config.json").read_text() for one in told] == ["a-config.json of a"] * 2
    assert Counter(line for line in hub.fetched if old in line) == {f"models/own/model {old} {n}": 2 for n in FILES}


def test_a_common_cache_is_enough(served: tuple[Hub, list[str], list[dict]], folder: Path) -> None:
    """Processes of one machine read what one of them fetched, and nothing is copied into the run folder."""
    hub, _, told = served
    assert told[0]["together"] == told[1]["together"]
    assert told[0]["together"][1].startswith(f"{folder}/fourth/")
    assert len([line for line in hub.fetched if line.startswith("datasets/")]) == 1
    assert [path.name for path in (folder / "tiny-0123abcd/inputs").iterdir()] == ["models"]


def test_a_commit_that_is_gone_is_told_by_all(served: tuple[Hub, list[str], list[dict]]) -> None:
    """Exit code 5 with the key, the commit and the two ways on."""
    _, _, told = served
    text = (
        f"model_path: own/model is no longer on the hub as it was (commit {'f' * 40}); bring that back, or use "
        "--new-run to start afresh with what is there"
    )
    assert [one["gone"] for one in told] == [[5, text], [5, f"process 0: {text}"]]
