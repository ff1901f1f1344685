"""Something that changes elsewhere, looked at now and then: each change once, through failures."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from gan_core.errors import RegistryError

Seen = TypeVar("Seen")
LONGEST = 300.0  # seconds between looks at what does not answer


def ignored(error: RegistryError, pause: float) -> None:
    """Say nothing of a failure."""


def changes(
    look: Callable[[], Seen],
    identity: Callable[[Seen], str],
    seconds: float,
    trouble: Callable[[RegistryError, float], None] = ignored,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[Seen]:
    """What a look gives, at first and whenever its identity is another one, looking every `seconds`.

    After the first look, whose failure is an error, `trouble` is told of each that fails and of the
    time until the next, which doubles up to five minutes.

    Raises:
        RegistryError: If the first look fails.
    """
    seen, pause = look(), seconds
    yield seen
    while True:
        wait(pause)
        try:
            now = look()
        except RegistryError as error:
            pause = min(2 * pause, max(LONGEST, seconds))
            trouble(error, pause)
            continue
        pause = seconds
        if identity(now) != identity(seen):
            seen = now
            yield now
