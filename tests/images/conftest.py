"""Images are built once a session; what does not change is not built again for the next."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controlplane.conftest import world
from tests.images.building import Store, Tell, store

__all__ = ["world"]


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Tell:
    """Who waits for minutes is told for what."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\nimages: {line}", flush=True)

    return say


@pytest.fixture(scope="session")
def images() -> Store:
    return store()


@pytest.fixture(scope="session")
def controller_image(images: Store, tell: Tell) -> str:
    return images.build("controller", tell)


@pytest.fixture(scope="session")
def trainer_image(images: Store, tell: Tell) -> str:
    """Without an accelerator."""
    return images.build("trainer", tell, VARIANT="cpu")


@pytest.fixture(scope="module")
def controller_files(images: Store, controller_image: str) -> Iterator[Path]:
    with images.files(controller_image) as root:
        yield root


@pytest.fixture(scope="module")
def trainer_files(images: Store, trainer_image: str) -> Iterator[Path]:
    with images.files(trainer_image) as root:
        yield root
