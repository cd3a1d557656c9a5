"""Process 1 of a `World`: it makes the network, runs the programs of the control plane, and does what the tests ask.

`python -m tests.controlplane.plane FOLDER DOOR`: DOOR is a listening socket from outside, forwarded to the API server.
Requests are lines of JSON on stdin, `[verb, name]`; each is answered by one on stdout.
"""

import contextlib
import json
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.controlplane import controllers
from tests.controlplane.binaries import program
from tests.controlplane.sandbox import INTERFACE, link_entries
from tests.controlplane.world import ADMIN_TOKEN, NODE_ADDRESS, ROOT, write_kubeconfig

SERVICE_ADDRESS = "10.0.0.1"
START_SECONDS = 60.0
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
ETCD = ("--data-dir=etcd", "--unsafe-no-fsync", "--log-level=warn")
API_SERVER = (
    "--etcd-servers=http://127.0.0.1:2379",
    "--bind-address=0.0.0.0",
    f"--advertise-address={NODE_ADDRESS}",
    "--secure-port=443",
    "--tls-cert-file=certificates/apiserver/tls.crt",
    "--tls-private-key-file=certificates/apiserver/tls.key",
    "--token-auth-file=tokens.csv",
    "--authorization-mode=Node,RBAC",
    "--service-account-key-file=sa.key",
    "--service-account-signing-key-file=sa.key",
    "--service-account-issuer=https://kubernetes.default.svc",
    "--service-cluster-ip-range=10.0.0.0/24",
    "--enable-aggregator-routing=true",
    "--allow-privileged=true",
    # As guarded clusters have it: who makes an owner reference that blocks must be allowed to.
    "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
    "--kubelet-certificate-authority=ca.crt",
    "--kubelet-client-certificate=certificates/apiserver/tls.crt",
    "--kubelet-client-key=certificates/apiserver/tls.key",
    "--kubelet-preferred-address-types=InternalIP",
)
CONTROLLER_MANAGER = (
    "--kubeconfig=kubeconfig.inside",
    "--leader-elect=false",
    "--service-account-private-key-file=sa.key",
    "--root-ca-file=ca.crt",
    "--secure-port=0",
    "--controllers=*,-node-lifecycle-controller,-node-ipam-controller",
    "--kube-api-qps=200",  # its default makes 11 pods a second
    "--kube-api-burst=400",
)
SCHEDULER = ("--kubeconfig=kubeconfig.inside", "--leader-elect=false", "--secure-port=0")


