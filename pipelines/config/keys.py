"""Settings by their dotted names: which there are, and what a name that is none may have meant."""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gan_core import networks
from gan_core.errors import ConfigurationError
from pipelines.config.schema import Configuration

ARCHITECTURES = tuple(networks.ARCHITECTURES)
MOST_NAMES = 3  # that are proposed


def architecture(document: Mapping[str, Any]) -> Any:
    """What a document says of `network.architecture`, or its default."""
    network = document.get("network")
    return network.get("architecture", ARCHITECTURES[0]) if isinstance(network, Mapping) else ARCHITECTURES[0]


def check_name(name: str, where: object, architectures: Sequence[Any] = ARCHITECTURES) -> None:
    """Refuse a dotted name that is a setting of none of these architectures, as the first of them would.

    Raises:
        ConfigurationError: With the names there are, and the nearest.
    """
    refusals = []
    for known in architectures:
        document: Any = {}
        for part in reversed(name.split(".")):
            document = {part: document}
        if name.startswith("network."):
            document["network"].setdefault("architecture", known)
        try:
            check_names(Configuration, document, where)
            return
        except ConfigurationError as refusal:
            refusals.append(refusal)
    raise refusals[0]


def check_names(kind: Any, document: Any, where: object, prefix: str = "") -> None:
    """Walk the dataclasses beside the document: the first key without a field is the error.

    Raises:
        ConfigurationError: With the names there are, and the nearest.
    """
    if not dataclasses.is_dataclass(kind) or not isinstance(document, Mapping):
        return
    hints = typing.get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind)]
    for key, value in document.items():
        if key not in fields:
            near = near_names(f"{prefix}{key}", [f"{prefix}{field}" for field in fields])
            expected = f"one of {', '.join(fields)}" + (f"; did you mean {' or '.join(near)}?" if near else "")
            raise ConfigurationError("unknown setting", where, f"{prefix}{key}", expected)
        check_names(_section_of(hints[key], value), value, where, f"{prefix}{key}.")


def near_names(name: str, here: Sequence[str] = ()) -> list[str]:
    """Full names of settings that a name may have meant: the same last part, a near one `here`, a section's, or parts that contain it."""
    known, last = sorted(names(), key=lambda other: other.startswith("extension.")), name.rpartition(".")[2]
    parts = {other: other.rpartition(".")[2] for other in known}
    return (
        [other for other in known if parts[other] == last and not other.startswith("extension.")]
        or difflib.get_close_matches(name, here, n=1)
        or [other for other in known if other.startswith(f"{name}.")]
        or [other for other in known if last and parts[other].endswith(last)]
        or [other for other in known if last and last in parts[other]]
        or difflib.get_close_matches(name, known, n=1)
    )[:MOST_NAMES]


def names() -> list[str]:
    """Every setting's full name, with each architecture's."""
    found: dict[str, None] = {}
    for known in ARCHITECTURES:
        found |= dict.fromkeys(_names(Configuration, {"architecture": known}))
    return list(found)


def _names(kind: Any, document: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        section = _section_of(hints[field.name], document)
        if section is None:
            yield f"{prefix}{field.name}"
        else:
            yield from _names(section, document, f"{prefix}{field.name}.")


def without_empty_sections(kind: Any, document: Any) -> Any:
    """The document without sections of which nothing is left, all their lines being comments: they are their defaults."""
    if not dataclasses.is_dataclass(kind) or not isinstance(document, Mapping):
        return document
    hints = typing.get_type_hints(kind)
    kept = {}
    for key, value in document.items():
        section = _section_of(hints[key], value) if key in hints else None
        if value is not None or section is None or type(None) in typing.get_args(hints[key]):
            kept[key] = without_empty_sections(section, value)
    return kept


def type_of(name: str, architecture: str) -> Any:
    """The type of the setting of this dotted name, which there is with this architecture; any, of a part of a setting."""
    hint: Any = Configuration
    for part in name.split("."):
        section = _section_of(hint, {"architecture": architecture})
        hint = Any if section is None else typing.get_type_hints(section)[part]
    return hint


def as_typed(name: str, distribution: Mapping[str, list[Any]], architecture: str) -> dict[str, list[Any]]:
    """A setting's search distribution, each value as the setting itself is read: 0 of a fraction is 0.0."""
    wanted = type_of(name, architecture)
    return {
        kind: [_as_typed(value, float if "uniform" in kind else wanted) for value in values]
        for kind, values in distribution.items()
    }


def _as_typed(value: Any, kind: Any) -> Any:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        read = json.loads(json.dumps(adapter.validate_json(json.dumps(value), strict=True)))
    except ValidationError:
        return value  # a candidate that has it is refused
    return read if read == value else value


def _section_of(hint: Any, document: Any) -> Any:
    """The dataclass a section is read as, if it is one: of several architectures, the document's own."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    sections: list[Any] = [option for option in options if dataclasses.is_dataclass(option)]
    if len(sections) < 2 or not isinstance(document, Mapping):
        return next(iter(sections), None)
    wanted = document.get("architecture", ARCHITECTURES[0])
    return next((section for section in sections if section.architecture == wanted), None)
