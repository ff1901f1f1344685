"""References to registered versions: NAME@ALIAS or NAME/VERSION, in names that any registry takes."""

import re

from gan_core.errors import RegistryError
from pipelines.names import MODEL_NAME

VERSION = re.compile(r"[1-9][0-9]{0,8}")
RESERVED = re.compile(r"latest|v[0-9]+", re.IGNORECASE)  # aliases that MLflow reads as its own words


def is_model_reference(reference: str) -> bool:
    """Whether this is meant as NAME@ALIAS or NAME/VERSION: a run's name has neither sign."""
    return "@" in reference or "/" in reference


def parse_reference(reference: str) -> tuple[str, str | None, int | None]:
    """The name, and the alias or the version that is meant; neither, if it is no number.

    Raises:
        RegistryError: If the name or the alias cannot be one.
    """
    name, separator, which = next(
        (reference.partition(sign) for sign in "@/" if sign in reference), (reference, "", "")
    )
    if separator == "@":
        return checked_name(name), checked_alias(which), None
    return checked_name(name), None, int(which) if VERSION.fullmatch(which) else None


def checked_name(name: str) -> str:
    """A model name that any registry takes.

    Raises:
        RegistryError: If it is not one.
    """
    if not MODEL_NAME.fullmatch(name):
        raise RegistryError(
            "not a model name",
            repr(name)[:80],
            "characters or a length a registry may refuse",
            "1 to 128 of A-Z a-z 0-9 _ . -",
        )
    return name


def checked_alias(alias: str) -> str:
    """An alias that is no word of MLflow's own.

    Raises:
        RegistryError: If it is not one: `latest` and `v3` are reserved.
    """
    if not MODEL_NAME.fullmatch(alias) or RESERVED.fullmatch(alias):
        raise RegistryError(
            "not an alias", repr(alias)[:80], "reserved, or not a name", "champion, challenger, or NAME/VERSION"
        )
    return alias
