"""A lease on a registered model, held in its tags: one process at a time moves an alias, on any number of clusters."""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gan_core.errors import RegistryError
from pipelines.registry.backend import ModelStore

# A registry's tags can be set and read, not compared and set. Lamport's bakery (CACM 17:8, 1974) needs no more:
# everyone writes a tag of their own, takes a ticket above all those there are, and waits for the lower ones.
# While a ticket is being chosen its number is 0, and others wait for it to be known.

PREFIX = "gan.lease."
TERM, POLL = 30.0, 0.1  # seconds


class LeaseLost(RegistryError):
    """Others may count this process as dead: nothing was done, and it can be tried again."""


@dataclass
class Lease:
    """A ticket in the queue for one registered model. `term` is the time after which a silent process counts as dead.

    Each `prefix` of the tags is a queue of its own: that of the aliases, or that of those who register one run.
    """

    store: ModelStore
    name: str
    term: float = TERM
    prefix: str = PREFIX

    def __post_init__(self) -> None:
        self.tag = f"{self.prefix}{uuid.uuid4().hex[:12]}"
        self.ticket, self.written = 0, time.monotonic()

    @contextlib.contextmanager
    def held(self) -> Iterator["Lease"]:
        """Hold the lease: wait for those before, remove those that died, give it back at the end.

        Raises:
            RegistryError: If it cannot be had within ten terms.
        """
        beats: dict[str, tuple[str, float]] = {}  # another's tag -> its value, and when it was first read
        end = time.monotonic() + 10 * self.term
        try:
            self._join()
            waited = False
            while before := self._before(beats):
                if time.monotonic() > end:
                    raise RegistryError("registry is busy", self.name, f"held by {before}", "to be tried again later")
                if self._age() > self.term / 3:
                    self.renew()
                waited = True
                time.sleep(min(POLL, self.term / 10))
            if waited and self._age() < self.term / 2:
                self.renew()  # a whole term from here
            yield self
        finally:
            with contextlib.suppress(RegistryError):
                self.store.delete_tag(self.name, self.tag)

    @contextlib.contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Renew the lease in the background, for work that takes longer than half a term; one that was lost stays lost."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self.term / 6) and self._age() < self.term / 2:
                before = self.written
                try:
                    self._write(self.ticket)
                except RegistryError:
                    self.written = before

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(self.term / 6)

    def renew(self) -> None:
        """Show the others that this process is alive; after too long a silence, go to the end of the queue."""
        if self._age() < self.term / 2:
            self._write(self.ticket)
        else:
            self._join()

    def check(self) -> None:
        """Refuse to go on if others may count this process as dead.

        Raises:
            LeaseLost: If the tag is gone, or was written too long ago.
        """
        if self.tag not in self._tags() or self._age() > self.term / 2:
            raise LeaseLost(
                "lease was lost", self.name, f"longer than {self.term / 2:g} s", "a registry that answers; try again"
            )

    def _age(self) -> float:
        return time.monotonic() - self.written

    def _join(self) -> None:
        while True:
            self._write(0)
            began, last = self.written, max(map(_ticket, self._tags().values()), default=0)
            self._write(1 + last)
            # Choosing took so long that others may have stopped waiting for it: choose again.
            if self.written - began < self.term / 2:
                return

    def _before(self, beats: dict[str, tuple[str, float]]) -> str:
        """Who is before this process in the queue, or nobody; whoever was silent for a term is removed."""
        now, tags = time.monotonic(), self._tags()
        if self.tag not in tags:  # counted as dead, after a pause: to the end of the queue
            self._join()
            return "others"
        for tag, value in tags.items():
            if tag == self.tag or (_ticket(value), tag) > (self.ticket, self.tag):
                continue
            # Measured on this process's clock alone: those of two clusters need not agree.
            before, since = beats.get(tag, ("", now))
            beats[tag] = value, since if before == value else now
            if before != value or now - since <= self.term:
                return str(_parsed(value).get("by", "another process"))
            self.store.delete_tag(self.name, tag)
        return ""

    def _tags(self) -> dict[str, str]:
        model = self.store.model(self.name)
        if model is None:
            raise RegistryError("no such model", self.name, "not registered", "a registered model")
        return {tag: value for tag, value in model.tags.items() if tag.startswith(self.prefix)}

    def _write(self, ticket: int) -> None:
        self.ticket, self.written = ticket, time.monotonic()
        by = f"{socket.gethostname()}:{os.getpid()}"
        value = json.dumps({"ticket": ticket, "by": by, "beat": uuid.uuid4().hex[:8]})
        self.store.set_tag(self.name, self.tag, value)


def _ticket(value: str) -> int:
    ticket = _parsed(value).get("ticket")
    return ticket if isinstance(ticket, int) else 0


def _parsed(value: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        parsed = json.loads(value)
        if isinstance(parsed, dict):
            return parsed
    return {}
