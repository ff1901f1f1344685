"""Safe YAML as people write it: every number is one, sections can be merged, each key stands once, no document explodes."""

import math
import os
import re
import select
import stat
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from gan_core.errors import ConfigurationError, did_you_mean

MOST_BYTES, MOST_VALUES = 2**20, 100_000  # of a document, its aliases written out
PIPE_SECONDS = 3.0
MERGE = "tag:yaml.org,2002:merge"
# YAML 1.1, which PyYAML reads, wants a dot in every fraction and a sign in every exponent.
EXPONENT = re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9_]+)[eE][-+]?[0-9]+$")


def read_text(path: str | Path) -> str:
    """The text of a file.

    Raises:
        ConfigurationError: If it cannot be read, is not text, or is larger than a configuration can be.
    """
    try:
        with _opened(path) as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) <= MOST_BYTES:
            return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        near = _files_beside(Path(path)) if isinstance(error, FileNotFoundError) else ()
        images = (
            f", which gan init {path} writes for a folder of images" if isinstance(error, IsADirectoryError) else ""
        )
        expected = f"a YAML file{images}{did_you_mean(str(path), near)}"
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError("unreadable configuration", path, reason, expected) from error
    raise ConfigurationError("unreadable configuration", path, "over 1 MiB", "a YAML file of settings")


def _opened(path: str | Path) -> BinaryIO:
    """The file, open to be read; a shell's `<(command)` is a pipe, and one that nobody writes to would be waited for.

    Raises:
        OSError: If it cannot be opened, or nothing comes.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = os.fdopen(number, "rb")
    if stat.S_ISFIFO(os.fstat(number).st_mode) and not select.select([number], [], [], PIPE_SECONDS)[0]:
        file.close()
        raise OSError(f"a pipe into which nobody has written for {PIPE_SECONDS:g} s")
    os.set_blocking(number, True)
    return file


def _files_beside(path: Path) -> list[str]:
    """The YAML files of the folder of one that is not there, named as it was."""
    folder = path.parent
    return [str(folder / each.name) for each in folder.glob("*.y*ml")] if folder.is_dir() else []


def parse_yaml(text: str, where: object) -> Any:
    """Safe YAML, with duplicate keys refused, and aliases that would not end or be too many.

    Raises:
        ConfigurationError: With line and column.
    """
    try:
        loader = _StrictLoader(text)
        loader.where = where
        node = loader.get_single_node()  # type: ignore[no-untyped-call]
        if node is None:
            return None
        if _values(node, {}) > MOST_VALUES:
            raise _too_many(where)
        return loader.construct_document(node)  # type: ignore[no-untyped-call]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigurationError("not valid YAML", place, problem, "plain YAML, each key once") from error
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        # What PyYAML's own constructors raise for 2020-13-45, 0x_, !!bool x or a thousand brackets.
        raise ConfigurationError("not valid YAML", where, str(error), "plain YAML, each key once") from error


def as_number(text: str) -> str | None:
    """How the number that a text is, in quotes or spelled otherwise, is written in YAML; None if it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return None if not math.isfinite(value) else str(int(value)) if value == int(value) else repr(value)


class _StrictLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice and too many values, and reads 1e3 as a number, a whole one."""

    where: object = None
    composed = 0  # nodes so far, of which PyYAML makes some 50,000 a second

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.composed += 1
        if self.composed > MOST_VALUES:
            raise _too_many(self.where)
        return super().compose_node(parent, index)  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == MERGE:
                continue
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float | int:
        value = float(super().construct_yaml_float(node))  # type: ignore[no-untyped-call]
        whole = "e" in node.value.lower() and math.isfinite(value) and value == int(value)
        return int(value) if whole else value


_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))  # type: ignore[no-untyped-call]
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _StrictLoader.construct_yaml_float)


def _too_many(where: object) -> ConfigurationError:
    return ConfigurationError("not a configuration", where, f"over {MOST_VALUES} values", "fewer, aliases included")


def _values(node: yaml.Node, counted: dict[int, int]) -> int:
    """How many values a node stands for once its aliases are written out; of a circle, those to where it closes."""
    if id(node) not in counted:
        counted[id(node)] = 1
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        counted[id(node)] = 1 + sum(_values(part, counted) for part in parts)
    return counted[id(node)]
