"""The code that a run is made by: a digest of both packages' sources, and the commit of their checkout."""

import hashlib
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import gan_core


@cache
def digest() -> str:
    """SHA-256 over the sources of both packages: a fixed bug makes a new run."""
    hasher = hashlib.sha256(version("torch").encode())
    for root in (Path(str(gan_core.__file__)).parent, Path(__file__).parents[1]):
        for path in sorted(root.rglob("*.py")):
            hasher.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return hasher.hexdigest()


def shown(commit: str) -> str:
    """A commit for people: short, and still marked where it was changed."""
    if commit == "unknown":
        return "an installed package"
    number, _, changed = commit.partition("-")
    return f"commit {number[:12]}{'-' * bool(changed)}{changed}"


def commit() -> str:
    """The commit of the checkout this runs from, `-dirty` if it was changed; `unknown` elsewhere."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"
