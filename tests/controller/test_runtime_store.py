"""The store: what it holds, finds by index, and never goes back from."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.runtime.store import Store, key_of


def thing(name: str, version: int, **labels: str) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": name, "resourceVersion": str(version), "labels": labels}
    return {"metadata": metadata}


def by_label(found: dict[str, Any]) -> list[str]:
    return list(found["metadata"]["labels"].values())


def names(found: list[dict[str, Any]]) -> list[str]:
    return [one["metadata"]["name"] for one in found]


def test_keys_are_namespace_and_name() -> None:
    """What lies in no namespace has its name alone."""
    assert key_of(thing("a", 1)) == "ns/a"
    assert key_of({"metadata": {"name": "node"}}) == "node"


def test_an_index_follows_what_changes() -> None:
    """An object is found under what its indexer says of its newest state, and nowhere once it is gone."""
    store = Store({"label": by_label})
    store.put(thing("b", 1, x="red"))
    store.put(thing("a", 2, x="red", y="blue"))
    assert names(store.by("label", "red")) == ["a", "b"]
    store.put(thing("a", 3, y="blue"))
    assert (names(store.by("label", "red")), names(store.by("label", "blue"))) == (["b"], ["a"])
    store.remove(thing("b", 4, x="red"))
    assert store.by("label", "red") == []


def test_a_store_does_not_go_back_in_time() -> None:
    """The answer to one's own write stays, when the watch tells of older states and of itself afterwards."""
    store = Store()
    own = thing("a", 5)
    assert store.put(own) == (None, own)
    assert store.put(thing("a", 4)) is None
    assert store.put(thing("a", 5)) is None
    assert store.remove(thing("a", 3)) is None
    assert store.get("ns/a") is own
    newer = thing("a", 6)
    assert store.put(newer) == (own, newer)


def test_namespaces_are_listed_one_by_one() -> None:
    """The store has synced when each was listed, and a list takes away only what lies in its namespace."""
    store = Store(namespaces=("ns", "other"))
    there = thing("a", 5)
    there["metadata"]["namespace"] = "other"
    store.replace([thing("a", 3)], 9, "ns")
    assert not store.has_synced
    store.replace([there], 7, "other")
    assert store.has_synced
    assert store.replace([], 10, "ns") == [(thing("a", 3), None)]
    assert (store.keys(), store.get("other/a")) == (["other/a"], there)
    newer = thing("b", 8)
    newer["metadata"]["namespace"] = "other"
    assert store.put(newer) == (None, newer)


def test_what_was_deleted_does_not_come_back() -> None:
    """An own write that is put in after the watch has told of the deletion makes no ghost; a new object is taken."""
    store = Store()
    store.put(thing("a", 5))
    last = thing("a", 7)
    assert store.remove(last) == (last, None)
    assert store.put(thing("a", 6)) is None
    assert store.get("ns/a") is None
    assert store.put(thing("a", 8)) is not None
    store.replace([], 20)
    assert store.put(thing("b", 15)) is None  # made and deleted before the list


def test_a_list_tells_what_was_missed() -> None:
    """Replaced by a list: what is new, changed and gone is told; what is newer than the list stays."""
    store = Store()
    store.replace([thing("same", 1), thing("changed", 2), thing("gone", 3)], 3)
    assert store.has_synced
    own = thing("own", 12)
    store.put(own)
    changes = store.replace([thing("same", 1), thing("changed", 8), thing("new", 9)], 10)
    told = {(old and key_of(old), new and key_of(new)) for old, new in changes}
    assert told == {("ns/changed", "ns/changed"), (None, "ns/new"), ("ns/gone", None)}
    assert sorted(store.keys()) == ["ns/changed", "ns/new", "ns/own", "ns/same"]


def test_a_server_restored_from_a_backup_is_believed() -> None:
    """A list from before an earlier list: the server's history is another one, and the store takes it over."""
    store = Store()
    store.replace([thing("a", 90), thing("b", 95)], 100)
    changes = store.replace([thing("a", 40)], 50)
    assert [(old is None, new is None) for old, new in changes] == [(False, False), (False, True)]
    assert store.get("ns/a") == thing("a", 40)
    assert store.put(thing("b", 51)) is not None


def test_a_kind_that_is_gone_takes_its_objects_with_it() -> None:
    """With no version, all goes, and what comes when the kind is back is taken."""
    store = Store()
    store.replace([thing("a", 3)], 5)
    assert store.replace([], None) == [(thing("a", 3), None)]
    assert store.replace([thing("a", 9)], 9) == [(None, thing("a", 9))]


@given(st.lists(st.tuples(st.sampled_from(["write", "delete", "own", "tell", "list"]), st.sampled_from("abc"))))
@settings(max_examples=300, deadline=None)
def test_whatever_the_order_of_own_writes_and_news_it_ends_like_the_server(steps: list[tuple[str, str]]) -> None:
    """Own writes come in early, news late, lists in between: when all news is in, the store is what the server is."""
    server: dict[str, Any] = {}
    store, news, version, own = Store({"label": by_label}), list[tuple[str, dict[str, Any]]](), 0, None
    for step, name in steps:
        if step in {"write", "delete"}:
            version += 1
            old, state = server.pop(f"ns/{name}", None), thing(name, version, x=str(version % 3))
            if step == "write":
                server[f"ns/{name}"] = own = state
                news.append(("put", state))
            elif old is not None:
                news.append(("remove", state))
        elif step == "own" and own is not None:
            store.put(own)
        elif step == "tell" and news:
            how, state = news.pop(0)
            getattr(store, how)(state)
        elif step == "list":
            store.replace(server.values(), version)
            news.clear()
    for how, state in news:
        getattr(store, how)(state)
    assert {key: store.get(key) for key in sorted(store.keys())} == server
    for value in "012":
        expected = sorted(key_of(one) for one in server.values() if value in by_label(one))
        assert [key_of(one) for one in store.by("label", value)] == expected
