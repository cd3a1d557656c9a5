"""Prometheus text: what a scrape of a run gets, by names that Prometheus' conventions ask for."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from launching import free_port, resolved
from tracked import samples

from trainer.contract.process import ProcessConfig
from trainer.metricnames import METRICS
from trainer.tracking import Tracking
from trainer.tracking.prometheus import ENV_PORT, exposed_name


def process(tmp_path: Path, index: int = 0) -> ProcessConfig:
    return ProcessConfig(resolved(Path("m"), Path("d"), tmp_path, 2, 1), "0123abcd", index, None, 0)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[int, Tracking]]:
    port = free_port()
    tracking = Tracking.of(process(tmp_path), {ENV_PORT: str(port)})
    yield port, tracking
    tracking.close()


def test_a_scrape_gets_the_latest_of_each_metric(served: tuple[int, Tracking]) -> None:
    """The step's row, the evaluation of an earlier one, in base units; what a `*` stood for is a label."""
    port, tracking = served
    assert samples(port) == {("grpo_run_info", "m", "tiny", "0123abcd"): 1.0, ("grpo_steps",): 3.0}
    tracking.begin([{"step": 1, "eval/reward/correct/mean": 0.25, "eval/pass@8": 0.5}])
    tracking.write({"step": 2, "reward/total/mean": 0.5, "reward/correct/mean": 0.75, "reward/tags/mean": float("nan")})
    tracking.write({"step": 3, "time/rollout_s": 1.5, "memory/device_peak_gib": 2.0, "finish/stop": 0.125})
    found = samples(port)
    assert found.pop(("grpo_last_step_timestamp_seconds",)) > 1.7e9
    assert found == {
        ("grpo_run_info", "m", "tiny", "0123abcd"): 1.0,
        ("grpo_steps",): 3.0,
        ("grpo_step",): 3.0,
        ("grpo_eval_reward_mean", "correct"): 0.25,
        ("grpo_eval_pass_at_k_ratio", "8"): 0.5,
        ("grpo_reward_total_mean",): 0.5,
        ("grpo_reward_mean", "correct"): 0.75,
        ("grpo_time_rollout_seconds",): 1.5,
        ("grpo_memory_device_peak_bytes",): 2.0 * 2**30,
        ("grpo_finish_stop_ratio",): 0.125,
    }


def test_every_metric_has_a_name_of_its_own() -> None:
    """No two metrics share a Prometheus name, and none carries an abbreviated unit."""
    exposed = [exposed_name(metric) for metric in METRICS]
    assert len(set(exposed)) == len(exposed)
    assert [name for name in exposed if name.endswith(("_s", "_gib", "_share")) or not name.isidentifier()] == []


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        (
            {ENV_PORT: "http"},
            "Prometheus: TRAINER_METRICS_PORT: 'http' must be a port from 1 to 65535; the run goes on",
        ),
        ({ENV_PORT: "{taken}"}, "Address already in use; the run goes on without it"),
        ({}, ""),
    ],
)
def test_a_port_that_cannot_be_had_is_told_once(
    served: tuple[int, Tracking],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    environ: Mapping[str, str],
    told: str,
) -> None:
    """A port that is none, or that is taken, costs the endpoint and not the run; without one nobody listens."""
    Tracking.of(process(tmp_path), {name: value.format(taken=served[0]) for name, value in environ.items()}).close()
    assert told in caplog.text
    assert caplog.text.count("the run goes on") == bool(told)


def test_only_the_first_process_listens(tmp_path: Path) -> None:
    """The second one leaves its port free."""
    port = free_port()
    tracking = Tracking.of(process(tmp_path, index=1), {ENV_PORT: str(port)})
    with pytest.raises(OSError, match="refused"):
        samples(port)
    tracking.close()
