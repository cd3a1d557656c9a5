"""`kubectl grpo logs` over attempts, and a cluster that goes away."""

import re

from tests.controlplane.operating import Operating, said
from tests.controlplane.plugging import Plugin
from tests.controlplane.world import World


def test_logs_are_followed_over_a_restart(operating: Operating, grpo: Plugin) -> None:
    """Every line of both attempts once, in order; what belongs to no process goes to the error stream."""
    operating.start()
    operating.apply("again", [["say:60 1", "wait:9 9"], ["say:60 0", "wait:1 0"]], hosts=2)
    with grpo.begun("logs", "-f", "again") as process:
        printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert printed.splitlines() == said(0, 0, 60) + said(1, 0, 60)
    assert re.findall(r"^--- attempt (\d), again-slice-0-0-\w+ ---$", errors, re.M) == ["0", "1"]
    assert errors.endswith("again: Completed: every process ended with exit code 0\n")


def test_logs_outlive_the_api_server(world: World, operating: Operating, grpo: Plugin) -> None:
    """It is killed and started again in the middle: no line is lost, and none told twice."""
    operating.start()
    operating.apply("long", [["say:400 0"]])
    operating.wait_phase("long", "Running")
    with grpo.begun("logs", "-f", "long") as process:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(20)]
        world.stop("kube-apiserver")
        world.start("kube-apiserver")
        rest = process.stdout.readlines()
    assert process.returncode == 0
    assert [line.rstrip("\n") for line in first + rest] == said(0, 0, 400)


def test_one_process_of_one_attempt_is_chosen(operating: Operating, grpo: Plugin) -> None:
    """`--slice`, `--host`, `--attempt` and `--tail`; what the job does not have is told with its bounds."""
    operating.start()
    operating.apply("pair", [["say:3 1", "wait:9 9"], ["say:5 run", "say:7 run"]], hosts=2)
    operating.wait(lambda: operating.attempts("pair") and operating.condition("pair", "Running")[0] == "True", "both")
    operating.wait(lambda: len(grpo("logs", "pair", "--host", "1").stdout.splitlines()) == 7, "all that is said")
    assert grpo("logs", "pair").stdout.splitlines() == said(1, 0, 5)
    assert (
        grpo("logs", "pair", "--host", "1", "--attempt", "1", "--tail", "2").stdout.splitlines() == said(1, 1, 7)[-2:]
    )
    assert "a slice of pair has 2 hosts; use 0 to 1" in grpo("logs", "pair", "--host", "2", code=2).stderr
    assert "pair has 1 slice; use 0 to 0" in grpo("logs", "pair", "--slice", "1", code=2).stderr
    gone = grpo("logs", "pair", "--attempt", "0", code=1).stderr
    assert "no pod of attempt 0 is there" in gone
    assert "spec.output.uri is null" in gone


def test_a_job_that_says_nothing_yet_is_waited_for(operating: Operating, grpo: Plugin) -> None:
    """Without -f its phase is told; with -f the log begins when the pods do."""
    operating.start()
    operating.apply("later", [["say:5 0"]], suspend=True)
    operating.wait_phase("later", "Suspended")
    assert "it is Suspended, and -f waits for one" in grpo("logs", "later", code=1).stderr
    with grpo.begun("logs", "-f", "later") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "--- later is Suspended ---\n"
        operating.change("later", suspend=False)
        assert process.communicate(timeout=120)[0].splitlines() == said(0, 0, 5)


def test_a_job_that_is_cancelled_ends_its_log(operating: Operating, grpo: Plugin) -> None:
    """What was said until then is whole; the exit code tells that it did not end by itself."""
    operating.start()
    operating.apply("brief", [["say:5 run"]])
    operating.wait_phase("brief", "Running")
    with grpo.begun("logs", "-f", "brief") as process:
        assert process.stdout is not None
        first = [process.stdout.readline().strip() for _ in range(5)]
        grpo("cancel", "brief")
        printed, errors = process.communicate(timeout=60)
    assert (first, printed, process.returncode) == (said(0, 0, 5), "", 1)
    assert errors.endswith("error: brief was deleted before it ended\n")
