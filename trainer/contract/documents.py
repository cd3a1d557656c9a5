"""Reading YAML as the API server would: text in, one `Document` per document out, with every fault placed by line.

Scalars follow YAML 1.1 as kubectl reads it: `yes` and `on` are booleans, `1e-6` is a number, dates and `1:30` are text.
Duplicate keys, aliases that loop or explode, and bad syntax are violations. Never raises; refuses to know any schema.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import yaml

from trainer.contract.violations import Violation, shown

MAX_NODES = 200_000
"""Nodes of one document after its aliases are unfolded: a job has hundreds, a bomb has billions."""
MAX_DEPTH = 64

_FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_SCALARS = (
    # https://github.com/kubernetes-sigs/yaml/blob/master/goyaml.v2/resolve.go
    ("bool", "yYnNtTfFoO", r"[yY]|yes|Yes|YES|[nN]|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF"),
    ("int", "-+0123456789", r"[-+]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|0[0-7_]*|[1-9][0-9_]*)"),
    ("float", "-+0123456789.", r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"),
    ("float", "-+.", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"),
    ("merge", "<", r"<<"),
    ("null", "~nN", r"~|null|Null|NULL"),
)


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: plain data, or None where it is empty or has violations."""

    data: Any
    violations: tuple[Violation, ...]
    index: int


class _Loader(_FAST):  # type: ignore[misc]
    """The safe loader with the scalars above in place of PyYAML's own."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {"": [(_TAG + "null", re.compile(""))]}


def _bool(loader: Any, node: yaml.ScalarNode) -> bool:
    return node.value.lower() in ("y", "yes", "true", "on")


def _int(loader: Any, node: yaml.ScalarNode) -> int | str:
    plain = node.value.replace("_", "")
    for base in (0, 8):
        try:
            return int(plain, base)
        except ValueError:
            continue
    return str(node.value)


def _install_scalars() -> None:
    for tag, first, pattern in _SCALARS:
        entry = (_TAG + tag, re.compile(f"(?:{pattern})$"))
        for letter in first:
            _Loader.yaml_implicit_resolvers.setdefault(letter, []).append(entry)
    _Loader.add_constructor(_TAG + "bool", _bool)
    _Loader.add_constructor(_TAG + "int", _int)


_install_scalars()


class _Dumper(yaml.SafeDumper):
    """Quotes every text that either PyYAML or the loader above would read as something else."""


_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_Loader.yaml_implicit_resolvers.get(first, [])]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def dump_document(data: Any) -> str:
    """Plain data as YAML in ASCII, keys in their order; `load_documents` gives it back."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=120)


def load_documents(text: str, source: str) -> list[Document]:
    """Every document of a YAML text, in order; after bad syntax nothing more can be read. `source` names the file."""
    documents: list[Document] = []
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        return [Document(None, (_yaml_violation(error, source),), 0)]
    try:
        while loader.check_node():
            documents.append(_document(loader, loader.get_node(), source, len(documents)))
    except (yaml.YAMLError, RecursionError) as error:
        documents.append(Document(None, (_yaml_violation(error, source),), len(documents)))
    finally:
        loader.dispose()
    return documents


def _document(loader: Any, node: yaml.Node, source: str, index: int) -> Document:
    violations = tuple(_structure_faults(node, source))
    if violations:
        return Document(None, violations, index)
    try:
        return Document(loader.construct_document(node), (), index)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return Document(None, (_yaml_violation(error, source),), index)


def _yaml_violation(error: Exception, source: str) -> Violation:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    what = getattr(error, "problem", None) or str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, yaml.reader.ReaderError):
        what = f"character U+{error.character:04X} is not allowed" if isinstance(error.character, int) else error.reason
    place = _place(source, mark) if mark else source
    return Violation("yaml", "", None, f"{place}: not YAML: {what}; correct the file at this place")


def _place(source: str, mark: Any) -> str:
    return f"{source}:{mark.line + 1}:{mark.column + 1}"


def _structure_faults(root: yaml.Node, source: str) -> Iterator[Violation]:
    sizes: dict[int, int] = {}
    try:
        if _size(root, sizes, 0) > MAX_NODES:
            yield Violation(
                "yaml", "", None, f"{source}: its aliases unfold to more than {MAX_NODES} values; spell them out"
            )
            return
    except _TangledError as fault:
        yield Violation("yaml", "", None, f"{_place(source, fault.mark)}: {fault}; spell the values out")
        return
    yield from _key_faults(root, "", source, set())


class _TangledError(Exception):
    def __init__(self, message: str, mark: Any) -> None:
        super().__init__(message)
        self.mark = mark


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _size(node: yaml.Node, sizes: dict[int, int], depth: int) -> int:
    """Nodes below, aliases unfolded; -1 marks a node that is still being counted: an alias to its own parent."""
    known = sizes.get(id(node))
    if known == -1:
        raise _TangledError("an alias stands inside the value that it names", node.start_mark)
    if depth > MAX_DEPTH:
        raise _TangledError(f"nested more than {MAX_DEPTH} levels deep", node.start_mark)
    if known is None:
        sizes[id(node)] = -1
        known = sizes[id(node)] = 1 + sum(_size(child, sizes, depth + 1) for child in _children(node))
    return known


def _key_faults(node: yaml.Node, path: str, source: str, seen: set[int]) -> Iterator[Violation]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _key_faults(child, f"{path}[{index}]", source, seen)
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            below = f"{path}.{name}" if path else name
            if fault := _key_fault(key, name, below, source, first):
                yield fault
            yield from _key_faults(value, below, source, seen)


def _key_fault(key: yaml.Node, name: str, path: str, source: str, first: dict[str, yaml.Node]) -> Violation | None:
    """What is wrong with one key; a key that is a number or a boolean is text from here on, as in JSON."""
    place = _place(source, key.start_mark)
    if not isinstance(key, yaml.ScalarNode):
        return Violation("yaml", path, None, f"{place}: a key must be text, not a list or a mapping; quote it")
    if key.tag == _TAG + "merge":
        return None
    key.tag = _TAG + "str"
    if name not in first:
        first[name] = key
        return None
    line = first[name].start_mark.line + 1
    return Violation(
        "duplicate-key", path, name, f"{place}: {shown(name)} stands on line {line} already; keep one of them"
    )
