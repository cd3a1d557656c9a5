"""The allow-list of pod settings a GRPOJob may carry, in Kubernetes' own spelling.

Not a raw pod template: what is missing here (hostPath, privileged, commands, further containers) cannot be asked for.
Values mean what the Kubernetes API says (https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/).
"""

from typing import Annotated, Literal

from pydantic import Field

from trainer.contract.section import Section, Text

ENV_NAME = r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
ABSOLUTE_PATH = r"^/[^:]*$"
RELATIVE_PATH = r"^[^/]"
SHA256 = r"^[0-9a-f]{64}$"
PATTERNS = {
    ENV_NAME: "a name of letters, digits, '_', '-' and '.', no digit first",
    DNS_LABEL: "a name of lower-case letters, digits and '-'",
    DNS_NAME: "a name of lower-case letters, digits, '-' and '.'",
    LABEL_KEY: "a label's key: letters, digits, '-', '_' and '.', perhaps after a domain and '/'",
    LABEL_VALUE: "a label's value: letters, digits, '-', '_' and '.'",
    QUANTITY: "a quantity such as 4, 500m or 16Gi",
    ABSOLUTE_PATH: "an absolute path without ':'",
    RELATIVE_PATH: "a relative path",
    SHA256: "64 hexadecimal digits",
}
"""What a text must look like, and how a user is told."""

EnvName = Annotated[str, Field(min_length=1, max_length=256, pattern=ENV_NAME)]
DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_LABEL)]
DnsName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_NAME)]
LabelKey = Annotated[str, Field(max_length=317, pattern=LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=63, pattern=LABEL_VALUE)]
AnnotationValue = Annotated[str, Field(max_length=65536)]
Quantity = Annotated[str, Field(max_length=32, pattern=QUANTITY)]
AbsolutePath = Annotated[str, Field(min_length=1, max_length=4096, pattern=ABSOLUTE_PATH)]
RelativePath = Annotated[str, Field(min_length=1, max_length=4096, pattern=RELATIVE_PATH)]
FileMode = Annotated[int, Field(ge=0, le=0o777)]
MAX_ITEMS = 128


class KeyRef(Section):
    """One key of a Secret or ConfigMap."""

    name: DnsName
    key: Text
    optional: bool | None = None


class FieldRef(Section):
    field_path: Text
    api_version: Text | None = None


class ResourceFieldRef(Section):
    resource: Text
    container_name: Text | None = None
    divisor: Quantity | None = None


class EnvSource(Section):
    """Exactly one of its four sources."""

    secret_key_ref: KeyRef | None = None
    config_map_key_ref: KeyRef | None = None
    field_ref: FieldRef | None = None
    resource_field_ref: ResourceFieldRef | None = None


class EnvVar(Section):
    name: EnvName
    value: Annotated[str, Field(max_length=65536)] | None = None
    value_from: EnvSource | None = None


class NamedRef(Section):
    name: DnsName
    optional: bool | None = None


class EnvFrom(Section):
    prefix: EnvName | None = None
    config_map_ref: NamedRef | None = None
    secret_ref: NamedRef | None = None


class Resources(Section):
    """Beside what the slice gives: cpu, memory and ephemeral-storage. Chips are never asked for here."""

    requests: Annotated[dict[LabelKey, Quantity], Field(max_length=16)] | None = None
    limits: Annotated[dict[LabelKey, Quantity], Field(max_length=16)] | None = None


class Toleration(Section):
    key: LabelKey | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0, lt=2**31)] | None = None


class PullSecret(Section):
    name: DnsName


class KeyToPath(Section):
    key: Text
    path: RelativePath
    mode: FileMode | None = None


class ConfigMapVolume(Section):
    name: DnsName
    items: Annotated[tuple[KeyToPath, ...], Field(max_length=MAX_ITEMS)] | None = None
    default_mode: FileMode | None = None
    optional: bool | None = None


class SecretVolume(Section):
    secret_name: DnsName
    items: Annotated[tuple[KeyToPath, ...], Field(max_length=MAX_ITEMS)] | None = None
    default_mode: FileMode | None = None
    optional: bool | None = None


class ClaimVolume(Section):
    claim_name: DnsName
    read_only: bool | None = None


class EmptyDirVolume(Section):
    medium: Literal["", "Memory"] | None = None
    size_limit: Quantity | None = None


class CsiVolume(Section):
    """Such as gcsfuse.csi.storage.gke.io (https://cloud.google.com/kubernetes-engine/docs/concepts/cloud-storage-fuse-csi-driver)."""

    driver: DnsName
    read_only: bool | None = None
    fs_type: Text | None = None
    volume_attributes: Annotated[dict[Text, Annotated[str, Field(max_length=4096)]], Field(max_length=64)] | None = None
    node_publish_secret_ref: PullSecret | None = None


class NfsVolume(Section):
    server: Text
    path: AbsolutePath
    read_only: bool | None = None


class Volume(Section):
    """A name and exactly one source. There is no hostPath: it would tie a run to one node and open the node to it."""

    name: DnsLabel
    persistent_volume_claim: ClaimVolume | None = None
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    empty_dir: EmptyDirVolume | None = None
    csi: CsiVolume | None = None
    nfs: NfsVolume | None = None


class VolumeMount(Section):
    name: DnsLabel
    mount_path: AbsolutePath
    sub_path: RelativePath | None = None
    read_only: bool | None = None


class SecurityContext(Section):
    """One named profile; both are unprivileged. Root is the fallback where a non-root process cannot open the TPU."""

    profile: Literal["Restricted", "Root"] = "Restricted"
    run_as_user: Annotated[int, Field(gt=0, lt=2**31)] | None = None
    run_as_group: Annotated[int, Field(gt=0, lt=2**31)] | None = None
    fs_group: Annotated[int, Field(gt=0, lt=2**31)] | None = None
