"""Reflector and store against the real API server, and against what lies between: cuts, silence, refusals, restarts."""

import json
import time
from collections.abc import Iterator

import pytest
import yaml

from controller.runtime import reflector
from controller.runtime.client import Api, ApiError, Resource
from tests.controlplane.following import CONFIG_MAPS, Following, config_map
from tests.controlplane.looking import until
from tests.controlplane.meddling import Meddler
from tests.controlplane.world import World

A, B = {"v": "a"}, {"v": "b"}
GADGETS = Resource("runtime.example", "v1", "gadgets", "Gadget")
GADGET_DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "gadgets.runtime.example"},
    "spec": {
        "group": "runtime.example",
        "names": {"plural": "gadgets", "kind": "Gadget"},
        "scope": "Namespaced",
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}


@pytest.fixture
def crooked(meddler: Meddler) -> Iterator[Api]:
    """The way through the meddler."""
    api = Api.connect(str(meddler.kubeconfig), "tests")
    yield api
    api.close()


def lists(meddler: Meddler) -> int:
    return sum("watch=true" not in request for request in meddler.requests)


def until_watching(meddler: Meddler, watches: int = 1) -> None:
    """The server has been asked for so many watches, and had the time to begin the last one."""
    until(lambda: len(meddler.requests) - lists(meddler) >= watches, f"watch {watches}")
    time.sleep(0.3)


