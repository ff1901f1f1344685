"""What is installed of what ours asks for, seen with the standard library alone, and the extra that has what is missing."""

import operator
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from gan_core.errors import ConfigurationError

PACKAGE = "adversarial-nets-on-ray"
OURS = ("gan_core", "pipelines", "cluster")
# As a wheel's metadata have it: name[extras]versions; extra == 'ours'
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[^]]*])?\s*([^;]*?)\s*(?:;\s*extra == [\'\"](\w+)[\'\"])?")
COMPARISONS = {">=": operator.ge, "<": operator.lt, "==": operator.eq}  # all that ours uses


@dataclass(frozen=True)
class Requirement:
    """A package that ours asks for, the versions it allows, and the extra that asks."""

    name: str
    versions: str
    extra: str | None

    def allows(self, version: str) -> bool:
        """Whether this version is one of those."""
        return allows(self.versions, version)


def requirements(*extras: str) -> Iterator[Requirement]:
    """What the core and these extras ask for."""
    for text in metadata.requires(PACKAGE) or []:
        match = REQUIREMENT.fullmatch(text)
        if match is not None and match[3] in (None, *extras):
            yield Requirement(match[1], match[2], match[3])


def allows(versions: str, version: str) -> bool:
    """Whether a version is one of those, such as `>=2.60,<2.61`, by its release alone."""
    for bound in filter(None, versions.replace(" ", "").split(",")):
        sign = next(sign for sign in COMPARISONS if bound.startswith(sign))
        if not COMPARISONS[sign](_release(version), _release(bound.removeprefix(sign))):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in re.findall(r"\d+", re.match(r"[\d.]*", version)[0])]  # type: ignore[index]
    while numbers and numbers[-1] == 0:  # 2.60 is 2.60.0
        numbers.pop()
    return tuple(numbers)


def remedy(extra: str = "pipelines") -> str:
    """What to do to have an extra."""
    return f"pip install '{PACKAGE}[{extra}]', or make setup in a checkout"


def missing(error: ModuleNotFoundError, extra: str = "pipelines") -> ConfigurationError | None:
    """What an import of somebody else's module says that is not installed; None if the module is ours or Python's."""
    module = (error.name or "").partition(".")[0]
    if not module or module in OURS or module in sys.stdlib_module_names:
        return None
    return not_installed(module, extra)


def not_installed(what: str, extra: str) -> ConfigurationError:
    """What a command says that lacks something of an extra."""
    return ConfigurationError("not installed", what, f"it comes with the extra {extra}", remedy(extra))
