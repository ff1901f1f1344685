"""A run as it goes on, as a few lines of a terminal: stages with their time, candidates, training, samples."""

import io
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipelines.runs.observation import Observation, StageProgress

NAMES = {
    "tune": "search", "train": "training", "infer": "encoder",
    "evaluate": "scores", "register": "registry", "report": "page",
}  # fmt: skip
STARTS = {"tune": "Ray and its trials start", "train": "workers start", "infer": "a worker starts"}
TURNING, BAR, SAMPLES, GAP = "⠋⠙⠸⠴⠦⠇", 18, 16, 1
TILE = 14  # pixels of a sample's side, at most: seven lines


def panel(seen: Observation, frame: int = 0, picture: bytes | None = None) -> RenderableType:
    """A run's lines; `frame` turns the sign of the running stage, `picture` is the newest of its samples (PNG)."""
    heading = Table.grid(expand=True, padding=(0, 1))
    heading.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    heading.add_column(no_wrap=True, justify="right")
    heading.add_row(Text(seen.run, style="bold"), Text(_times(seen), style="bold" if seen.seconds_left else ""))
    rows = Table.grid(expand=True, padding=(0, 2, 0, 0))
    for _ in range(2):
        rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True, justify="right", min_width=5)
    rows.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for stage in seen.stages:
        mark, style = {"done": ("✓", "green"), "waiting": ("·", "dim")}.get(stage.state, ("", "cyan"))
        sign = Text(mark or TURNING[frame % len(TURNING)], style=style)
        name = Text(NAMES[stage.name], style="dim" if stage.state == "waiting" else "bold" * (not mark))
        first, *more = _details(stage, seen) or [""]
        rows.add_row(sign, name, Text(clock(stage.seconds), style="dim" * bool(mark)), first)
        for line in more:
            rows.add_row("", "", "", line)
    return Group(Text(""), heading, rows, *([_Thumbnails(picture)] if picture else []))


def clock(seconds: float | None) -> str:
    """A time as a clock shows it: 0:07, 12:30, 3:04:05."""
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _times(seen: Observation) -> str:
    if seen.state != "running":
        return f"{seen.state}, {clock(seen.seconds)}"
    left = "" if seen.seconds_left is None else f", about {clock(seen.seconds_left)} left"
    return f"{clock(seen.seconds)}{left}"


def _details(stage: StageProgress, seen: Observation) -> list[RenderableType]:
    """What there is to say of a stage, in lines."""
    record = seen.records.get(stage.name, {})
    if stage.state == "waiting":
        return []
    if stage.name == "tune":
        return _search(seen, record, running=stage.state == "running")
    if stage.state == "running":
        return _training(stage.name, seen) if stage.name in STARTS else []
    if stage.name == "train":
        return [Text(f"{record['step']:,} steps on {record['device']}")]
    if stage.name == "evaluate":
        score = f"{record['log_likelihood']:.1f} ± {record['standard_error']:.1f} nats"
        return [Text.assemble((score, "bold"), f", coverage {record['coverage']:.2f}")]
    if stage.name == "register":
        return [Text(f"{record['model']}/{record['version']} is {record['alias']}")]
    return []


def _search(seen: Observation, record: Mapping[str, Any], running: bool) -> list[RenderableType]:
    """How many candidates have reached each rung, the best so far, and confirmations over further seeds."""
    if not running:
        score = record.get("log_likelihood")
        known = "" if score is None else f", {score:.1f} nats"
        return [Text(f"candidate {record['candidate']} of {record['candidates']}{known}")]
    if not seen.candidates:
        return [Text(STARTS["tune"], style="dim")]
    reached = [
        len({row["candidate"] for row in seen.candidates if row["search"] and row["step"] >= rung})
        for rung in seen.rungs
    ]
    at = ", ".join(
        f"{count} of {expected} at {rung}" for count, expected, rung in zip(reached, seen.expected, seen.rungs, strict=True)
    )  # fmt: skip
    confirmed = sum(not row["search"] for row in seen.candidates)
    done, total = sum(map(min, reached, seen.expected)), sum(seen.expected)
    lines: list[RenderableType] = [_bar(done, total, f"step: {at}" if not confirmed else f"{confirmed} further seeds")]
    if best := seen.best:
        text = f"best: candidate {best['candidate']}, {best['log_likelihood']:.1f} ± {best['standard_error']:.1f} nats"
        lines.append(Text(f"{text}, coverage {best['coverage']:.2f}, at {best['step']}"))
    return lines


def _training(stage: str, seen: Observation) -> list[RenderableType]:
    row = seen.training
    if "step" not in row:
        return [Text(STARTS[stage], style="dim")]
    words = [f"{row['step']:,} of {seen.steps:,}", f"{row['steps_per_second']:.0f}/s"]
    lines: list[RenderableType] = [_bar(row["step"], seen.steps, "  ".join(words))]
    known = {"V(D,G)": row.get("value"), "D's loss": None if "value" in row else row.get("discriminator_loss")}
    numbers = [f"{name} {value:.3f}" for name, value in known.items() if value is not None]
    if "real_accuracy" in row:
        numbers.append(f"D right on real {row['real_accuracy']:.0%}, fake {row['fake_accuracy']:.0%}")
    if "validation_log_likelihood" in row:
        numbers.append(f"{row['validation_log_likelihood']:.1f} nats")
    return [*lines, *([Text("  ".join(numbers))] if numbers else [])]


def _bar(done: int, total: int, text: str) -> RenderableType:
    return _Bar(done, max(total, 1), text)


class _Bar:
    """A bar and what it says, which comes first where there is little room."""

    def __init__(self, done: int, total: int, text: str) -> None:
        self.done, self.total, self.text = done, total, text

    def __rich_console__(self, console: Console, options: Any) -> Any:
        line, width = Table.grid(padding=(0, 1)), min(BAR, options.max_width - len(self.text) - 1)
        bar = ProgressBar(total=self.total, completed=self.done, width=width, finished_style="bar.complete")
        line.add_row(*([bar] if width > 2 else []), Text(self.text, no_wrap=True, overflow="ellipsis"))
        yield line


class _Thumbnails:
    """Samples of a picture of sixteen beside each other, two pixels in a letter: as many as the width holds."""

    def __init__(self, picture: bytes) -> None:
        self.picture = picture

    def __rich_console__(self, console: Console, options: Any) -> Any:
        yield Text("")
        yield from thumbnails(self.picture, options.max_width)


def thumbnails(picture: bytes, width: int) -> list[Text]:
    """Lines of half blocks in 24-bit colours, of a PNG of four by four samples with gaps, as `figures.sample_grid` draws."""
    from PIL import Image

    whole = Image.open(io.BytesIO(picture)).convert("RGB")
    side = whole.width // 4
    height = min(TILE, 2 * max(4, side // 16))
    count = min(SAMPLES, (width + GAP) // (height + GAP))
    tiles = []
    for index in range(count):
        left, top = index % 4 * side, index // 4 * side
        sample = whole.crop((left, top, left + side, top + side)).resize((height, height), Image.Resampling.BOX)
        tiles.append(sample.tobytes())
    lines = []
    for upper in range(0, height, 2):
        line = Text(no_wrap=True)
        for tile in tiles:
            for start in range(3 * upper * height, 3 * (upper + 1) * height, 3):
                above, below = (tile[at : at + 3].hex() for at in (start, start + 3 * height))
                line.append("▀", f"#{above} on #{below}")
            line.append(" " * GAP)
        lines.append(line)
    return lines
