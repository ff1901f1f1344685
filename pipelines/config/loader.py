"""One YAML file and overrides become one frozen Configuration, or one line that says what is wrong."""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from gan_core.errors import ConfigurationError
from pipelines.config.keys import (
    ARCHITECTURES,
    architecture,
    as_typed,
    check_name,
    check_names,
    without_empty_sections,
)
from pipelines.config.schema import AFTERWARDS, Configuration, ResolvedConfiguration
from pipelines.config.spaces import SPACES
from pipelines.config.tune_schema import LATER
from pipelines.config.yaml_text import as_number, parse_yaml, read_text

Settings = TypeVar("Settings", bound=Configuration)
SEARCHABLE = ("noise", "network", "algorithm")  # sections: what a candidate can differ in


def load(path: str | Path, overrides: Sequence[str] = ()) -> Configuration:
    """Read a configuration file and apply `a.b=c` overrides, whose values are YAML.

    Raises:
        ConfigurationError: If the file is missing or not YAML, a key is unknown or given twice, or
            a value has the wrong type or is out of range.
    """
    return load_text(read_text(path), path, overrides)


def load_text(text: str, path: str | Path, overrides: Sequence[str] = ()) -> Configuration:
    """The configuration of a file whose text has been read already, with overrides.

    Raises:
        ConfigurationError: As `load` does.
    """
    document = _document(text, path, overrides)
    try:
        return build(document, path)
    except ConfigurationError:
        where = _blamed(text, path, overrides)
        return build(_document(text, path, overrides), where)  # the same error, of where it comes from


def _document(text: str, path: str | Path, overrides: Sequence[str]) -> dict[str, Any]:
    document = parse_yaml(text, path)
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigurationError("not a configuration", path, f"a {type(document).__name__}", "sections with settings")
    for override in overrides:
        apply_override(document, override)
    return document


def _blamed(text: str, path: str | Path, overrides: Sequence[str]) -> object:
    """What is wrong with a configuration: its file or, of a file that is right, the override without which all is, or all."""

    def is_right(chosen: Sequence[str]) -> bool:
        try:
            build(_document(text, path, chosen))
        except ConfigurationError:
            return False
        return True

    if not overrides or not is_right(()):
        return path
    alone = (one for number, one in enumerate(overrides) if is_right([*overrides[:number], *overrides[number + 1 :]]))
    return f"--set {next(alone, ' --set '.join(overrides))}"


def build(document: Mapping[str, Any], where: object = "configuration") -> Configuration:
    """A configuration from plain data, resolved but where its seed is that of a name.

    Raises:
        ConfigurationError: If a key is unknown, or a value has the wrong type or is out of range.
    """
    document = _with_space(without_empty_sections(Configuration, document), where)
    check_names(Configuration, document, where)
    if isinstance(document.get("network"), dict):
        document = {**document, "network": {"architecture": architecture(document), **document["network"]}}
    try:
        result = _adapter().validate_json(_to_json(document, where), strict=True)
    except ValidationError as error:
        raise _readable(error, where) from None
    space = {}
    for key, distribution in result.tune.space.items():
        check_name(key, f"{where}: tune.space", [result.network.architecture])
        if key.split(".")[0] not in SEARCHABLE:
            raise ConfigurationError(
                "not searchable", f"{where}: tune.space", key, f"a setting of {', '.join(SEARCHABLE)}"
            )
        space[key] = as_typed(key, distribution, result.network.architecture)
    given = {**vars(result), "tune": dataclasses.replace(result.tune, space=space) if space else result.tune}
    return (Configuration if result.seed == "name" else ResolvedConfiguration)(**given)


def _with_space(document: Mapping[str, Any], where: object) -> Mapping[str, Any]:
    """The document with the distributions of a search space that is given by name."""
    tune = document.get("tune")
    name = tune.get("space") if isinstance(tune, Mapping) else None
    if not isinstance(tune, Mapping) or not isinstance(name, str):
        return document
    if name not in SPACES:
        raise ConfigurationError(
            "not a search space", f"{where}: tune.space", repr(name),
            f"{' or '.join(SPACES)}, or settings with their distributions",
        )  # fmt: skip
    around = build({key: section for key, section in document.items() if key != "tune"}, where)
    return {**document, "tune": {**tune, "space": SPACES[name](around)}}


def resolve(configuration: Configuration, name: str) -> ResolvedConfiguration:
    """The configuration of the run of this name: where its seed is to be the name's, a number that the name decides."""
    if isinstance(configuration, ResolvedConfiguration):
        return configuration
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    return ResolvedConfiguration(**{**vars(configuration), "seed": seed})


