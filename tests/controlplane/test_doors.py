"""Four doors, one verdict: `grpoctl validate`, the API server's schema and CEL, the webhook, the controller alone."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.commands.documents import judge_files
from controller.webhook.review import judged
from tests.controlplane.admission import Answer, Client, Json, Webhook, install_crd
from tests.controlplane.world import World
from tests.controlplane.written_jobs import TESTS, written
from trainer.contract.documents import dump_document, load_documents
from trainer.contract.rules import RULES

SCALE = int(os.environ.get("GRPO_TEST_SCALE") or 1)
WRITTEN = min(60 * SCALE, 2400)
OF_THE_FILE_ALONE = {"yaml", "duplicate-key"}
"""Rules of text; what reaches a server is an object."""
GOLDEN = [
    *sorted((TESTS / "controller/refused").glob("*.yaml")),
    *sorted((TESTS / "controller/accepted").glob("*.yaml")),
]


@dataclass(frozen=True)
class Verdict:
    """The words of one door."""

    violations: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Doors:
    """Two namespaces of one API server: in `judged` it asks the webhook, in `unjudged` nobody."""

    client: Client
    judged: str
    unjudged: str

    def ask(self, namespace: str, job: Json) -> Answer:
        return self.client.create(namespace, job, "?dryRun=All&fieldValidation=Strict")


@pytest.fixture(scope="module")
def doors(world: World) -> Iterator[Doors]:
    """The webhook as a process beside the API server, and two namespaces."""
    install_crd(world)
    for name in ("doors-judged", "doors-unjudged"):
        world.kubectl("create", "namespace", name)
    webhook, client = Webhook(world, "doors-judged", "doors"), Client(world)
    webhook.register(9543)
    webhook.start(9543)
    webhook.judges("doors-judged")
    yield Doors(client, "doors-judged", "doors-unjudged")
    webhook.end()
    client.close()


def by_grpoctl(job: Json, path: Path) -> tuple[Verdict, set[str]]:
    """What `grpoctl validate` says of a file with this job, and the rules that it names."""
    path.write_text(dump_document(job), encoding="utf-8")
    (found,) = judge_files([str(path)], ())
    verdict = Verdict(tuple(map(str, found.violations)), tuple(map(str, found.warnings)))
    return verdict, {violation.rule for violation in found.violations}


def by_controller(stored: Json) -> Verdict:
    """What the controller says of the object as the API server holds it."""
    outcome = judged(stored)
    return Verdict(tuple(map(str, outcome.violations)), tuple(map(str, outcome.warnings)))


def doors_agree(doors: Doors, job: Json, path: Path) -> tuple[str, set[str]]:
    """Send one job through all doors. Raises AssertionError; else how it fared, and the rules that it broke."""
    said, rules = by_grpoctl(job, path)
    with_webhook, alone = doors.ask(doors.judged, job), doors.ask(doors.unjudged, job)
    if alone.status != 201:
        assert said.violations, f"grpoctl accepts what the API server refuses: {alone.message}"
        assert not with_webhook.by_webhook
        assert with_webhook.status == alone.status
        return "refused by the API server", rules
    assert by_controller(alone.body) == said
    assert with_webhook.warnings == said.warnings
    if not said.violations:
        assert with_webhook.status == 201, with_webhook.message
        return "accepted", rules
    assert with_webhook.by_webhook
    assert with_webhook.causes == said.violations
    assert with_webhook.message.endswith("\n".join(said.violations))
    return "refused by the rules", rules


def golden_jobs() -> Iterator[Json]:
    """The jobs of tests/controller as objects, without what only a server may set."""
    for path in GOLDEN:
        for document in load_documents(path.read_text(encoding="utf-8"), path.name):
            ours = isinstance(document.data, dict) and document.data.get("kind", "GRPOJob") == "GRPOJob"
            if ours and path.stem != "from-the-api-server":
                yield document.data


def all_agree(doors: Doors, jobs: list[Json], folder: Path) -> tuple[Counter[str], set[str]]:
    def agree(numbered: tuple[int, Json]) -> tuple[str, set[str]]:
        number, job = numbered
        try:
            return doors_agree(doors, job, folder / f"{number}.yaml")
        except AssertionError as fault:
            raise AssertionError(f"{dump_document(job)}\n{fault}") from fault

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(agree, enumerate(jobs)))
    return Counter(how for how, _ in found), {rule for _, rules in found for rule in rules}


def test_all_doors_give_one_verdict_on_each_rule(doors: Doors, tmp_path: Path) -> None:
    """The golden jobs, one or more for each rule: the same words at every door that they reach."""
    fared, rules = all_agree(doors, list(golden_jobs()), tmp_path)

    assert fared["accepted"] >= 5
    assert rules >= set(RULES) - OF_THE_FILE_ALONE


def test_all_doors_give_one_verdict_on_written_jobs(
    doors: Doors, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Jobs that fit, that miss by a number, that break several rules, and wild ones."""
    jobs = written(WRITTEN)
    fared, rules = all_agree(doors, jobs, tmp_path)

    record_property("jobs at four doors", {**fared, "all": len(jobs), "rules broken": len(rules)})
    assert len(jobs) == WRITTEN
    assert min(fared[how] for how in ("accepted", "refused by the API server", "refused by the rules")) >= WRITTEN // 12
