"""Strict parsing of untrusted JSON into settings: every key known, every value of its field's type, or refused."""

import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

Settings = TypeVar("Settings")


def read_settings(kind: type[Settings], document: Mapping[str, Any]) -> Settings:
    """The dataclass with these values (lists become tuples); keys that are not there have their defaults.

    Raises:
        ValueError, TypeError: If a key is unknown, or a value is not of its field's type or out of its range.
    """
    hints = typing.get_type_hints(kind)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
    for key, value in values.items():
        if key not in hints:
            raise ValueError(f"unknown key {key}")
        if not _fits(value, hints[key]):
            raise ValueError(f"{key} {value!r}")
    return kind(**values)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type as the settings name them; a whole number is a fraction too, a truth value is none."""
    options = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return any(_fits(value, option) for option in options)
    if typing.get_origin(hint) is typing.Literal:
        return isinstance(value, str) and value in options
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(item, options[0]) for item in value)
    return type(value) in ((int, float) if hint is float else (hint,))
