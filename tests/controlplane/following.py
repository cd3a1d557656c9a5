"""A reflector under test: what it told, and what the server is asked meanwhile."""

from typing import Any

from controller.runtime.client import Api, Resource
from controller.runtime.reflector import Reflector
from controller.runtime.store import Store

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"test": "yes"}},
        "data": data,
    }


class Following:
    """Follows what is labelled by `config_map`; `told` are the data of old and new state, in the order of changes."""

    def __init__(self, api: Api, namespace: str, resource: Resource = CONFIG_MAPS, **options: Any) -> None:
        self.store, self.told = Store(), list[tuple[Any, Any]]()
        selector = "test=yes" if resource is CONFIG_MAPS else None
        self.reflector = Reflector(api, resource, self.store, self._hear, namespace, selector, **options)

    def _hear(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        self.told.append((old and old.get("data"), new and new.get("data")))

    def data(self) -> dict[str, Any]:
        """What the store holds, by name."""
        found = [self.store.get(key) or {} for key in self.store.keys()]  # noqa: SIM118 (a store is no mapping)
        return {one["metadata"]["name"]: one.get("data") for one in found}

    def __enter__(self) -> "Following":
        self.reflector.start()
        assert self.store.wait_synced(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.reflector.stop()
        assert not self.reflector.is_alive
