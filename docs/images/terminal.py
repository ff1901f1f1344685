"""A terminal's picture of commands as they are typed: each runs in a pty, and what it writes is drawn.

.venv/bin/python docs/images/terminal.py docs/images/doctor.png "gan doctor"
"""

import fcntl
import os
import pty
import re
import shlex
import struct
import sys
import termios
from pathlib import Path

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

COLUMNS, SIZE, MARGIN = 124, 22, 28  # of a line; of a letter and around the text, in pixels
PAPER, INK, PROMPT = "#1e1e2e", "#cdd6f4", "#a6e3a1"


def recorded(command: str) -> str:
    """All that a command writes to a terminal of COLUMNS columns.

    Raises:
        SystemExit: If it does not end with 0.
    """
    process, terminal = pty.fork()
    if process == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        words = shlex.split(command)
        os.execvp(words[0], words)
    written = b""
    while True:
        try:
            block = os.read(terminal, 65536)
        except OSError:  # so a pty says that its other end is closed
            break
        if not block:
            break
        written += block
    if code := os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
        sys.exit(f"error: {command} ended with {code}:\n{written.decode()}")
    return written.decode()


def shown(written: str) -> list[str]:
    """The lines a reader sees: without colours, wrapped at COLUMNS, and without the folder the command was run in."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", written).replace(f"{Path.cwd()}/", "")
    lines = [line.rpartition("\r")[2] for line in plain.replace("\r\n", "\n").rstrip().split("\n")]
    return [line[start : start + COLUMNS] for line in lines for start in range(0, max(1, len(line)), COLUMNS)]


def draw(path: str, sessions: list[tuple[str, str]]) -> None:
    """Write a PNG of commands and what they wrote, below each other."""
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans Mono"), SIZE)
    rows = [
        row for command, written in sessions for row in [(f"$ {command}", PROMPT), *((x, INK) for x in shown(written))]
    ]
    height = round(SIZE * 1.4)
    width = round(max(font.getlength(text) for text, _ in rows))
    image = Image.new("RGB", (width + 2 * MARGIN, height * len(rows) + 2 * MARGIN), PAPER)
    pen = ImageDraw.Draw(image)
    for number, (text, colour) in enumerate(rows):
        pen.text((MARGIN, MARGIN + number * height), text, fill=colour, font=font)
    image.quantize(16).save(path, optimize=True)


if __name__ == "__main__":
    draw(sys.argv[1], [(command, recorded(command)) for command in sys.argv[2:]])
