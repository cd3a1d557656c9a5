"""A real control plane, once a session, and a namespace of its own for each test."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.runtime.client import Api
from tests.controlplane.binaries import build_all
from tests.controlplane.looking import until
from tests.controlplane.meddling import Meddler
from tests.controlplane.operating import Operating
from tests.controlplane.plugging import Plugin
from tests.controlplane.world import World

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[World]:
    """etcd, API server, controller manager, scheduler, JobSet and a kubelet of processes."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():  # who waits for minutes is told for what
        build_all(lambda line: print(f"\ncontrol plane: {line}", flush=True))
    world = World(tmp_path_factory.mktemp("world"))
    yield world
    world.end()


@pytest.fixture(scope="module")
def kueue(world: World) -> Iterator[World]:
    """The world with Kueue in it, for the tests of one file."""
    world.add("kueue")
    yield world
    world.remove("kueue")


@pytest.fixture
def api(world: World) -> Iterator[Api]:
    """The straight way, for what the tests do to the server."""
    api = Api.connect(str(world.kubeconfig), "tests")
    yield api
    api.close()


@pytest.fixture
def meddler(world: World, tmp_path: Path) -> Iterator[Meddler]:
    """The way that may be crooked: through its kubeconfig."""
    meddler = Meddler(world, tmp_path)
    yield meddler
    meddler.end()


@pytest.fixture
def namespace(world: World) -> Iterator[str]:
    """A new namespace; what a test made goes with it, and its pods at once."""
    name = f"test-{next(_NUMBERS)}"
    created = world.kubectl("create", "namespace", name)
    assert created.returncode == 0, created.stderr
    # Pods are refused without it, and its controller may just have lost its API server.
    account = ("-n", name, "get", "serviceaccount", "default")
    until(lambda: world.kubectl(*account).returncode == 0, "the namespace's account")
    yield name
    world.kubectl("delete", "namespace", name, "--wait=false")
    world.kubectl("-n", name, "delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false")


@pytest.fixture
def operating(world: World, namespace: str) -> Iterator[Operating]:
    """A namespace where jobs may be applied; the test starts and stops its operator."""
    operating = Operating(world, namespace)
    yield operating
    operating.close()


@pytest.fixture
def grpo(operating: Operating, tmp_path: Path) -> Plugin:
    """`kubectl grpo` in the test's namespace."""
    return Plugin(operating, tmp_path)
