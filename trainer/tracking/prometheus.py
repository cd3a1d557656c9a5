"""The last row of metrics as Prometheus text, for whoever scrapes this process.

Names follow Prometheus' conventions (https://prometheus.io/docs/practices/naming/): a prefix, base units at the end,
the varying part of a name as a label.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from trainer.contract.process import ProcessConfig
from trainer.metricnames import Metric, metric_of

ENV_PORT = "TRAINER_METRICS_PORT"
"""Where to listen; without it, nowhere. Its name is no `GRPO_…`, because the user sets it in the job's `env`."""
_BYTES_PER_GIB = 1 << 30


class Prometheus(Collector):
    """Serves from its making on. Raises ValueError for a port that is none, OSError for one that is taken."""

    def __init__(self, process: ProcessConfig, port: str) -> None:
        if not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise ValueError(f"{ENV_PORT}: {port!r} must be a port from 1 to 65535")
        self._about = {"run_id": process.run_id, "name": process.run.name, "model": process.run.model_path}
        self._latest: dict[str, float] = {"steps": process.run.steps}
        self._told_at: float | None = None
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        self._server, self._thread = start_http_server(int(port), registry=registry)

    def begin(self, rows: Sequence[Mapping[str, float]]) -> None:
        for row in rows:
            self._latest |= row

    def write(self, row: Mapping[str, float]) -> None:
        self._latest |= row
        self._told_at = time.time()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def collect(self) -> Iterator[GaugeMetricFamily | InfoMetricFamily]:
        """What a scrape gets: of each metric the value last told, which for an evaluation may be some steps old."""
        latest = dict(self._latest)
        yield InfoMetricFamily("grpo_run", "which run this is", self._about)
        yield GaugeMetricFamily("grpo_steps", "steps of the whole run", latest.pop("steps"))
        if self._told_at is not None:
            text = "when the last step was told, since the epoch"
            yield GaugeMetricFamily("grpo_last_step_timestamp_seconds", text, self._told_at)
        for metric, values in _by_metric(latest).items():
            yield _family(metric, values)


def _by_metric(row: Mapping[str, float]) -> dict[Metric, dict[str, float]]:
    """The numbers of a row by their metric, each under what stands for its `*`."""
    found: dict[Metric, dict[str, float]] = {}
    for name, value in row.items():
        metric = metric_of(name)
        if metric is not None:
            found.setdefault(metric, {})[metric.star_in(name) or ""] = value
    return found


def _family(metric: Metric, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(exposed_name(metric), metric.meaning, labels=["name"] if "*" in metric.name else [])
    for star, value in values.items():
        family.add_metric([star] if star else [], value * (_BYTES_PER_GIB if metric.unit == "GiB" else 1))
    return family


def exposed_name(metric: Metric) -> str:
    """`time/rollout_s` → `grpo_time_rollout_seconds`, `reward/*/mean` → `grpo_reward_mean` with the label `name`."""
    name = metric.name.replace("/*", "").replace("@*", "_at_k")
    if metric.unit == "seconds":
        name = name.removesuffix("_s") + "_seconds"
    elif metric.unit == "GiB":
        name = name.removesuffix("_gib") + "_bytes"
    elif metric.unit == "share":
        name = name.removesuffix("_share") + "_ratio"
    return "grpo_" + re.sub(r"\W", "_", name.replace("_per_s", "_per_second"))
