"""Controllers of other projects in the control plane, JobSet and Kueue, as they ship but for how they are reached.

No Service leads to a program beside the cluster: their webhooks are declared by address, with our certificates.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.controlplane.binaries import shipped

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Controller:
    """`groups`: the API groups whose webhooks are kept, all where it is empty; `converted`: definitions with a
    conversion webhook.
    """

    name: str
    version: str
    definitions_folder: str
    webhook_port: int
    health_port: int
    options: Body = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()

    @property
    def command_flags(self) -> tuple[str, ...]:
        return f"--config={self.name}.yaml", *self.flags

    @property
    def ready_url(self) -> str:
        return f"http://127.0.0.1:{self.health_port}/readyz"

    def configuration(self, certificates: Path) -> str:
        return yaml.safe_dump(
            {
                "apiVersion": self.version,
                "kind": "Configuration",
                "internalCertManagement": {"enable": False},
                "metrics": {"bindAddress": "0"},
                "webhook": {"port": self.webhook_port, "host": "127.0.0.1", "certDir": str(certificates)},
                "health": {"healthProbeBindAddress": f"127.0.0.1:{self.health_port}"},
                # A replacement would wait for the lease of one that was killed.
                "leaderElection": {"leaderElect": False},
                **self.options,
            }
        )

    def definitions(self, authority: bytes) -> list[Body]:
        found = [
            definition
            for path in sorted(shipped(self.name, self.definitions_folder).iterdir())
            for definition in yaml.safe_load_all(path.read_text())
        ]
        for definition in found:
            if definition["spec"]["names"]["plural"] in self.converted:
                client = self._client("/convert", authority)
                webhook = {"conversionReviewVersions": ["v1"], "clientConfig": client}
                definition["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
        return found

    def webhooks(self, authority: bytes) -> list[Body]:
        manifests = shipped(self.name, "config/components/webhook/manifests.yaml").read_text()
        return list(self._by_address(yaml.safe_load_all(manifests), authority))

    def _by_address(self, manifests: Iterator[Body], authority: bytes) -> Iterator[Body]:
        for manifest in manifests:
            kept = [webhook for webhook in manifest["webhooks"] if self._keeps(webhook)]
            for webhook in kept:
                webhook["clientConfig"] = self._client(webhook["clientConfig"]["service"]["path"], authority)
            # Two projects call theirs `mutating-webhook-configuration`, and put a prefix before it when installed.
            name = f"{self.name}-{manifest['metadata']['name']}"
            yield manifest | {"metadata": {"name": name}, "webhooks": kept}

    def _keeps(self, webhook: Body) -> bool:
        asked = {group for rule in webhook["rules"] for group in rule["apiGroups"]}
        return not self.groups or any(group.startswith(self.groups) for group in asked)

    def _client(self, path: str, authority: bytes) -> Body:
        bundle = base64.b64encode(authority).decode()
        return {"url": f"https://127.0.0.1:{self.webhook_port}{path}", "caBundle": bundle}


JOB_SET = Controller(
    "jobset",
    "config.jobset.x-k8s.io/v1alpha1",
    "charts/jobset/crds",
    webhook_port=9443,
    health_port=8081,
)
KUEUE = Controller(
    "kueue",
    "config.kueue.x-k8s.io/v1beta2",
    "config/components/crd/bases",
    webhook_port=9444,
    health_port=8082,
    options={"namespace": "kueue-system", "integrations": {"frameworks": ["batch/job", "jobset.x-k8s.io/jobset"]}},
    flags=("--feature-gates=VisibilityOnDemand=false",),  # it would need an aggregated API
    groups=("kueue", "batch", "jobset"),
    converted=("clusterqueues", "cohorts", "localqueues", "multikueueclusters", "workloads"),
)
ALL = {controller.name: controller for controller in (JOB_SET, KUEUE)}