def test_what_is_there_and_what_changes_is_told_once(api: Api, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of the list, then each change with its old and new state; a label that goes takes its object with it."""
    monkeypatch.setattr(reflector, "PAGE", 2)
    for name in ("a", "b", "c"):
        api.create(CONFIG_MAPS, config_map(name, v=name), namespace)
    with Following(api, namespace) as following:
        assert following.data() == {"a": A, "b": B, "c": {"v": "c"}}
        assert all(
            "managedFields" not in (following.store.get(f"{namespace}/{name}") or {})["metadata"] for name in "abc"
        )
        api.patch(CONFIG_MAPS, "a", namespace, {"data": {"v": "new"}})
        api.delete(CONFIG_MAPS, "b", namespace, propagation="Background")
        api.patch(CONFIG_MAPS, "c", namespace, {"metadata": {"labels": {"test": None}}})
        until(lambda: len(following.told) == 6, "six changes")
        assert following.told[3:] == [(A, {"v": "new"}), (B, None), ({"v": "c"}, None)]
        assert following.data() == {"a": {"v": "new"}}


def test_a_bookmark_brings_a_watch_forward(api: Api, crooked: Api, meddler: Meddler, namespace: str) -> None:
    """A watch that is begun anew goes on from the version that a bookmark named, which changed nothing in the store."""
    with Following(crooked, namespace) as following:
        until_watching(meddler)
        other = api.create(CONFIG_MAPS, {**config_map("other"), "metadata": {"name": "other"}}, namespace)
        version = other["metadata"]["resourceVersion"]
        time.sleep(0.3)
        bookmark = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": version}}
        meddler.tell(json.dumps({"type": "BOOKMARK", "object": bookmark}))
        time.sleep(0.3)
        meddler.cut()
        until_watching(meddler, 2)
        assert f"resourceVersion={version}" in meddler.requests[2]
        assert following.told == []


def test_a_cut_watch_goes_on_where_it_was(api: Api, crooked: Api, meddler: Meddler, namespace: str) -> None:
    """Connections end in the middle: what changes meanwhile is told once, without another list."""
    api.create(CONFIG_MAPS, config_map("a", v="a"), namespace)
    with Following(crooked, namespace) as following:
        for i in range(5):
            meddler.cut()
            api.patch(CONFIG_MAPS, "a", namespace, {"data": {"v": str(i)}})
        until(lambda: following.data() == {"a": {"v": "4"}}, "the last change")
        assert lists(meddler) == 1
        assert [old for old, _ in following.told[1:]] == [new for _, new in following.told[:-1]]


def test_a_watch_that_is_silent_is_begun_anew(api: Api, crooked: Api, meddler: Meddler, namespace: str) -> None:
    """Nothing comes and nobody ends the connection: after the stall time there is another watch; nothing is lost."""
    with Following(crooked, namespace, stall_seconds=1.0) as following:
        until_watching(meddler)
        with meddler.silence():
            api.create(CONFIG_MAPS, config_map("a", v="a"), namespace)
            time.sleep(1.5)
            assert following.data() == {}
        until(lambda: following.data() == {"a": A}, "what was missed")
        assert sum("watch=true" in request for request in meddler.requests) >= 2


def test_what_the_server_asks_for_is_waited(api: Api, crooked: Api, meddler: Meddler, namespace: str) -> None:
    """429 with Retry-After, then 500 and 503: it lists again after that time, then with back-off."""
    api.create(CONFIG_MAPS, config_map("a", v="a"), namespace)
    meddler.refuse("GET", "configmaps", 429, "TooManyRequests", Retry_After="2")
    meddler.refuse("GET", "configmaps", 500, "InternalError")
    meddler.refuse("GET", "configmaps", 503)
    began = time.monotonic()
    with Following(crooked, namespace) as following:
        assert time.monotonic() - began >= 2
        assert (lists(meddler), following.told) == (4, [(None, A)])


def test_a_version_that_is_gone_is_listed_anew(api: Api, crooked: Api, meddler: Meddler, namespace: str) -> None:
    """410 to a watch: a list tells what was missed, deletions among it."""
    for name in ("a", "b"):
        api.create(CONFIG_MAPS, config_map(name, v=name), namespace)
    with Following(crooked, namespace) as following:
        until_watching(meddler)
        meddler.refuse("GET", "watch=true", 410, "Expired")
        with meddler.silence():
            api.delete(CONFIG_MAPS, "a", namespace, propagation="Background")
            meddler.cut()
        until(lambda: following.data() == {"b": B}, "the deletion")
        assert (lists(meddler), following.told[2:]) == (2, [(A, None)])


def test_a_list_that_expires_between_its_pages_is_begun_anew(
    api: Api, crooked: Api, meddler: Meddler, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """410 to the second page: the whole list is asked for again, and each object told once."""
    monkeypatch.setattr(reflector, "PAGE", 2)
    for name in ("a", "b", "c"):
        api.create(CONFIG_MAPS, config_map(name, v=name), namespace)
    meddler.refuse("GET", "continue=", 410, "Expired")
    with Following(crooked, namespace) as following:
        until(lambda: len(following.told) == 3, "three objects")
        assert sorted(new["v"] for _, new in following.told) == ["a", "b", "c"]
        assert lists(meddler) == 4


def test_a_server_that_starts_again_is_followed_again(world: World, api: Api, namespace: str) -> None:
    """The API server is killed and comes back without the versions of before: what changed is told, each once."""
    for name in ("a", "b"):
        api.create(CONFIG_MAPS, config_map(name, v=name), namespace)
    with Following(api, namespace) as following:
        until(lambda: len(following.told) == 2, "the first list")
        before = api.list(CONFIG_MAPS, namespace)["metadata"]["resourceVersion"]
        api.create(CONFIG_MAPS, {**config_map("other"), "metadata": {"name": "other"}}, namespace)
        world.stop("kube-apiserver")
        world.start("kube-apiserver")
        api.patch(CONFIG_MAPS, "a", namespace, {"data": {"v": "new"}})
        api.delete(CONFIG_MAPS, "b", namespace, propagation="Background")
        until(lambda: following.data() == {"a": {"v": "new"}}, "what changed")
        assert sorted(following.told[2:], key=str) == [(A, {"v": "new"}), (B, None)]
    with pytest.raises(ApiError) as caught:
        list(api.watch(CONFIG_MAPS, namespace, before, seconds=2))
    assert caught.value.is_gone


def test_a_kind_that_is_installed_later_is_followed_then(world: World, api: Api, namespace: str) -> None:
    """Without its CRD the store is synced, empty and `absent`; objects come with the CRD, and go with it."""
    presence: list[bool] = []
    gadget = {"apiVersion": "runtime.example/v1", "kind": "Gadget", "metadata": {"name": "g"}}
    with Following(api, namespace, GADGETS, on_presence=presence.append) as following:
        assert following.store.absent
        world.kubectl("create", "-f", "-", stdin=yaml.safe_dump(GADGET_DEFINITION))
        until(lambda: is_served(api, GADGETS), "the API of gadgets")
        api.create(GADGETS, gadget, namespace)
        until(lambda: following.data() == {"g": None}, "the object")
        assert not following.store.absent
        world.kubectl("delete", "crd", "gadgets.runtime.example")
        until(lambda: following.store.absent, "its end")
        assert (following.data(), presence) == ({}, [False, True, False])


def is_served(api: Api, resource: Resource) -> bool:
    """Not `kubectl wait`, which gives up where a definition has no status yet."""
    try:
        api.list(resource, limit=1)
    except ApiError as error:
        if not (error.is_not_found or error.is_transient):
            raise
        return False
    return True


def test_a_change_that_cannot_be_taken_in_stops_nothing(api: Api, namespace: str) -> None:
    """Who is told fails: the next change is told all the same."""
    following = Following(api, namespace)
    calls: list[str] = []

    def hear(old: object, new: dict[str, dict[str, str]] | None) -> None:
        calls.append(new["metadata"]["name"] if new else "-")
        raise ValueError("a fault of ours")

    following.reflector._on_change = hear  # type: ignore[assignment]
    with following:
        for name in ("a", "b"):
            api.create(CONFIG_MAPS, config_map(name), namespace)
        until(lambda: calls == ["a", "b"], "both changes")
