"""The client against the real API server: what each method does there, and what its refusals become."""

import threading
from pathlib import Path

import pytest

from controller.runtime.client import Api, ApiError
from tests.controlplane.following import CONFIG_MAPS, config_map
from tests.controlplane.looking import until
from tests.controlplane.meddling import Meddler
from tests.controlplane.world import ADMIN_TOKEN, World


def test_an_object_lives_through_every_method(api: Api, namespace: str) -> None:
    """Created, applied, patched, replaced, listed with its kind, and deleted under its uid alone."""
    made = api.create(CONFIG_MAPS, config_map("a", x="1"), namespace, manager="first")
    assert made["metadata"]["managedFields"][0]["manager"] == "first"
    assert api.create(CONFIG_MAPS, config_map("dry"), namespace, dry_run=True)["metadata"]["name"] == "dry"
    api.apply(CONFIG_MAPS, config_map("a", y="2"), namespace, manager="second")
    api.patch(CONFIG_MAPS, "a", namespace, {"data": {"z": "3"}})
    found = api.get(CONFIG_MAPS, "a", namespace)
    assert found["data"] == {"x": "1", "y": "2", "z": "3"}
    api.replace(CONFIG_MAPS, {**found, "data": {"only": "this"}}, namespace)
    (listed,) = api.list(CONFIG_MAPS, namespace, field_selector="metadata.name=a")["items"]
    assert (listed["kind"], listed["data"]) == ("ConfigMap", {"only": "this"})
    with pytest.raises(ApiError) as caught:
        api.delete(CONFIG_MAPS, "a", namespace, uid="00000000-0000-0000-0000-000000000000")
    assert caught.value.is_conflict
    api.delete(CONFIG_MAPS, "a", namespace, propagation="Background", uid=made["metadata"]["uid"])
    with pytest.raises(ApiError) as caught:
        api.get(CONFIG_MAPS, "a", namespace)
    assert caught.value.is_not_found


def test_refusals_say_which_they_are(api: Api, namespace: str) -> None:
    """A name that is taken, a stale version, another manager's field and an invalid object are told apart."""
    made = api.create(CONFIG_MAPS, config_map("a", x="1"), namespace, manager="first")
    with pytest.raises(ApiError) as taken:
        api.create(CONFIG_MAPS, config_map("a"), namespace)
    assert (taken.value.already_exists, taken.value.is_conflict, taken.value.is_transient) == (True, False, False)
    api.patch(CONFIG_MAPS, "a", namespace, {"data": {"x": "2"}}, manager="first")
    with pytest.raises(ApiError) as stale:
        api.replace(CONFIG_MAPS, made, namespace)
    assert stale.value.is_conflict
    with pytest.raises(ApiError) as owned:
        api.apply(CONFIG_MAPS, config_map("a", x="3"), namespace, manager="second")
    assert owned.value.is_conflict
    assert 'conflict with "first"' in owned.value.message
    with pytest.raises(ApiError) as invalid:
        api.create(CONFIG_MAPS, config_map("No Name"), namespace)
    assert invalid.value.is_invalid


def test_pages_follow_each_other(api: Api, namespace: str) -> None:
    """A list with a limit goes on where its continue token says."""
    for name in ("a", "b", "c"):
        api.create(CONFIG_MAPS, config_map(name), namespace)
    first = api.list(CONFIG_MAPS, namespace, limit=2)
    second = api.list(CONFIG_MAPS, namespace, limit=2, resume=first["metadata"]["continue"])
    names = [item["metadata"]["name"] for page in (first, second) for item in page["items"]]
    assert names == ["a", "b", "c", "kube-root-ca.crt"]


def test_a_watch_tells_changes_until_it_is_closed_from_elsewhere(api: Api, namespace: str) -> None:
    """It begins after its resource version; `close` of another thread ends it while it waits for the server."""
    version = api.list(CONFIG_MAPS, namespace)["metadata"]["resourceVersion"]
    watch, seen = api.watch(CONFIG_MAPS, namespace, version, field_selector="metadata.name=a"), []

    def follow() -> None:
        for kind, found in watch:
            seen.append((kind, found.get("data")))
        seen.append(("END", None))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    api.create(CONFIG_MAPS, config_map("a", x="1"), namespace)
    api.patch(CONFIG_MAPS, "a", namespace, {"data": {"x": "2"}})
    api.delete(CONFIG_MAPS, "a", namespace, propagation="Background")
    api.create(CONFIG_MAPS, config_map("a"), namespace)
    until(lambda: len(seen) == 4, "four events")
    watch.close()
    thread.join(timeout=5)
    assert seen == [
        ("ADDED", {"x": "1"}),
        ("MODIFIED", {"x": "2"}),
        ("DELETED", {"x": "2"}),
        ("ADDED", None),
        ("END", None),
    ]


def test_credentials_that_are_refused_are_read_again(world: World, tmp_path: Path) -> None:
    """A token that has been replaced where it is kept is found at the next call; one that stays wrong is an error."""
    text = world.kubeconfig.read_text()
    rotated = tmp_path / "kubeconfig"
    rotated.write_text(text.replace(ADMIN_TOKEN, "of-yesterday"))
    api = Api.connect(str(rotated), "tests")
    with pytest.raises(ApiError) as caught:
        api.list(CONFIG_MAPS, "default")
    assert caught.value.status == 401
    rotated.write_text(text)
    assert api.list(CONFIG_MAPS, "default")["items"]
    api.close()


def test_a_server_that_says_nothing_is_waited_for_so_long(world: World, tmp_path: Path) -> None:
    """Every call has its time: what is not answered by then is an error without status, of which nothing is known."""
    meddler = Meddler(world, tmp_path)
    api, seen = Api.connect(str(meddler.kubeconfig), "tests", lambda *told: seen.append(told)), list[tuple[str, int]]()
    with meddler.silence(), pytest.raises(ApiError) as caught:
        api.within(0.5).list(CONFIG_MAPS, "default")
    assert (caught.value.status, caught.value.reason) == (0, "Timeout")
    meddler.refuse("POST", "configmaps", 429, "TooManyRequests", Retry_After="7")
    with pytest.raises(ApiError) as caught:
        api.create(CONFIG_MAPS, config_map("a"), "default")
    assert (caught.value.is_transient, caught.value.retry_after) == (True, 7)
    assert seen == [("GET", 0), ("POST", 429)]
    api.close()
    meddler.end()


def test_a_server_that_is_not_there_is_an_error_without_status(tmp_path: Path, world: World) -> None:
    """Nothing listens at the address: status 0, transient, and whether the server acted is unknown."""
    away = tmp_path / "kubeconfig"
    away.write_text(world.kubeconfig.read_text().replace(world.server, "https://127.0.0.1:1"))
    with pytest.raises(ApiError) as caught:
        Api.connect(str(away), "tests").get(CONFIG_MAPS, "a", "default")
    assert (caught.value.status, caught.value.is_transient) == (0, True)
