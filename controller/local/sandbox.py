"""Volumes in, folders of this machine out, and the rewriting of what lies under a mount path.

ConfigMaps and Secrets are written to a temporary folder; user code may be a folder instead, as it is; a shared volume
is `volumes/NAME` below the working folder, and the pod's own working folder is the user's. It starts no process.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller import names, podspec
from controller.local.pods import LocalError, Objects, Pod

SHARED_SOURCES = ("persistentVolumeClaim", "nfs", "csi")
SHARED_FOLDER = "volumes"
OWN_MACHINE = (
    podspec.MODEL_CACHE,
    *(path for path in podspec.WRITABLE_FOLDERS.values() if path != names.WORKING_FOLDER),
)
"""A pod needs volumes for these folders; a machine has them: temporary files, cache of models, shared memory."""


@dataclass(frozen=True, slots=True)
class Mounts:
    """Mount path to folder, longest path first, so that a mount inside another wins."""

    folders: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, folders: Mapping[str, str]) -> "Mounts":
        return cls(tuple(sorted(folders.items(), key=lambda item: -len(item[0]))))

    def local(self, text: str) -> str:
        """A path, or several joined by colons, as it is on this machine; any other text as it is."""
        return ":".join(self._path(part) for part in text.split(":"))

    def _path(self, text: str) -> str:
        for mount, folder in self.folders:
            if text == mount or text.startswith(mount.rstrip("/") + "/"):
                return folder + text[len(mount.rstrip("/")) :]
        return text

    def local_data(self, data: Any) -> Any:
        """Every text inside plain data, as `local` has it."""
        if isinstance(data, str):
            return self.local(data)
        if isinstance(data, list):
            return [self.local_data(item) for item in data]
        if isinstance(data, dict):
            return {key: self.local_data(value) for key, value in data.items()}
        return data


def objects_of(documents: Iterable[Mapping[str, Any]]) -> Objects:
    """ConfigMaps and Secrets among the documents, by kind and name, as their keys' bytes."""
    objects: dict[tuple[str, str], dict[str, bytes]] = {}
    for document in documents:
        if document.get("kind") not in ("ConfigMap", "Secret"):
            continue
        plain = {**(document.get("data") or {}), **(document.get("stringData") or {})}
        encoded = dict(document.get("binaryData") or {})
        if document["kind"] == "Secret":
            plain, encoded = dict(document.get("stringData") or {}), dict(document.get("data") or {})
        keys = {key: base64.b64decode(text) for key, text in encoded.items()}
        keys |= {key: str(text).encode() for key, text in plain.items()}
        objects[document["kind"], document["metadata"]["name"]] = keys
    return objects


def mount_volumes(pod: Pod, objects: Objects, sandbox: Path, working_folder: Path, code: Path | None) -> Mounts:
    """Makes the folders that the pod's volumes stand for. Raises LocalError where a volume's content is not at hand.

    `sandbox` is this pod's own; content that pods share is written for each, and is small.
    """
    volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
    folders: dict[str, str] = {}
    for mount in pod.container.get("volumeMounts", []):
        path: str = mount["mountPath"]
        if path in OWN_MACHINE:
            continue
        if path == pod.container.get("workingDir"):
            folders[path] = str(working_folder)
        elif code is not None and mount["name"] == podspec.CODE_VOLUME:
            folders[path] = str(code.resolve())
        else:
            volume = volumes[mount["name"]]
            shared = _is_shared(volume)
            folder = _shared(path, volume, working_folder) if shared else _filled(volume, objects, sandbox)
            folder.mkdir(parents=True, exist_ok=True)
            folders[path] = str(folder / mount["subPath"]) if "subPath" in mount else str(folder)
    mounts = Mounts.of(folders)
    _localise_run_config(mounts)
    return mounts


def _is_shared(volume: Mapping[str, Any]) -> bool:
    return any(source in volume for source in SHARED_SOURCES)


def _shared(mount_path: str, volume: Mapping[str, Any], working_folder: Path) -> Path:
    """Below the pod's working folder it keeps its place, so that a relative path means the same."""
    inside = mount_path.removeprefix(names.WORKING_FOLDER + "/")
    return working_folder / (inside if inside != mount_path else f"{SHARED_FOLDER}/{volume['name']}")


def _filled(volume: Mapping[str, Any], objects: Objects, sandbox: Path) -> Path:
    name: str = volume["name"]
    folder = sandbox / SHARED_FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    if "emptyDir" not in volume:
        source = volume.get("configMap") or volume["secret"]
        kind = "ConfigMap" if "configMap" in volume else "Secret"
        _write_keys(folder, kind, name, source, objects)
    return folder


def _write_keys(folder: Path, kind: str, volume: str, source: Mapping[str, Any], objects: Objects) -> None:
    name = source.get("name") or source["secretName"]
    keys = objects.get((kind, name))
    if keys is None:
        if source.get("optional"):
            return
        raise LocalError(_not_at_hand(kind, name, volume))
    for item in source.get("items") or [{"key": key, "path": key} for key in keys]:
        if item["key"] not in keys:
            raise LocalError(f"spec.volumes: {kind} {name} has no key {item['key']}; it has {', '.join(sorted(keys))}")
        target = folder / item["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(keys[item["key"]])


def _not_at_hand(kind: str, name: str, volume: str) -> str:
    if volume == podspec.CODE_VOLUME:
        return (
            f"spec.code.configMap: {name} is not in this file; "
            "add the ConfigMap to it as another document, or give the folder with --code DIR"
        )
    return f"spec.volumes: {kind} {name} of volume {volume} is not in this file; add it as another document"


def _localise_run_config(mounts: Mounts) -> None:
    """Paths inside run.json lie under the same mounts: an output on a shared volume, data beside the code."""
    run_config = Path(mounts.local(podspec.RUN_CONFIG))
    data = mounts.local_data(json.loads(run_config.read_text(encoding="utf-8")))
    run_config.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def shared_folders(pod: Pod, working_folder: Path) -> dict[str, Path]:
    """Where the volumes lie that a cluster would bring along, by name."""
    volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", []) if _is_shared(volume)}
    mounts = [mount for mount in pod.container.get("volumeMounts", []) if mount["name"] in volumes]
    return {mount["name"]: _shared(mount["mountPath"], volumes[mount["name"]], working_folder) for mount in mounts}
