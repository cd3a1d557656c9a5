"""What was last seen of a kind of objects, with indexes. A reflector fills it, reconciles read it.

Objects are shared: whoever reads one must not change it. A store never goes back in time: what is older than what it
holds is ignored, so that the answer to one's own write may be put in (`put`) before the watch tells of it.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Json = dict[str, Any]
Indexer = Callable[[Json], Iterable[str]]
Change = tuple[Json | None, Json | None]
DELETIONS_REMEMBERED = 4096


def key_of(found: Mapping[str, Any]) -> str:
    """`namespace/name`, or `name` for what lies in no namespace."""
    metadata = found["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else metadata["name"]


def version_of(found: Mapping[str, Any]) -> int:
    """The place of this state in the server's order of writes; 0 where it has none."""
    text = found["metadata"].get("resourceVersion", "")
    return int(text) if text.isdigit() else 0


class Store:
    """`indexers` say, per index, which values an object is found under (`by`).

    With `namespaces` each of them is listed by itself; without, one list tells all.
    """

    def __init__(self, indexers: Mapping[str, Indexer] | None = None, namespaces: Sequence[str] = ()) -> None:
        self._parts: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._indexers = dict(indexers or {})
        self._lock = threading.Lock()
        self._objects: dict[str, Json] = {}
        self._indexes: dict[str, dict[str, set[str]]] = {name: {} for name in self._indexers}
        self._deleted: OrderedDict[str, int] = OrderedDict()
        self._listed_at: dict[str | None, int] = {}
        self._synced = threading.Event()
        self.absent = False  # whether the server lacks the kind

    # --- reading

    def get(self, key: str) -> Json | None:
        with self._lock:
            return self._objects.get(key)

    def by(self, index: str, value: str) -> list[Json]:
        """In the order of their keys."""
        with self._lock:
            return [self._objects[key] for key in sorted(self._indexes[index].get(value, ()))]

    def keys(self) -> list[str]:
        with self._lock:
            return list(self._objects)

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def has_synced(self) -> bool:
        """Whether the first lists are in: what is not here by then does not exist."""
        return self._synced.is_set()

    def wait_synced(self, seconds: float | None = None) -> bool:
        return self._synced.wait(seconds)

    # --- writing

    def put(self, found: Json) -> Change | None:
        """What has changed, or None where the store has this state or a newer one."""
        key, version = key_of(found), version_of(found)
        with self._lock:
            known = key in self._objects
            listed_at = 0 if known else self._listed_at.get(self._part(found["metadata"].get("namespace")), 0)
            if 0 < version <= max(self._newest(key), listed_at):
                return None
            return self._set(key, found)

    def remove(self, found: Json) -> Change | None:
        """`found` is the last state of what was deleted; None where that was not here, or a newer one is."""
        key, version = key_of(found), version_of(found)
        with self._lock:
            old = self._objects.get(key)
            if old is not None and version_of(old) > version > 0:
                return None
            self._remember_deletion(key, version)
            return None if old is None else self._unset(key, found)

    def replace(self, listed: Iterable[Json], version: int | None, namespace: str | None = None) -> list[Change]:
        """Take over a list that the server made at `version`; what is newer here than that stays.

        `namespace` is that of the list, where each is listed by itself: others keep what they have.

        `version` None: the server lacks the kind, and all is gone. A version below that of an earlier list: the server
        was restored from a backup, and only what it lists now is true.
        """
        found = {key_of(one): one for one in listed}
        with self._lock:
            part = self._part(namespace)
            anew = version is None or version < self._listed_at.get(part, 0)
            self._listed_at[part] = version or 0
            if anew:
                self._deleted.clear()
            changes = [
                self._set(key, one)
                for key, one in found.items()
                if (anew and one != self._objects.get(key)) or not 0 < version_of(one) <= self._newest(key)
            ]
            for key in [key for key in self._objects if key not in found and self._part_of(key) == part]:
                last = self._objects[key]
                if anew or version_of(last) <= self._listed_at[part]:
                    self._remember_deletion(key, self._listed_at[part])
                    changes.append(self._unset(key, last))
            if self._listed_at.keys() >= set(self._parts):
                self._synced.set()
        return changes

    def _part(self, namespace: str | None) -> str | None:
        return namespace if len(self._parts) > 1 else self._parts[0]

    def _part_of(self, key: str) -> str | None:
        return self._part(key.rpartition("/")[0] or None)

    def _newest(self, key: str) -> int:
        old = self._objects.get(key)
        return version_of(old) if old else self._deleted.get(key, 0)

    def _set(self, key: str, new: Json) -> Change:
        old = self._objects.get(key)
        self._index(key, old, new)
        self._objects[key] = new
        self._deleted.pop(key, None)
        return old, new

    def _unset(self, key: str, last: Json) -> Change:
        self._index(key, self._objects.pop(key), None)
        return last, None

    def _remember_deletion(self, key: str, version: int) -> None:
        self._deleted[key] = version
        self._deleted.move_to_end(key)
        if len(self._deleted) > DELETIONS_REMEMBERED:
            self._deleted.popitem(last=False)

    def _index(self, key: str, old: Json | None, new: Json | None) -> None:
        for name, values in self._indexers.items():
            index = self._indexes[name]
            for value in set(values(old)) if old else ():
                index[value].discard(key)
                if not index[value]:
                    del index[value]
            for value in set(values(new)) if new else ():
                index.setdefault(value, set()).add(key)
