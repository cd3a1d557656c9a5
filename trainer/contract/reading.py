"""Reading a tree of user values into a pydantic model: every refused key as a violation, never an exception.

In: plain data in one spelling. Out: the model with defaults where a value was refused, and which paths those were.
Absent and null mean the same, `8.0` is 8, a list serves as a tuple. Refuses to know what the fields mean.
"""

import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from trainer.contract.violations import Spelling, Violation, shown

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[str | int, ...]

LISTED = 12
"""A section with more keys is not listed in an error."""


@dataclass(frozen=True, slots=True)
class Tree(Generic[Model]):
    """A read tree. `value` is None only where a required field is missing; `refused` holds dotted snake_case paths."""

    value: Model | None
    refused: frozenset[str]
    violations: tuple[Violation, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """One known key: the field's name, and what nests below it. `labels` is a map whose values cannot be null."""

    name: str
    whole: bool
    many: bool
    model: type[BaseModel] | None
    labels: bool = False


@dataclass(slots=True)
class _Reader:
    spelling: Spelling
    reasons: Mapping[str, str]
    also_known: tuple[str, ...]
    root: type[BaseModel]
    violations: list[Violation] = field(default_factory=list)


def read_tree(
    model: type[Model],
    data: Any,
    spelling: Spelling,
    *,
    reasons: Mapping[str, str] | None = None,
    also_known: Iterable[str] = (),
) -> Tree[Model]:
    """Read `data` as `model`. `reasons` explains single unknown keys by dotted path; `also_known` are suggested too."""
    reader = _Reader(spelling, reasons or {}, tuple(also_known), model)
    if data is not None and not isinstance(data, Mapping):
        message = f"{shown(data)} must be a mapping of keys to values; write `key: value` lines"
        reader.violations.append(Violation("type", spelling.path(""), data, message))
        return Tree(_built(model, {}), frozenset(model.model_fields), tuple(reader.violations))
    plain = _tidy(reader, model, data or {}, ())
    value, refused = _validate(reader, model, plain)
    return Tree(value, frozenset(refused), tuple(reader.violations))


def explain_validation_error(
    error: ValidationError, spelling: Spelling, root: type[BaseModel] | None = None
) -> list[Violation]:
    """A pydantic error in the words of the contract: rules `type`, `range`, `required` and `unknown-key`.

    With `root`, the model that was validated, keys of free mappings keep their own spelling.
    """
    faults = error.errors(include_url=False, include_context=True)
    places = [tuple(fault["loc"]) for fault in faults]
    found = []
    for fault, place in zip(faults, places, strict=True):
        # An item that was refused also makes its list "too short": only the item's own fault is told.
        if any(other[: len(place)] == place and len(other) > len(place) for other in places):
            continue
        found.append(_explain(fault, place, spelling, root))
    return found


@lru_cache(maxsize=256)
def known_keys(model: type[BaseModel], spelling: Spelling) -> Mapping[str, _Place]:
    """The keys that a section has in one spelling, in the order of the schema."""
    return {spelling.name(name): _place(name, info.annotation) for name, info in model.model_fields.items()}


def _place(name: str, annotation: Any) -> _Place:
    many, inner = False, annotation
    while (origin := typing.get_origin(inner)) is not None:
        options = [option for option in typing.get_args(inner) if option not in (type(None), Ellipsis)]
        if origin is tuple:
            many = True
        elif origin not in (types.UnionType, typing.Union, typing.Annotated):
            return _Place(name, False, many, None, labels=origin is dict and options[1:] != [JsonValue])
        inner = options[0]
    nested = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    return _Place(name, inner is int, many, nested)


def _tidy(reader: _Reader, model: type[BaseModel], data: Mapping[Any, Any], at: Location) -> dict[str, Any]:
    """Known keys by field name, nulls left out, values as pydantic's strict mode wants them."""
    keys = known_keys(model, reader.spelling)
    plain = {}
    for key, place in keys.items():
        if data.get(key) is not None:
            plain[place.name] = _tidy_value(reader, place, data[key], (*at, place.name))
    for key in sorted((key for key in data if key not in keys), key=str):
        reader.violations.append(_unknown_key(reader, keys, key, data[key], at))
    return plain


def _tidy_value(reader: _Reader, place: _Place, value: Any, at: Location) -> Any:
    if place.many and isinstance(value, list | tuple):
        single = _Place(place.name, place.whole, False, place.model)
        return tuple(_tidy_value(reader, single, item, (*at, index)) for index, item in enumerate(value))
    if place.many:
        return value
    if place.model is not None and isinstance(value, Mapping):
        return _tidy(reader, place.model, value, at)
    if place.labels and isinstance(value, Mapping):
        return {key: given for key, given in value.items() if given is not None}
    if place.whole and isinstance(value, float) and isfinite(value) and value.is_integer():
        return int(value)
    return value


def _validate(reader: _Reader, model: type[Model], plain: dict[str, Any]) -> tuple[Model | None, set[str]]:
    """Validate; drop what was refused so that its default stands in, and validate the rest."""
    try:
        return model.model_validate(plain, by_name=True, by_alias=False), set()
    except ValidationError as error:
        reader.violations += explain_validation_error(error, reader.spelling, model)
        refused = set()
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            path = _droppable(tuple(fault["loc"]))
            refused.add(".".join(path))
            _drop(plain, path)
    return _built(model, plain), refused


def _built(model: type[Model], plain: dict[str, Any]) -> Model | None:
    try:
        return model.model_validate(plain, by_name=True, by_alias=False)
    except ValidationError:
        return None


def _droppable(place: Location) -> tuple[str, ...]:
    """The field to drop: a fault inside a list or a free mapping refuses all of it."""
    path = []
    for part in place:
        if isinstance(part, int):
            break
        path.append(part)
    return tuple(path)


def _drop(plain: dict[str, Any], path: tuple[str, ...]) -> None:
    """Drop the key at `path`, or where the path leads into a value that is no mapping, that value."""
    head, *rest = path
    below = plain.get(head)
    if rest and isinstance(below, dict) and rest[0] in below:
        _drop(below, tuple(rest))
    else:
        plain.pop(head, None)


def spelled(place: Location, spelling: Spelling, root: type[BaseModel] | None = None) -> str:
    """A location as the user would write it: `spec.rewards[1].timeoutSeconds`.

    Keys that are no fields of `root`, such as the labels of a free mapping, are the user's own and stay as they are.
    """
    path, model = spelling.path(""), root
    for part in place:
        if isinstance(part, int):
            path += f"[{part}]"
            continue
        known = None if model is None else known_keys(model, spelling).get(spelling.name(part))
        name = spelling.name(part) if root is None or known is not None else part
        model = known.model if known is not None else None
        path = f"{path}.{name}" if path else name
    return path


def _unknown_key(reader: _Reader, keys: Mapping[str, _Place], key: Any, value: Any, at: Location) -> Violation:
    section = spelled(at, reader.spelling, reader.root)
    path = f"{section}.{key}" if section else str(key)
    dotted = ".".join(str(part) for part in (*at, key))
    if dotted in reader.reasons:
        return Violation("unknown-key", path, value, reader.reasons[dotted])
    known = [*keys, *(reader.also_known if not at else ())]
    near = nearest_key(str(key), known) or _elsewhere(reader, str(key))
    where = f"a key of {section}" if section else "a key of the configuration"
    listed = f"the keys here are {', '.join(known)}" if len(known) <= LISTED else "correct or remove it"
    fix = f"did you mean {near}?" if near else listed
    return Violation("unknown-key", path, value, f"{shown(key)} is not {where}; {fix}")


def nearest_key(key: str, known: Iterable[str]) -> str | None:
    """The known key that `key` was most likely meant to be, letters' case and underscores aside."""
    from difflib import get_close_matches

    plain = {name.lower().replace("_", ""): name for name in known}
    close = get_close_matches(key.lower().replace("_", "").replace("-", ""), plain, n=1, cutoff=0.7)
    return plain[close[0]] if close else None


def _elsewhere(reader: _Reader, key: str) -> str | None:
    """The full path of a key that exists, but in another section."""
    paths = schema_paths(reader.root)
    plain = key.lower().replace("_", "")
    for path in paths:
        if path.rpartition(".")[2].replace("_", "") == plain and "[" not in path:
            return reader.spelling.path(path)
    return None


@lru_cache(maxsize=16)
def schema_paths(model: type[BaseModel]) -> Mapping[str, int]:
    """Every dotted snake_case path of a tree with its rank, in the order in which violations are told."""
    ranks: dict[str, int] = {}

    def walk(section: type[BaseModel], at: str) -> None:
        for name, info in section.model_fields.items():
            path = f"{at}.{name}" if at else name
            ranks[path] = len(ranks)
            nested = _place(name, info.annotation).model
            if nested is not None:
                walk(nested, path)

    walk(model, "")
    return ranks


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping",
    "mapping": "a mapping",
}


