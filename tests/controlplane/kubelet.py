"""A kubelet whose containers are processes of this machine: it runs the pods of its node and tells how they fare.

`python -m tests.controlplane.kubelet KUBECONFIG FOLDER`, inside a `World`. Each pod has a network, process and mount
namespace of its own (`sandbox`), an address, and what `given` gives it. Names of headless services stand in one hosts
file that all pods share. An image is this machine's files, but for those of `missing.test`, which cannot be pulled.
"""

import contextlib
import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch
from urllib3.exceptions import HTTPError

from tests.controlplane.containerlogs import PORT, ContainerLog, serve
from tests.controlplane.given import NODE, Given, expanded, why_missing
from tests.controlplane.hostnames import HostNames
from tests.controlplane.readiness import Readiness
from tests.controlplane.sandbox import Sandbox
from tests.controlplane.services import host_lines
from tests.controlplane.world import NODE_ADDRESS, ROOT
from tests.golang import cache_folder

LOG_BYTES = 4096
LOG_SECONDS = 2.0
"""So long is the rest of a log waited for: what is printed by then is whole when the end is told."""
CALL_SECONDS, WATCH_SECONDS = 5, 20
"""An API server that is killed and started again may leave a request without an answer."""
LONGEST_PAUSE = 10.0
"""Between two runs of a container, in seconds."""
NOT_PULLED = "missing.test/"
COMPILED = cache_folder() / "compiled-in-pods"
IMAGE = {
    "PYTHONPATH": str(ROOT),
    # The programs are small: compiling them is most of their time, and they run as fast unoptimised.
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
    "JAX_COMPILATION_CACHE_DIR": str(COMPILED),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
"""What an image's own environment would say: where the trainer is, and programs that were compiled before."""

Body = dict[str, Any]


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def insist(call: Callable[[], object]) -> None:
    """Until the API server answers; what it refuses, as for an object that is gone, is not asked again."""
    while True:
        try:
            call()
            return
        except client.ApiException as error:
            if error.status < 500:
                return
        except (HTTPError, OSError):
            pass
        time.sleep(0.2)


class Kubelet:
    """All pods of one node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.core = client.CoreV1Api()
        self.hosts = HostNames(lambda: host_lines(self.core))
        self.resolver = folder / "resolv.conf"
        self.resolver.touch()  # nobody serves names here, and who asks in vain waits ten seconds
        self._running: dict[str, RunningPod] = {}
        self._logs: dict[tuple[str, str], ContainerLog] = {}
        self._numbers = itertools.count()

    def register(self) -> None:
        capacity = {"cpu": "512", "memory": "4096Gi", "pods": "1000", "ephemeral-storage": "4096Gi"}
        node = {"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}, "spec": {}}
        insist(lambda: self.core.create_node(node))
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": now()}
        status = {"capacity": capacity, "allocatable": capacity, "conditions": [ready]}
        status |= {"addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}]}
        status |= {"daemonEndpoints": {"kubeletEndpoint": {"Port": PORT}}}
        insist(lambda: self.core.patch_node_status(NODE, {"status": status}))
        # Put there at admission, and taken away by a controller that does not run here.
        insist(lambda: self.core.patch_node(NODE, {"spec": {"taints": None}}))

    def serve(self) -> None:
        """Follow the pods of this node for ever; a watch that ends is begun again."""
        while True:
            with contextlib.suppress(client.ApiException, HTTPError, OSError):
                self._follow()
            time.sleep(0.2)

    def _follow(self) -> None:
        mine = f"spec.nodeName={NODE}"
        listed = self.core.list_pod_for_all_namespaces(field_selector=mine, _request_timeout=CALL_SECONDS)
        pods = client.ApiClient().sanitize_for_serialization(listed.items)
        for pod in pods:
            self.see(pod)
        for uid in self._running.keys() - {pod["metadata"]["uid"] for pod in pods}:
            self.lose(uid)
        for event in watch.Watch().stream(
            self.core.list_pod_for_all_namespaces,
            field_selector=mine,
            resource_version=listed.metadata.resource_version,
            timeout_seconds=WATCH_SECONDS,
            _request_timeout=WATCH_SECONDS + CALL_SECONDS,
        ):
            if event["type"] in ("ADDED", "MODIFIED"):
                self.see(event["raw_object"])
            elif event["type"] == "DELETED":
                self.lose(event["raw_object"]["metadata"]["uid"])
            else:
                return

    def see(self, pod: Body) -> None:
        meta = pod["metadata"]
        running = self._running.get(meta["uid"])
        if running is None:
            if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed") and not meta.get("deletionTimestamp"):
                number = next(self._numbers)
                self._running[meta["uid"]] = RunningPod(self, pod, f"10.244.{1 + number // 250}.{1 + number % 250}")
                self._running[meta["uid"]].start()
            elif meta.get("deletionTimestamp"):
                self.forget(pod)
        elif meta.get("deletionTimestamp"):
            running.stop(meta.get("deletionGracePeriodSeconds") or 0)

    def lose(self, uid: str) -> None:
        """Who deletes with no grace takes a pod from the API server before it ends here."""
        if uid in self._running:
            self._running.pop(uid).stop(0)

    def keep_log(self, pod: Body, log: ContainerLog) -> None:
        self._logs[pod["metadata"]["namespace"], pod["metadata"]["name"]] = log

    def log_of(self, namespace: str, name: str) -> ContainerLog | None:
        return self._logs.get((namespace, name))

    def forget(self, pod: Body) -> None:
        """The last word of a deletion: without it the API server keeps the pod. No grace must be asked in the body."""
        meta = pod["metadata"]
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
        insist(lambda: self.core.delete_namespaced_pod(meta["name"], meta["namespace"], body=options))


class RunningPod:
    """One pod from its start to its last status. Only its first container is run; pods of Jobs have no others.

    It is run once, or again and again with a growing pause, as its restartPolicy says.
    """

    def __init__(self, kubelet: Kubelet, pod: Body, address: str) -> None:
        self._kubelet, self._pod, self._address = kubelet, pod, address
        self._folder = kubelet.folder / pod["metadata"]["uid"]
        self._given = Given(kubelet.core, pod, address, self._folder, kubelet.folder / "shared")
        self._container: Body = pod["spec"]["containers"][0]
        self._asked_to_stop = threading.Event()
        self._grace = math.inf
        self._restarts, self._last_state = 0, Body()
        self._readiness = Readiness(self._container, address)

    def start(self) -> None:
        threading.Thread(target=self._live, daemon=True).start()

    def stop(self, grace: float) -> None:
        """Asked again, it may have less time, never more."""
        self._grace = min(self._grace, grace)
        self._asked_to_stop.set()

    def _live(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._has_its_volumes() and self._has_its_image() and self._has_its_environment():
            self._run()
        self._asked_to_stop.wait()
        self._kubelet.forget(self._pod)

    def _run(self) -> None:
        self._kubelet.hosts.add(self._folder / "hosts", self._pod, self._address)
        ended = self._run_once()
        while self._pod["spec"].get("restartPolicy") == "Always":
            self._last_state = {"terminated": ended}
            waiting = {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}
            self._tell("Running", {"waiting": waiting})
            if self._asked_to_stop.wait(min(2**self._restarts, LONGEST_PAUSE)):
                break
            self._restarts += 1
            ended = self._run_once()
        self._kubelet.hosts.drop(self._folder / "hosts")
        self._tell("Succeeded" if ended["exitCode"] == 0 else "Failed", {"terminated": ended})

    def _run_once(self) -> Body:
        started = now()
        process = self._begin()
        code = self._wait_for(process, {"running": {"startedAt": started}})
        self._kept.join(LOG_SECONDS)
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "message": self._message(code)}
        return ended | {"startedAt": started, "finishedAt": now()}

    def _wait_for(self, process: subprocess.Popen[bytes], state: Body) -> int:
        self._tell("Running", state, ready=self._readiness.at_once)
        while (code := process.poll()) is None:
            if self._readiness.changed():
                self._tell("Running", state, ready=self._readiness.holds)
            if self._asked_to_stop.wait(0.05):
                self._terminate(process)
        return code if code >= 0 else 128 - code

    def _terminate(self, process: subprocess.Popen[bytes]) -> None:
        """SIGTERM to what is process 1 of the pod, SIGKILL when the grace is over."""
        for pid in _children(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        asked = time.monotonic()
        while process.poll() is None and time.monotonic() - asked < self._grace:
            time.sleep(0.02)
        process.kill()

    def _begin(self) -> subprocess.Popen[bytes]:
        self._sandbox().write(self._folder / "sandbox.json")
        kill_too = ("setpriv", "--pdeathsig", "KILL")
        unshare = ("unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child")
        entry = (sys.executable, "-m", "tests.controlplane.sandbox", str(self._folder / "sandbox.json"))
        log = ContainerLog(self._folder)
        process = subprocess.Popen(
            [*kill_too, *unshare, *entry], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdout is not None
        self._kept = log.keep(process.stdout)
        self._kubelet.keep_log(self._pod, log)
        self._plug_in(process)
        return process

    def _sandbox(self) -> Sandbox:
        spec, container = self._pod["spec"], self._container
        environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | IMAGE
        environment |= self._given.environment()
        log = self._folder / "termination-log"
        log.touch()
        mounts = (
            *self._given.mounts(),
            (str(COMPILED), str(COMPILED), False),
            (str(log), container.get("terminationMessagePath", "/dev/termination-log"), False),
            (str(self._folder / "hosts"), "/etc/hosts", True),
            (str(self._kubelet.resolver), "/etc/resolv.conf", True),
        )
        return Sandbox(
            hostname=spec.get("hostname", self._pod["metadata"]["name"]),
            address=self._address,
            gateway=NODE_ADDRESS,
            root=str(self._folder / f"root-{self._restarts}"),
            mounts=mounts,
            visible=tuple(dict.fromkeys((str(ROOT), sys.prefix, sys.base_prefix))),
            command=tuple(
                expanded(word, environment) for word in (*container.get("command", ()), *container.get("args", ()))
            ),
            environment=environment,
            working_folder=container.get("workingDir", "/"),
            read_only=container.get("securityContext", {}).get("readOnlyRootFilesystem", False),
        )

    def _plug_in(self, process: subprocess.Popen[bytes]) -> None:
        """A cable from the bridge into the pod's network; one without it ends by itself."""
        while not (inner := _children(process.pid)) and process.poll() is None:
            time.sleep(0.005)
        end = f"v{self._address.removeprefix('10.244.')}"
        cable = ("link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", str(*inner[:1]))
        if self._restarts:
            subprocess.run(["ip", "link", "delete", end], check=False, capture_output=True)
        for command in (cable, ("link", "set", end, "master", "br0", "up")):
            subprocess.run(["ip", *command], check=False)

    # --- what it waits for

    def _has_its_volumes(self) -> bool:
        """As a kubelet does: what is not there yet is asked for again, and the first time told by an event."""
        return all(self._waits_for(*self._volume(volume)) for volume in self._pod["spec"].get("volumes", ()))

    def _volume(self, volume: Body) -> tuple[Callable[[], object], Callable[[str], None]]:
        def tell(why: str) -> None:
            self._tell("Pending", {"waiting": {"reason": "ContainerCreating"}})
            self._warn("FailedMount", f'MountVolume.SetUp failed for volume "{volume["name"]}" : {why}')

        return lambda: self._given.fill(volume), tell

    def _has_its_image(self) -> bool:
        """What cannot be pulled is told in the two ways that alternate for ever; all other images are there."""
        image = self._container["image"]
        if not image.startswith(NOT_PULLED):
            return True
        why = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {image}: not found'
        self._tell("Pending", {"waiting": {"reason": "ErrImagePull", "message": why}})
        self._warn("Failed", f'Failed to pull image "{image}": {why}')
        if not self._asked_to_stop.wait(1.0):
            told = f'Back-off pulling image "{image}": ErrImagePull: {why}'
            self._tell("Pending", {"waiting": {"reason": "ImagePullBackOff", "message": told}})
        return False

    def _has_its_environment(self) -> bool:
        def tell(why: str) -> None:
            self._tell("Pending", {"waiting": {"reason": "CreateContainerConfigError", "message": why}})

        return self._waits_for(self._given.environment, tell)

    def _waits_for(self, get: Callable[[], object], tell: Callable[[str], None]) -> bool:
        """Until `get` finds what it needs; False where the pod is asked to stop before."""
        told = False
        while (why := why_missing(get)) is not None:
            if not told:
                tell(why)
            told = True
            if self._asked_to_stop.wait(0.2):
                return False
        return True

    # --- what it tells

    def _message(self, code: int) -> str:
        """What the container left in its termination log, or the end of its log where it failed without a word."""
        told: bytes = (self._folder / "termination-log").read_bytes()[-LOG_BYTES:]
        wants_log = self._container.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if not told and code and wants_log:
            told = (self._folder / "log").read_bytes()[-LOG_BYTES // 2 :]
        return told.decode(errors="replace")

    def _tell(self, phase: str, state: Body, ready: bool = False) -> None:
        running = "running" in state
        kinds = {"PodScheduled": True, "Initialized": True, "ContainersReady": ready, "Ready": ready}
        conditions = [
            {"type": kind, "status": str(holds), "lastTransitionTime": now()} for kind, holds in kinds.items()
        ]
        container = {"name": self._container["name"], "image": self._container["image"], "imageID": "local"}
        container |= {"ready": ready, "started": running, "state": state}
        container |= {"restartCount": self._restarts, "lastState": self._last_state}
        status = {"phase": phase, "conditions": conditions, "containerStatuses": [container], "startTime": now()}
        status |= {"podIP": self._address, "podIPs": [{"ip": self._address}], "hostIP": NODE_ADDRESS}
        meta = self._pod["metadata"]
        patch = self._kubelet.core.patch_namespaced_pod_status
        insist(lambda: patch(meta["name"], meta["namespace"], {"status": status}))

    def _warn(self, reason: str, message: str) -> None:
        meta = self._pod["metadata"]
        about = {"kind": "Pod", "apiVersion": "v1", "name": meta["name"], "namespace": meta["namespace"]}
        event = {
            "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
            "involvedObject": about | {"uid": meta["uid"]},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "source": {"component": "kubelet", "host": NODE},
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "count": 1,
        }
        insist(lambda: self._kubelet.core.create_namespaced_event(meta["namespace"], event))


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def main(kubeconfig: str, folder: Path) -> None:
    config.load_kube_config(kubeconfig)
    folder.mkdir(parents=True, exist_ok=True)
    COMPILED.mkdir(parents=True, exist_ok=True)
    kubelet = Kubelet(folder)
    serve(NODE_ADDRESS, Path("certificates/kubelet"), Path("ca.crt"), kubelet.log_of)
    kubelet.register()
    kubelet.serve()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve())
