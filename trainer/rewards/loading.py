"""`module:function` to the function, or one sentence that tells what stands in the way."""

import importlib
import sys
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any


class LoadError(Exception):
    """The function cannot be had. The message holds value, rule and fix; the caller puts the field's path before it."""


def load_function(spec: str) -> Callable[..., Any]:
    """Import `package.module:function`. Raises LoadError."""
    module_name, colon, attribute = spec.partition(":")
    if not (module_name and colon and attribute):
        raise LoadError(f"{spec!r} must be module:function; use for example my_rewards:brevity")
    module = _import(spec, module_name)
    try:
        function = getattr(module, attribute)
    except AttributeError:
        known = [name for name in vars(module) if not name.startswith("_")]
        near = get_close_matches(attribute, known, n=1)
        hint = f"use {module_name}:{near[0]}" if near else f"define it in {module.__file__}"
        raise LoadError(f"{spec!r}: module {module_name!r} has no {attribute!r}; {hint}") from None
    if not callable(function):
        raise LoadError(f"{spec!r} is a {type(function).__name__}, and must be a function; name a function")
    return function  # type: ignore[no-any-return]


def _import(spec: str, module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise LoadError(_raised(spec, error)) from error
        installed = ("site-packages", "/lib/python")
        own = (path for path in sys.path if Path(path).is_dir() and not any(part in path for part in installed))
        places = ", ".join(path or "." for path in own) or "sys.path"
        raise LoadError(
            f"{spec!r}: there is no module {error.name!r} in {places} nor among the installed packages; "
            "put its folder on PYTHONPATH"
        ) from None
    except (Exception, SystemExit) as error:
        raise LoadError(_raised(spec, error)) from error


def _raised(spec: str, error: BaseException) -> str:
    """Blames the last line of user code, not the import machinery below it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    if isinstance(error, SyntaxError) and error.filename:
        place = f" in {error.filename} line {error.lineno}"
    else:
        place = f" in {frames[-1].filename} line {frames[-1].lineno}" if len(frames) > 1 else ""
    return f"{spec!r}: its import raised {type(error).__name__}: {error}{place}; correct the module"
