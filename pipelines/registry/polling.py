"""Poll a remote value: yield it at first and on each change, through failures."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from gan_core.errors import RegistryError

Value = TypeVar("Value")
MAX_PAUSE = 300.0  # seconds between looks at what does not answer


def ignore_failure(error: RegistryError, pause: float) -> None:
    """Report nothing."""


def changes(
    look: Callable[[], Value],
    identity: Callable[[Value], str],
    seconds: float,
    on_failure: Callable[[RegistryError, float], None] = ignore_failure,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[Value]:
    """What a look gives, at first and whenever its identity is another one, looking every `seconds`.

    After the first look, `on_failure` is called with each error and the seconds until the next look, which
    double up to five minutes.

    Raises:
        RegistryError: If the first look fails.
    """
    value, pause = look(), seconds
    yield value
    while True:
        wait(pause)
        try:
            latest = look()
        except RegistryError as error:
            pause = min(2 * pause, max(MAX_PAUSE, seconds))
            on_failure(error, pause)
            continue
        pause = seconds
        if identity(latest) != identity(value):
            value = latest
            yield value
