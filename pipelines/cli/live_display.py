"""The live display of a run on a terminal: a few lines that are drawn again in place, and what is logged above them."""

import contextlib
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gan_core.errors import GanError
from pipelines.cli.terminal import size, wrapped
from pipelines.runtime import exit_codes

if TYPE_CHECKING:
    from pipelines.runs.observation import RunObserver

DRAW_SECONDS, LOOK_SECONDS, REMOTE_SECONDS = 0.25, 1.0, 5.0
WIDEST = 100  # columns
# What the lines in place say already: a training's reports and the search's scores.
PASSING = re.compile(r"(train|infer) +step \d+/|tune +(search|confirm) candidate \d+ seed \d+ step ")


class LiveDisplay:
    """Draws a run again and again below what is written above.

    The cursor stands below the lines, at a line's begin, whenever nothing is being written, and is never hidden: whoever
    ends this process, and however, leaves the terminal as it should be.
    """

    def __init__(self, observer: "RunObserver", terminal: Any = None, interval: float | None = None) -> None:
        from rich.console import Console

        self.observer, self.terminal = observer, terminal or sys.stderr
        self.console = Console(file=self.terminal, highlight=False, legacy_windows=False)
        local = observer.run.folder.local is not None
        self.interval = interval or (LOOK_SECONDS if local else REMOTE_SECONDS)
        self.seen: Any = None
        self.picture: tuple[int, bytes] | None = None
        self.looked_at, self.frame, self.lines = 0.0, 0, 0
        self.writing, self.done = threading.RLock(), threading.Event()
        self.thread = threading.Thread(target=self._draw_on, daemon=True)

    @contextlib.contextmanager
    def shown(self) -> Iterator["LiveDisplay"]:
        """Draw while the block runs, and at its end leave the last state."""
        self.thread.start()
        try:
            yield self
            self.observer.current = None  # all is done, and recorded
        finally:
            self.done.set()
            self.thread.join()
            if not exit_codes.is_ending():
                self.look()
                self.draw()

    def log(self, text: str) -> None:
        """Write lines above those in place, unless these say the same."""
        if not PASSING.match(text):
            with self.writing:
                self._replace(wrapped(text, self.terminal) + "\n", [])
                self.draw()

    def looks(self) -> Iterator[Any]:
        """What is seen of the run, until nobody works on it.

        Raises:
            GanError: If it cannot be looked at even once.
        """
        self.seen = self.observer.look()
        while self.seen.state == "running":
            yield self.seen
            time.sleep(DRAW_SECONDS)
        yield self.seen

    def look(self) -> None:
        """Look at the run, if it answers, and at its newest samples where the terminal has the colours."""
        with contextlib.suppress(GanError, OSError):
            self.seen = self.observer.look()
            steps = self.observer.pictures() if self.console.color_system == "truecolor" else []
            if steps and (self.picture is None or self.picture[0] != steps[-1]):
                self.picture = (steps[-1], self.observer.picture(steps[-1]))
        self.looked_at = time.monotonic()

    def draw(self) -> None:
        """Draw the run in place of how it was."""
        if self.seen is None:
            return
        from pipelines.reporting.live_panel import panel

        with self.writing:
            width, height = size(self.terminal)
            picture = self.picture[1] if self.picture and self.seen.state == "running" and height >= 24 else None
            with self.console.capture() as captured:
                self.console.print(panel(self.seen, self.frame, picture), width=max(20, min(width - 1, WIDEST)))
            self._replace("", captured.get().splitlines()[: max(0, height - 2)])

    def _replace(self, above: str, lines: list[str]) -> None:
        """Write text and then lines in place of the lines there are, at once."""
        up = f"\x1b[{self.lines}A" if self.lines else ""
        erase = "\x1b[J" if self.lines else ""
        with contextlib.suppress(OSError):  # a terminal that is gone
            self.terminal.write(up + erase + above + "".join(f"{line}\n" for line in lines))
            self.terminal.flush()
        self.lines = len(lines)

    def _draw_on(self) -> None:
        while not self.done.wait(DRAW_SECONDS) and not exit_codes.is_ending():
            if time.monotonic() - self.looked_at >= self.interval:
                self.look()
            self.frame += 1
            self.draw()