class Plane:
    """The programs of the control plane, each with a log of its own below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(str(folder / "ca.crt"))
        write_kubeconfig(folder / "kubeconfig.inside", f"https://{NODE_ADDRESS}", folder / "ca.crt")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        kubelet = [sys.executable, "-m", "tests.controlplane.kubelet", "kubeconfig.inside", "pods"]
        self._commands = {
            "etcd": [str(program("etcd")), *ETCD],
            "kube-apiserver": [str(program("kube-apiserver")), *API_SERVER],
            "kube-controller-manager": [str(program("kube-controller-manager")), *CONTROLLER_MANAGER],
            "kube-scheduler": [str(program("kube-scheduler")), *SCHEDULER],
            "kubelet": kubelet,
            "services": ["unshare", "--net", sys.executable, "-m", "tests.controlplane.services", "kubeconfig.inside"],
        }

    def begin(self) -> None:
        self._write_keys()
        for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
            self.start(name)
        self.add("jobset")
        self.start("kubelet")
        self.start("services")

    def start(self, name: str) -> None:
        environ = {**os.environ, "KUBECONFIG": str(self._folder / "kubeconfig.inside"), "PYTHONPATH": str(ROOT)}
        with (self._folder / f"{name}.log").open("a") as log:
            self._processes[name] = subprocess.Popen(
                self._commands[name], cwd=self._folder, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if name == "kube-apiserver":
            self._until_answered(f"https://{NODE_ADDRESS}/readyz")
        elif name in controllers.ALL:
            self._until_answered(controllers.ALL[name].ready_url)
        elif name == "services":
            self._plug_in(self._processes[name])

    def _plug_in(self, process: subprocess.Popen[bytes]) -> None:
        """A cable into the network of a program that has one of its own."""
        own = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{process.pid}/ns/net").readlink() == own:
            time.sleep(0.01)
        end = f"v-{process.pid}"
        cable = f"link add {end} type veth peer name {INTERFACE} netns {process.pid}"
        for line in (cable, f"link set {end} master br0 up"):
            subprocess.run(["ip", *line.split()], check=True)

    def stop(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def add(self, name: str) -> None:
        """Definitions first, then the controller, and webhooks once they answer: a dead one refuses all writes."""
        controller, authority = controllers.ALL[name], self._authority.cert_pem.bytes()
        (self._folder / f"{name}.yaml").write_text(controller.configuration(self._certify(name, "127.0.0.1")))
        command = [str(program(name)), *controller.command_flags]
        self._commands[name] = self._with_kueues_files(command) if name == "kueue" else command
        definitions = controller.definitions(authority)
        self._kubectl("apply", "--server-side", "-f", "-", documents=definitions)
        converted = [one for one in definitions if one["spec"]["names"]["plural"] in controller.converted]
        self._until_served([one for one in definitions if one not in converted])
        self._until_discovered(definitions)
        self.start(name)
        self._until_served(converted)  # objects that an earlier one left are read through its webhook
        webhooks = controller.webhooks(authority)
        for webhook in (one for manifest in webhooks for one in manifest["webhooks"]):
            self._until_answered(webhook["clientConfig"]["url"], absent=404)
        self._kubectl("apply", "-f", "-", documents=webhooks)

    def remove(self, name: str) -> None:
        webhooks = controllers.ALL[name].webhooks(b"")
        self._kubectl("delete", "--ignore-not-found", "-f", "-", documents=webhooks)
        self.stop(name)

    def _with_kueues_files(self, command: list[str]) -> list[str]:
        """It ends without a certificate at a fixed path, even where it serves no metrics: it has an /etc of its own."""
        etc, machine = self._folder / "etc", self._folder / "machine"
        place = etc / "kueue" / "metrics" / "certs"
        for folder in (place, machine):
            folder.mkdir(parents=True, exist_ok=True)
        for name in ("tls.crt", "tls.key"):
            (place / name).write_bytes((self._folder / "certificates/kueue" / name).read_bytes())
        link_entries(Path("/etc"), etc, str(machine))
        script = f'mount --rbind / "{machine}" && mount --bind "{etc}" /etc && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, "sh", *command]

    def _write_keys(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        form = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        (self._folder / "sa.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
        (self._folder / "tokens.csv").write_text(f'{ADMIN_TOKEN},admin,admin-uid,"system:masters"\n')
        self._certify("apiserver", "kubernetes.default.svc", "127.0.0.1", SERVICE_ADDRESS, NODE_ADDRESS)
        self._certify("kubelet", NODE_ADDRESS)

    def _certify(self, name: str, *addresses: str) -> Path:
        issued, home = self._authority.issue_cert(*addresses), self._folder / "certificates" / name
        home.mkdir(parents=True, exist_ok=True)
        issued.private_key_pem.write_to_path(str(home / "tls.key"))
        (home / "tls.crt").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        return home

    def _kubectl(self, *arguments: str, documents: list[dict[str, Any]] | None = None) -> None:
        command = [str(program("kubectl")), "--kubeconfig=kubeconfig.inside", *arguments]
        given = None if documents is None else yaml.safe_dump_all(documents)
        subprocess.run(
            command, cwd=self._folder, input=given, text=True, check=True, stdout=sys.stderr, timeout=START_SECONDS
        )

    def _until_served(self, definitions: list[dict[str, Any]]) -> None:
        """Not `kubectl wait`, which gives up where there is no status yet."""
        for group, version, plural in _kinds(definitions):
            self._until_answered(f"https://{NODE_ADDRESS}/apis/{group}/{version}/{plural}?limit=1")

    def _until_discovered(self, definitions: list[dict[str, Any]]) -> None:
        """Served is not yet known: a controller that looks up what there is would end where its own kind is missing."""
        context = ssl.create_default_context(cafile=str(self._folder / "ca.crt"))
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Accept": DISCOVERY}
        request = urllib.request.Request(f"https://{NODE_ADDRESS}/apis", headers=headers)
        end = time.monotonic() + START_SECONDS
        while True:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                groups = {one["metadata"]["name"]: one["versions"] for one in json.load(answer)["items"]}
            missing = _kinds(definitions) - {
                (group, version["version"], kind["resource"])
                for group, versions in groups.items()
                for version in versions
                for kind in version["resources"]
            }
            if not missing:
                return
            assert time.monotonic() < end, f"{sorted(missing)} were not discovered in {START_SECONDS:.0f} s"
            time.sleep(0.05)

    def _until_answered(self, url: str, absent: int | None = None) -> None:
        context = ssl.create_default_context(cafile=str(self._folder / "ca.crt")) if url.startswith("https:") else None
        end = time.monotonic() + START_SECONDS
        while not _answers(url, context, absent):
            assert time.monotonic() < end, f"{url} did not answer for {START_SECONDS:.0f} s"
            time.sleep(0.05)


def _kinds(definitions: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Group, version and plural of all that is served."""
    return {
        (definition["spec"]["group"], version["name"], definition["spec"]["names"]["plural"])
        for definition in definitions
        for version in definition["spec"]["versions"]
        if version["served"]
    }


