"""Errors that say what was given, what is allowed and what to do."""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any


class GanError(Exception):
    """A fault a user can mend, in one line: what (where): got; expected.

    `exit_code` is the status the `gan` command ends with; `result` is what it has found all the same.
    """

    exit_code = 1
    result: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, what: str, where: object, got: str, expected: str = "") -> None:
        text = f"{what} ({where}): {got}" + (f"; expected {expected}" if expected else "")
        super().__init__(visible(" ".join(text.splitlines())))
        self._parts = (what, where, got, expected)

    def __reduce__(self) -> tuple[type["GanError"], tuple[str, object, str, str]]:
        return type(self), self._parts  # so that it survives the way back from a Ray worker


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest of the names there are, as the end of an error's line; empty if none is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {visible(close[0])}?" if close else ""


def first_line(error: BaseException) -> str:
    """The first line of what a library's error says, or its kind where it says nothing."""
    return _lines(error)[0]


def last_line(error: BaseException) -> str:
    """The last line of what a library's error says, or its kind where it says nothing."""
    return _lines(error)[-1]


def _lines(error: BaseException) -> list[str]:
    return str(error).strip().splitlines() or [type(error).__name__]


def visible(text: object) -> str:
    """A text of others on one line: what a terminal would obey (escape codes, newlines, bidirectional marks) as `\\x1b`."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in str(text))


class ConfigurationError(GanError):
    """A setting or an argument that cannot be used."""

    exit_code = 2


class DataError(GanError):
    """A data set, or an array of samples, that cannot be used."""

    exit_code = 3


class CheckpointError(GanError):
    """Weights that are missing, damaged or of another model; storage that refuses."""

    exit_code = 4


class RegistryError(GanError):
    """A model registry that cannot be reached, or does not hold what was asked for."""

    exit_code = 5


class Diverged(GanError):
    """A training whose losses stopped being finite, or that failed while another candidate of its search did better."""

    exit_code = 6


class Collapsed(GanError):
    """A model that the promotion gate refused for what it draws."""

    exit_code = 6