def _explain(fault: Any, place: Location, spelling: Spelling, root: type[BaseModel] | None) -> Violation:
    kind, value, context = fault["type"], fault["input"], fault.get("ctx", {})
    if place and place[-1] == "[key]":
        place = place[:-2]
    path = spelled(place, spelling, root)
    if kind == "missing":
        return Violation("required", path, None, "is required; give a value")
    if kind == "extra_forbidden":
        return Violation("unknown-key", path, value, "is not a known key; remove it")
    base = kind.removesuffix("_type").removesuffix("_from_float")
    if base in _KINDS or kind in ("string_unicode", "int_parsing_size"):
        return Violation("type", path, value, _type_message(_KINDS.get(base, "text"), value))
    if kind == "literal_error" and not isinstance(value, str):
        return Violation("type", path, value, f"{shown(value)} must be {_one_of(context)}; use one of these words")
    return Violation("range", path, value, _range_message(kind, value, context, fault["msg"]))


def _type_message(wanted: str, value: Any) -> str:
    if wanted == "a whole number" and isinstance(value, float):
        return f"{shown(value)} must be a whole number; leave the fraction out"
    got = _got(value)
    numeric = wanted in ("a whole number", "a number") and isinstance(value, str)
    fix = "write it without quotes" if numeric and _reads_as_number(value) else f"use {wanted}"
    if wanted == "text" and not isinstance(value, Mapping | list | tuple):
        fix = "put it in quotes"
    return f"{shown(value)} must be {wanted}, not {got}; {fix}"


