"""What `tests.bench.controller` runs on the cluster's network: starts the operator, loads the API server, measures.

`python -m tests.bench.controller_load FOLDER SCENARIO`; it prints one line of JSON. A job's delay is from the answer to
its creation to the watch event of its JobSet, by this machine's monotonic clock.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from controller import names
from controller.runtime.client import Api, Resource

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "configs/jobs/qwen2.5-0.5b-gsm8k-v5e-2x2.yaml"
GRPOJOBS = Resource(names.API_GROUP, "v1alpha1", "grpojobs", names.KIND)
JOB_SETS = Resource("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NAMESPACE, CONNECTIONS, METRICS_PORT = "bench", 16, 18080
LONGEST_SECONDS = 240.0
WRITES = ("POST", "PUT", "PATCH", "DELETE")


def job(number: int) -> dict[str, Any]:
    """With a queue, so that its JobSet is created suspended and no pods run."""
    body: dict[str, Any] = yaml.safe_load(JOB.read_text())
    body["metadata"] = {"name": f"job-{number:05d}", "namespace": NAMESPACE}
    body["spec"]["queue"] = {"localQueue": "bench"}
    return body


class Used:
    """CPU seconds and resident MB of a process, read from /proc."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def pid_of(name: str, folder: Path) -> int:
    """The program that the world below `folder` started."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().strip() == name[:15] and (entry / "cwd").resolve() == folder.resolve():
                return int(entry.name)
        except OSError:  # it has ended meanwhile, or is none of ours
            continue
    raise LookupError(f"{name} does not run below {folder}")


class Operator:
    """The real process; `requests` are what it has asked of the API server so far, by method."""

    def __init__(self, kubeconfig: Path, log: Path, *flags: str) -> None:
        command = [sys.executable, "-m", "controller.operator", f"--kubeconfig={kubeconfig}", *flags]
        places = [f"--metrics=127.0.0.1:{METRICS_PORT}", "--webhook=none", "--progress=none"]
        with log.open("w") as stream:
            self.process = subprocess.Popen([*command, *places], stdout=stream, stderr=stream, cwd=ROOT)
        self.used = Used(self.process.pid)
        until(lambda: page("/readyz") is not None, "the operator")

    def requests(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for line in (page("/metrics") or "").splitlines():
            if line.startswith("rest_client_requests_total{"):
                method = line.partition('method="')[2].partition('"')[0]
                found[method] = found.get(method, 0) + round(float(line.rpartition(" ")[2]))
        return found

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def page(path: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}{path}", timeout=5) as answer:
            content: str = answer.read().decode()
            return content
    except OSError:
        return None


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LONGEST_SECONDS
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come about in {LONGEST_SECONDS:.0f} s")
        time.sleep(0.05)


@contextmanager
def seen_job_sets(api: Api) -> Iterator[dict[str, float]]:
    """When each JobSet was first seen, by name."""
    seen: dict[str, float] = {}
    version = api.list(JOB_SETS, NAMESPACE, limit=1)["metadata"]["resourceVersion"]
    watch = api.watch(JOB_SETS, NAMESPACE, version, seconds=3600)

    def follow() -> None:
        for kind, found in watch:
            if kind == "ADDED":
                seen[found["metadata"]["name"]] = time.monotonic()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    yield seen
    watch.close()
    thread.join(10)


def create_all(api: Api, resource: Resource, bodies: list[dict[str, Any]], rate: float | None) -> dict[str, float]:
    """When each creation was answered, by name; `rate` a second, or as fast as 16 connections can."""
    began = time.monotonic()

    def create(number: int) -> tuple[str, float]:
        if rate is not None:
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
        made = api.create(resource, bodies[number], NAMESPACE)
        return made["metadata"]["name"], time.monotonic()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return {"": began, **dict(pool.map(create, range(len(bodies))))}


def load(api: Api, folder: Path, jobs: int, rate: float | None) -> dict[str, Any]:
    """`jobs` jobs; afterwards the operator starts again over them, which must write nothing."""
    kubeconfig = folder / "kubeconfig.inside"
    operator = Operator(kubeconfig, folder / "operator.log", "--no-leader-election")
    server = Used(pid_of("kube-apiserver", folder))
    before = operator.requests(), operator.used.cpu(), server.cpu()
    with seen_job_sets(api) as seen:
        created = create_all(api, GRPOJOBS, [job(number) for number in range(jobs)], rate)
        began = created.pop("")
        until(lambda: len(seen) == jobs, f"{jobs} JobSets")
    took = max(seen.values()) - began
    until(lambda: settled(operator), "the end of its work")
    asked = sum(operator.requests().values()) - sum(before[0].values())
    delays = sorted(max(0.0, seen[name] - at) for name, at in created.items())
    cut = statistics.quantiles(delays, n=100)
    result = {
        "JobSets/s": round(jobs / took, 1),
        "created/s": round(jobs / (max(created.values()) - began), 1),
        "p50 ms": round(1000 * cut[49], 1),
        "p90 ms": round(1000 * cut[89], 1),
        "p99 ms": round(1000 * cut[98], 1),
        "requests/job": round(asked / jobs, 2),
        "operator CPU s": round(operator.used.cpu() - before[1], 1),
        "operator MB": round(operator.used.resident()),
        "API server CPU s": round(server.cpu() - before[2], 1),
        "API server MB": round(server.resident()),
    }
    operator.end()
    return {**result, "writes of a start over all": writes_of_a_start(kubeconfig, folder)}


def settled(operator: Operator) -> bool:
    """Nothing is asked of the server for two seconds."""
    asked = operator.requests()
    time.sleep(2)
    return operator.requests() == asked


def writes_of_a_start(kubeconfig: Path, folder: Path) -> int:
    operator = Operator(kubeconfig, folder / "operator-again.log", "--no-leader-election")
    until(lambda: settled(operator), "the end of its work")
    asked = operator.requests()
    operator.end()
    return sum(asked.get(method, 0) for method in WRITES)


def plain(api: Api, folder: Path, jobs: int) -> dict[str, Any]:
    """What the server can do without an operator: the same JobSets by POST."""
    del folder
    shown = subprocess.run(
        [sys.executable, "-m", "controller", "render", "-"],
        input=yaml.safe_dump(job(0)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (body,) = [one for one in yaml.safe_load_all(shown.stdout) if one["kind"] == "JobSet"]
    bodies = [{**body, "metadata": {**body["metadata"], "name": f"plain-{n:05d}"}} for n in range(jobs)]
    created = create_all(api, JOB_SETS, bodies, None)
    return {"JobSets/s": round(jobs / (max(created.values()) - created[""]), 1)}


def steady(api: Api, folder: Path, jobs: int, changes: int) -> dict[str, Any]:
    """With all of a replica's duties: memory over many events, then CPU of a minute in which nothing happens."""
    operator = Operator(folder / "kubeconfig.inside", folder / "operator.log")
    with seen_job_sets(api) as seen:
        create_all(api, GRPOJOBS, [job(number) for number in range(jobs)], None)
        until(lambda: len(seen) == jobs, f"{jobs} JobSets")

    def change(number: int) -> None:
        annotations = {"bench.example/number": str(number)}
        api.patch(GRPOJOBS, f"job-{number % jobs:05d}", NAMESPACE, {"metadata": {"annotations": annotations}})

    resident = []
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for first, last in ((0, changes // 5), (changes // 5, changes)):
            list(pool.map(change, range(first, last)))
            time.sleep(3)
            resident.append(operator.used.resident())
    time.sleep(10)
    before = operator.used.cpu()
    time.sleep(60)
    idle = (operator.used.cpu() - before) / 60
    result = {"MB after a fifth": round(resident[0], 1), "MB at the end": round(resident[1], 1)}
    operator.end()
    return {**result, "MB grown": round(resident[1] - resident[0], 1), "idle % of a core": round(100 * idle, 2)}


SCENARIOS: dict[str, Callable[..., dict[str, Any]]] = {"load": load, "plain": plain, "steady": steady}


def main(folder: Path, scenario: dict[str, Any]) -> None:
    api = Api.connect(str(folder / "kubeconfig.inside"), "bench")
    api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    run = SCENARIOS[scenario.pop("run")]
    print(json.dumps(run(api, folder, **scenario)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
