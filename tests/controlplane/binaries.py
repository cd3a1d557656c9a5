"""The programs of a control plane, built once from pinned Go modules into the test cache.

`python -m tests.controlplane.binaries` builds what is missing, as a test does that needs one. KUBEBUILDER_ASSETS names
a folder whose programs are taken instead, where they lie there.
"""

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tests.golang import cache_folder, go

COMPONENTS = Path(__file__).with_name("components")
KUBERNETES = "v1.36.3"
_VERSION = "k8s.io/component-base/version"
_STAMP = f"-X {_VERSION}.gitVersion={KUBERNETES} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=36"
"""Kueue refuses an API server that does not tell its version."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Component:
    """A Go module of ours that requires theirs; `packages` by the name of the program that each becomes.

    `files` are taken from `module` beside them: definitions and webhooks, as it ships them.
    """

    folder: str
    packages: dict[str, str]
    module: str
    flags: str = "-s -w"
    files: tuple[str, ...] = ()

    @property
    def home(self) -> Path:
        """Where the built programs are kept: another pin or flag is another folder."""
        pins = b"".join((COMPONENTS / self.folder / name).read_bytes() for name in ("go.mod", "go.sum"))
        digest = hashlib.sha256(pins + self.flags.encode() + "".join(self.files).encode()).hexdigest()[:12]
        return cache_folder() / f"{self.folder}-{digest}"


ALL = (
    Component("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}, "go.etcd.io/etcd/server/v3"),
    Component(
        "kubernetes",
        {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
        },
        "k8s.io/kubernetes",
        f"-s -w {_STAMP}",
    ),
    Component(
        "jobset",
        {"jobset": "sigs.k8s.io/jobset"},
        "sigs.k8s.io/jobset",
        files=("charts/jobset/crds", "config/components/webhook/manifests.yaml"),
    ),
    Component(
        "actionlint", {"actionlint": "github.com/rhysd/actionlint/cmd/actionlint"}, "github.com/rhysd/actionlint"
    ),
    Component(
        "kueue",
        {"kueue": "sigs.k8s.io/kueue/cmd/kueue"},
        "sigs.k8s.io/kueue",
        files=("config/components/crd/bases", "config/components/webhook/manifests.yaml"),
    ),
    Component("helm", {"helm": "helm.sh/helm/v4/cmd/helm"}, "helm.sh/helm/v4"),
    Component(
        "kubeconform", {"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"}, "github.com/yannh/kubeconform"
    ),
)
BY_PROGRAM = {program: component for component in ALL for program in component.packages}
BY_FOLDER = {component.folder: component for component in ALL}


def program(name: str) -> Path:
    """The path of a program: from KUBEBUILDER_ASSETS, from the cache, or built now."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (given := Path(assets) / name).exists():
        return given
    return built(BY_PROGRAM[name]) / name


def shipped(folder: str, path: str) -> Path:
    """A file or folder that a component ships beside its program."""
    return built(BY_FOLDER[folder]) / path


def build_all(tell: Tell) -> None:
    """All that a control plane may need, so that nothing is built while something waits for it."""
    for component in ALL:
        assets = os.environ.get("KUBEBUILDER_ASSETS")
        if component.files or not (assets and all((Path(assets) / name).exists() for name in component.packages)):
            built(component, tell)


def built(component: Component, tell: Tell = lambda line: None) -> Path:
    """The folder with a component's programs, which appears whole or not at all; who comes second waits."""
    home = component.home
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{home}.lock"):
        if not home.exists():
            start = time.monotonic()
            tell(f"building {', '.join(component.packages)} from {component.module} (once) ...")
            scratch = home.with_suffix(".partial")
            shutil.rmtree(scratch, ignore_errors=True)
            _build(component, scratch)
            scratch.rename(home)
            tell(f"built in {time.monotonic() - start:.0f} s")
    return home


def _build(component: Component, target: Path) -> None:
    module = COMPONENTS / component.folder
    for name, package in component.packages.items():
        command = ["build", "-buildvcs=false", "-trimpath", f"-ldflags={component.flags}", "-o", str(target / name)]
        go(*command, package, module=module, environment={"CGO_ENABLED": "0"})
    source = go("list", "-m", "-f", "{{.Dir}}", component.module, module=module).strip()
    for path in component.files:
        found, place = Path(source) / path, target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        # Modes of the module cache are read-only, and a folder that nobody may write cannot be moved.
        if found.is_dir():
            shutil.copytree(found, place, copy_function=shutil.copyfile)
            for folder in (place, *(one for one in place.rglob("*") if one.is_dir())):
                folder.chmod(0o755)
        else:
            shutil.copyfile(found, place)


def main() -> None:
    try:
        build_all(lambda line: print(f"control plane: {line}", flush=True))
    except AssertionError as error:
        sys.exit(f"control plane: {error}")


if __name__ == "__main__":
    main()