def _reads_as_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


def _got(value: Any) -> str:
    names = (
        (bool, "a boolean"),
        (int | float, "a number"),
        (str, "text"),
        (Mapping, "a mapping"),
        (list | tuple, "a list"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), "null" if value is None else "this")


def _one_of(context: Mapping[str, Any]) -> str:
    return "one of " + str(context.get("expected", "")).replace("'", "").replace(" or ", ", ")


def _range_message(kind: str, value: Any, context: Mapping[str, Any], message: str) -> str:
    limit = next((context[name] for name in ("gt", "ge", "lt", "le") if name in context), None)
    match kind:
        case "literal_error":
            words = str(context.get("expected", "")).replace("'", "").replace(" or ", ", ").split(", ")
            near = nearest_key(str(value), words)
            return f"{shown(value)} must be {_one_of(context)}; " + (
                f"did you mean {near}?" if near else "use one of them"
            )
        case "greater_than" | "greater_than_equal":
            return _bound(value, limit, "at least" if kind.endswith("equal") else "above", 1)
        case "less_than" | "less_than_equal":
            return _bound(value, limit, "at most" if kind.endswith("equal") else "below", -1)
        case "finite_number":
            return f"{shown(value)} must be finite; use a number"
        case "string_too_short":
            return f"{shown(value)} must not be empty; write some text, or leave the key out"
        case "too_short":
            return f"{shown(value)} must have at least {context.get('min_length')} entry; add one, or leave the key out"
        case "string_too_long" | "too_long":
            unit = "characters" if kind.startswith("string") else "entries"
            return f"{shown(value)} must have at most {context.get('max_length')} {unit}; shorten it"
        case "string_pattern_mismatch":
            return f"{shown(value)} must match {context.get('pattern')}; change it"
    return f"{shown(value)} is refused: {message.removeprefix('Value error, ')}; change it"


def _bound(value: Any, limit: Any, words: str, inward: int) -> str:
    """An open bound of whole numbers is told as the closed one, which has a nearest value."""
    if isinstance(value, int) and isinstance(limit, int):
        limit += inward * (words in ("above", "below"))
        words = "at least" if inward > 0 else "at most"
    told = f"{words} {limit:g}" if isinstance(limit, float) else f"{words} {limit}"
    fix = f"use {limit}" if words.startswith("at") else f"use a number {told}"
    return f"{shown(value)} must be {told}; {fix}"
