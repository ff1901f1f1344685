"""A README's transcript: `$ command` and what it answered, read, and run again as it is written."""

import contextlib
import os
import re
import secrets
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A command, and the lines that are shown of its answer."""

    command: str
    answer: tuple[str, ...]


def parse(text: str, heading: str) -> list[Entry]:
    """The entries of the blocks under a heading whose first line begins with `$ `."""
    section = text.partition(f"## {heading}\n")[2].split("\n## ")[0]
    entries: list[Entry] = []
    for block in re.findall(r"^```\n(\$ .*?)^```", section, re.DOTALL | re.MULTILINE):
        for shown in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *answer = shown.replace("\\\n", "").splitlines()
            entries.append(Entry(re.sub(r" +", " ", command), tuple(answer)))
    return entries


def masked(line: str) -> str:
    """A line without what differs from one time to the next, numbers and their widths, and as a terminal would show it.

    Where there is none, Ray puts a time and a place before each of its lines, and yet colours them.
    """
    plain = re.sub(r"\x1b\[\d*m", "", line)
    words = re.sub(r"^\S+ \S+\t\w+ \S+ -- ", "", plain).split()
    return re.sub(r"-?\d+(\.\d+)?", "N", " ".join(words))


def missing(shown: Sequence[str], answered: str) -> list[str]:
    """The lines shown that the answer does not have, in that order, numbers apart."""
    lines = iter([masked(line) for line in answered.splitlines()])
    return [line for line in shown if masked(line) not in lines]


class Shell:
    """One shell that runs command after command, so that what one exports the next has."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.mark = f"GAN_TRANSCRIPT={secrets.token_hex(8)}"
        name, _, value = self.mark.partition("=")
        self.log = folder / "answer"
        self.process = subprocess.Popen(
            ["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**environment, name: value},
        )  # fmt: skip

    def run(self, command: str) -> tuple[int, str]:
        """A command's exit code and all it said."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{{ {command}\n}} > {self.log} 2>&1 < /dev/null; echo {self.mark} $?\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith(self.mark):
                return int(line.split()[-1]), self.log.read_text()
        raise AssertionError("the shell has ended")

    def descendants(self) -> Iterator[int]:
        """All processes that were started from here and live, in whatever session: they have inherited the mark."""
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and self.mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)

    def close(self) -> None:
        """End the shell and all that was started from it: Ray's daemons are nobody's children."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self.descendants():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(3)
        self.process.communicate()
