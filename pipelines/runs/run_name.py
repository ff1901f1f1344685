"""A run's name: one folder everywhere, given by hand or made of a configuration file's name."""

import re
import unicodedata

from gan_core.errors import ConfigurationError

RUN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]{0,127}")


def slug(stem: str) -> str:
    """What a run can be called of a configuration file's name, which may have any letters; `run` if there are none."""
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.=]+", "-", plain).strip("-.=")[:100] or "run"


def checked_run_name(name: str) -> str:
    """A name that is one folder everywhere.

    Raises:
        ConfigurationError: If it is not.
    """
    if not RUN_NAME.fullmatch(name):
        raise ConfigurationError(
            "not a run name", "--name", repr(name)[:80], "1 to 128 of A-Z a-z 0-9 _ . = -, not starting with . = or -"
        )
    return name