def override(configuration: Settings, values: Mapping[str, Any]) -> Settings:
    """The configuration with some settings replaced, each by its dotted name, and validated again.

    With another architecture come its own sizes, those by default.
    """
    document = to_plain(configuration)
    known = values.get("network.architecture", configuration.network.architecture)
    if known != configuration.network.architecture:
        document["network"] = {}  # what was set of the other one means nothing here
    for key, value in values.items():
        check_name(key, "override", [known])
        *path, last = key.split(".")
        section = document
        for part in path:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigurationError("not a section", key, f"{part} is {section!r}", "a section of settings")
        section[last] = value
    return typing.cast(Settings, build(document, ", ".join(f"{key}={value}" for key, value in values.items())))


def to_plain(configuration: Any) -> dict[str, Any]:
    """The configuration as plain data, which `build` reads back: the same for a value however it was written."""
    return typing.cast(dict[str, Any], json.loads(json.dumps(_plain(configuration))))


def _plain(value: Any) -> Any:
    """Settings as mappings. What equals its default is written as the default is, 1 or 1.0; other fractions with a dot."""
    if not dataclasses.is_dataclass(value):
        return value
    given = {field: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {field.name: _plain(field.default if value == field.default else value) for field, value in given.items()}


def identity(configuration: Configuration) -> dict[str, Any]:
    """What a run is, as plain data, for a digest: its settings without later ones that change nothing."""
    plain = to_compare(configuration)
    return {**plain, "tune": without_later(plain["tune"])}


def to_compare(configuration: Configuration) -> dict[str, Any]:
    """A run's configuration as plain data, without what only follows it."""
    return {key: value for key, value in to_plain(configuration).items() if key not in AFTERWARDS}


def without_later(tune: Mapping[str, Any]) -> dict[str, Any]:
    """A search's plain settings without later ones that change nothing: what a digest of them is made of."""
    return {key: value for key, value in tune.items() if key not in LATER or value != LATER[key]}


def to_yaml(configuration: Configuration) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(to_plain(configuration), sort_keys=False)


def first_difference(ours: Any, theirs: Any, ignore: Sequence[str] = ()) -> tuple[str, Any, Any] | None:
    """The first setting, by dotted name, in which two plain documents differ, and both values."""
    mine, other = flat(ours), flat(theirs)
    for key in sorted(mine.keys() | other.keys()):
        if key not in ignore and mine.get(key) != other.get(key):
            return key, mine.get(key), other.get(key)
    return None


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested plain data as one mapping from dotted names."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {k: v for name, item in value.items() for k, v in flat(item, f"{prefix}.{name}" if prefix else name).items()}


def digest(value: Any) -> str:
    """SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def apply_override(document: dict[str, Any], text: str) -> None:
    """Put an `a.b=c` text into plain data."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigurationError("not an override", f"--set {text}", "no '='", "section.key=value")
    # The architecture may be another one once all overrides are in: `build` is as strict as it can be.
    check_name(key, f"--set {text}", [architecture(document), *ARCHITECTURES])
    *path, last = key.split(".")
    section = document
    for part in path:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise ConfigurationError(
                "not a section", f"--set {text}", f"{part} is {section!r}", "a section of settings"
            )
    section[last] = parse_yaml(value, f"--set {text}")


@cache
def _adapter() -> TypeAdapter[Configuration]:
    return TypeAdapter(Configuration)


def _readable(error: ValidationError, where: object) -> ConfigurationError:
    first = error.errors()[0]
    # Union members appear in the location in brackets, by type name or as the architecture: keep the setting's own path.
    others = ("literal[", "int", "constrained-")
    parts = [part for part in map(str, first["loc"]) if part not in ARCHITECTURES and not part.startswith(others)]
    if first["type"] == "union_tag_invalid":
        parts.append("architecture")
    path = ".".join(parts)
    place = f"{where}: {path}" if path else where
    if first["type"] == "value_error":
        return ConfigurationError("invalid setting", where, str(first["ctx"]["error"]))
    given = first["input"]
    if first["type"] == "union_tag_invalid":
        return ConfigurationError(
            "not one of the choices", place, repr(first["ctx"]["tag"]), first["ctx"]["expected_tags"]
        )
    shown = f"the text {given!r}" if isinstance(given, str) else repr(given)
    expected = first["msg"].removeprefix("Input should be ")
    if isinstance(given, str) and (number := as_number(given)) is not None:
        expected = f"a number, without quotes: {number}"
    if first["type"] == "missing":
        expected = "one value more, or several"
    kind = "not one of the choices" if first["type"] == "literal_error" else "wrong type"
    return ConfigurationError(kind, place, shown, expected)


def _to_json(document: Any, where: object) -> str:
    try:
        return json.dumps(document, default=_refuse)
    except (ValueError, TypeError, RecursionError) as error:  # an alias of itself, a date as a key, endless nesting
        raise ConfigurationError(
            "not a configuration", where, str(error), "text, numbers, lists and sections"
        ) from error


def _refuse(value: Any) -> Any:
    raise TypeError(f"a {type(value).__name__}: {value}")
