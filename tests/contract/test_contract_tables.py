"""The tables that others read: rules, run folder, and what the contract may import."""

import subprocess
import sys

from batch_oracle import Ask, judge

from trainer.contract.batchwords import FIXES
from trainer.contract.rules import RULES
from trainer.contract.runfolder import RunFolder

SPECIFIED = """
    type range mesh mesh-over-slices group some-size one-prompt-size batch-of-groups prompts-over-processes
    rows-over-devices whole-passes one-micro-size micro-over-batch micro-over-shards accumulation lengths model-over-tp
    yaml duplicate-key unknown-key required name one-device-kind tpu-shape slices-multi-host capacity-fields code-one-of
    reserved-env secret-by-reference shared-output preset-conflict reward-weights not-yet
"""


def test_every_rule_has_an_explanation_and_an_example() -> None:
    """The table holds exactly the rules of the specification, each under its id, with something to say."""
    assert set(RULES) == set(SPECIFIED.split())
    for name, rule in RULES.items():
        assert rule.id == name
        assert min(map(len, (rule.title, rule.explanation, rule.example))) > 10, name


def test_the_oracle_and_the_words_know_the_same_batch_rules() -> None:
    """Every batch rule that the oracle can find broken has words and a fixed fix."""
    seen = set()
    for ask in (
        Ask(1, 8, sizes=(3, 1, 1), K=1),
        Ask(2, 4, slices=2, sizes=(1, 8, 1), B=9),
        Ask(3, 4, B=128),
        Ask(1, 8, B=12, K=3),
        Ask(1, 8, B=128, Q=6),
        Ask(1, 8, B=128, Q=6, D=1),
        Ask(1, 8, B=128, M=12, A=7),
        Ask(1, 8, B=128, M=16, A=7),
        Ask(1, 8, B=128, M=16, m=1),
    ):
        seen |= judge(ask).broken
    assert seen == set(FIXES)


def test_a_run_folder_is_named_by_job_and_run() -> None:
    """`<output.uri>/<name>-<first 8 of the id>/`, with a bucket or a folder above, and fixed names below."""
    folder = RunFolder.of("gs://bucket/out/", "job", "0123456789abcdef")
    assert folder.root == "gs://bucket/out/job-01234567"
    assert folder.run_json == "gs://bucket/out/job-01234567/run.json"
    assert folder.log(attempt=2, process=7) == "gs://bucket/out/job-01234567/logs/attempt-2/process-7.log"
    below = [folder.metrics, folder.completions, folder.evaluations, folder.checkpoints, folder.export, folder.stacks]
    assert [path.rpartition("/")[2] for path in below] == [
        "metrics.jsonl",
        "completions",
        "eval",
        "checkpoints",
        "export",
        "stacks",
    ]


def test_the_contract_loads_nothing_heavy() -> None:
    """Importing all of the contract loads pydantic and yaml, and none of the libraries of either half."""
    code = (
        "import sys, trainer.contract.process, trainer.contract.rules, trainer.printing\n"
        "heavy = {'jax', 'numpy', 'flax', 'optax', 'transformers', 'kubernetes', 'click', 'rich', 'controller'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