def _answers(url: str, context: ssl.SSLContext | None, absent: int | None) -> bool:
    """Whether anything but an error comes back; with `absent`, anything but that status."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
    try:
        with urllib.request.urlopen(request, context=context, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return absent is not None and error.code != absent
    except OSError:
        return False


def _make_network() -> None:
    for line in (
        "link set lo up",
        f"address add {SERVICE_ADDRESS}/32 dev lo",
        "link add br0 type bridge",
        f"address add {NODE_ADDRESS}/16 dev br0",
        "link set br0 up",
    ):
        subprocess.run(["ip", *line.split()], check=True)


def _forward(door: socket.socket) -> None:
    """Connections from outside go on to the API server; the socket still belongs to where it was made."""

    def copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    while True:
        caller, _ = door.accept()
        try:
            behind = socket.create_connection((NODE_ADDRESS, 443))
        except OSError:
            caller.close()
            continue
        for pair in ((caller, behind), (behind, caller)):
            threading.Thread(target=copy, args=pair, daemon=True).start()


def _bury() -> None:
    """As process 1: whose parent has ended is ours. Between requests, when we wait for no child of our own."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _answer(act: Callable[[], None]) -> None:
    try:
        act()
        told: dict[str, Any] = {"done": True}
    except Exception as error:
        told = {"failed": f"{type(error).__name__}: {error}"}
    print(json.dumps(told), flush=True)


def main(folder: Path, door: int) -> None:
    _make_network()
    threading.Thread(target=_forward, args=(socket.socket(fileno=door),), daemon=True).start()
    plane = Plane(folder)
    verbs = {"start": plane.start, "stop": plane.stop, "add": plane.add, "remove": plane.remove}
    _answer(plane.begin)
    while True:
        if not select.select([sys.stdin], [], [], 0.2)[0]:
            _bury()
            continue
        line = sys.stdin.readline()
        if not line:
            return
        verb, name = json.loads(line)
        _answer(lambda verb=verb, name=name: verbs[verb](name))  # type: ignore[misc]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
