"""Programs are compiled once: a run's first steps make them, and they outlive their process."""

import json
import os
import subprocess
import sys
from pathlib import Path

from launching import Launched, resolved


def kept_by(folder: Path, elsewhere: str = "") -> tuple[int, str]:
    """Run `keeping.py`: programs found, and what they computed."""
    paths = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[2])))
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths, "JAX_COMPILATION_CACHE_DIR": elsewhere}
    command = [sys.executable, str(Path(__file__).with_name("keeping.py")), str(folder)]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600, check=True)
    found, value = ended.stdout.split()
    return int(found), value


def test_a_program_is_found_by_the_next_process_and_a_damaged_one_made_again(tmp_path: Path) -> None:
    """Though some ran before; for one kind of CPU apart; cut short, as by a full disk, it is compiled as at first."""
    folder = tmp_path / "run" / "compile-cache"
    found, value = kept_by(folder)
    assert found == 0
    assert all(path.parent.parent == folder and path.parent.name.startswith("cpu-") for path in folder.glob("*/*"))
    again, same = kept_by(folder)
    assert again > 0
    assert same == value
    for path in folder.glob("*/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert kept_by(folder) == (0, value)


def test_the_environment_names_another_folder(tmp_path: Path) -> None:
    """With JAX_COMPILATION_CACHE_DIR set, programs go there and none into the run."""
    kept_by(tmp_path / "run", str(tmp_path / "shared"))
    assert list((tmp_path / "shared").iterdir())
    assert not (tmp_path / "run").exists()


def test_nothing_is_compiled_after_the_first_steps(byte_model: Path, tmp_path: Path) -> None:
    """In 20 steps on prompts of 30 to 120 letters, some with none of more than 90, only the first one compiles."""
    rows = [{"question": "ab " * (10 + 13 * n % 31), "answer": "#### 1"} for n in range(64)]
    data = tmp_path / "ragged.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {"batch_size": 16, "num_pre_q": 4, "global_length": 128, "max_length_sample": 24}
    launched = Launched(resolved(byte_model, data, tmp_path / "out", 1, 1, steps=20, rollout=sizes), tmp_path)
    launched.finish()
    first, *rest = launched.metrics
    longest = [row["length/prompt/max"] for row in launched.metrics]
    assert min(longest) <= 96 < max(longest)
    assert len({row["length/completion/mean"] for row in rest}) > 5
    assert first["time/compile_s"] > 0
    assert [row["time/compile_s"] for row in rest] == [0] * 19
