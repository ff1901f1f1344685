"""Charts to hover and zoom, as options of Apache ECharts: a training's curves, the choice of sigma, a search."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.search.ranking import rung_of

Option = dict[str, Any]
Row = Mapping[str, Any]
# The page's style sheet gives the colours, by light or dark; how a line is drawn tells lines apart without them.
COLOURS = ("var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)")
QUIET = "var(--quiet)"
STYLES = ("solid", "dashed", "dotted", "dashed")
CUT, LAST_RUNG, CHOSEN = "cut at an earlier rung", "reached the last rung", "chosen"
LOOKS = {CUT: (QUIET, 1.5, "dotted"), LAST_RUNG: ("var(--c1)", 2, "solid"), CHOSEN: ("var(--c2)", 4, "solid")}


def line_chart(
    title: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    x_name: str = "step",
    y_name: str = "",
    *,
    log_x: bool = False,
    log_y: bool = False,
    marks: Mapping[str, float] | None = None,
    x_marks: Mapping[str, float] | None = None,
    y_range: tuple[float | None, float | None] = (None, None),
) -> Option:
    """Lines of (x, y) points by name; `marks` are named values of y and `x_marks` of x, drawn across."""
    series = [
        {
            "type": "line", "name": name, "data": [list(point) for point in points if drawable(point, log_x, log_y)],
            "symbol": "circle", "symbolSize": 5, "showSymbol": len(points) < 30, "emphasis": {"disabled": True},
            "lineStyle": {"width": 2, "type": STYLES[index % 4], "color": COLOURS[index % 4]},
            "itemStyle": {"color": COLOURS[index % 4]},
        }
        for index, (name, points) in enumerate(lines.items())
    ]  # fmt: skip
    across = [{"yAxis": value, "name": name} for name, value in (marks or {}).items()]
    across += [{"xAxis": value, "name": name} for name, value in (x_marks or {}).items()]
    if across and series:
        series[0]["markLine"] = {
            "silent": True, "symbol": "none", "lineStyle": {"color": QUIET, "type": "dotted", "width": 1.5},
            "data": across,
            "label": {"formatter": "{b}", "position": "insideStartBottom", "color": QUIET},
        }  # fmt: skip
    low, high = y_range
    return {
        "title": title,
        "kind": "lines",
        "xAxis": {"type": "log" if log_x else "value", "name": x_name, "min": "dataMin", "max": "dataMax"},
        "yAxis": {"type": "log" if log_y else "value", "name": y_name, "min": low, "max": high, "scale": True},
        "series": series,
    }


def drawable(point: tuple[float, float], log_x: bool, log_y: bool) -> bool:
    """Whether a point has a place: finite, and positive along a logarithm."""
    x, y = point
    return math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x) and (y > 0 or not log_y)


def curve(history: Sequence[Row], name: str) -> list[tuple[float, float]]:
    """A metric along the history, at the steps that have it."""
    return [(row["step"], row[name]) for row in history if row.get(name) is not None]


def training_charts(history: Sequence[Row]) -> list[Option]:
    """What `figures.curves` draws, and the validation score where the training was checked; nothing without a history."""
    if not history:
        return []
    has_value = all("value" in row for row in history)
    loss = {"V(D, G)": curve(history, "value")} if has_value else {"D's loss": curve(history, "discriminator_loss")}
    equilibrium = {"-log 4, the equilibrium": -math.log(4)} if has_value else None
    charts = [
        line_chart("Losses", {**loss, "G's loss": curve(history, "generator_loss")}, y_name="nats" if has_value else "loss", marks=equilibrium),
        line_chart("D is right on", {"real images": curve(history, "real_accuracy"), "samples": curve(history, "fake_accuracy")}, y_name="share", marks={"chance": 0.5}, y_range=(0, 1)),
        line_chart("Gradient norms", {"of D": curve(history, "discriminator_gradient_norm"), "of G": curve(history, "generator_gradient_norm")}, y_name="norm", log_y=True),
        line_chart("Variance of the samples", {"of that of the images": curve(history, "sample_variance")}, y_name="ratio", marks={"the images' own": 1}, y_range=(0, None)),
    ]  # fmt: skip
    checked = curve(history, "validation_log_likelihood")
    if checked:
        charts.append(line_chart("Validation log-likelihood on the way", {"mean": checked}, y_name="nats"))
    return [chart for chart in charts if any(series["data"] for series in chart["series"])]


def sigma_chart(scores: Sequence[Row]) -> Option | None:
    """The validation images' log-likelihood along each protocol's grid of sigmas; below, a narrow window says nothing."""
    lines = {
        score["protocol"].replace("_", " "): list(zip(score["grid"], score["curve"], strict=True))
        for score in scores
        if score.get("curve")
    }
    if not lines:
        return None
    best = max(y for points in lines.values() for _, y in points)
    span = abs(best) + 50
    low, high = 50 * math.floor((best - 3 * span) / 50), 50 * math.ceil(best / 50 + 0.1)
    shown = {name: [(x, y) for x, y in points if y >= low] for name, points in lines.items()}
    chosen = {"": scores[0]["sigma"]} if shown else {}
    return line_chart(
        "Validation log-likelihood along the grid",
        shown,
        "sigma",
        "nats",
        log_x=True,
        x_marks=chosen,
        y_range=(low, high),
    )


def overlaid(title: str, metric: str, histories: Mapping[str, Sequence[Row]], **how: Any) -> Option | None:
    """One metric of several runs; nothing if none has it."""
    lines = {run: points for run, history in histories.items() if (points := curve(history, metric))}
    return line_chart(title, lines, **how) if lines else None


def short(key: str) -> str:
    """A setting's name as an axis has room for it."""
    return key.rpartition(".")[2].replace("_", " ") if not key.startswith("noise.") else key.replace(".", " ")


def parallel_chart(rows: Sequence[Row], space: Mapping[str, Row], chosen: int | None) -> Option | None:
    """The candidates of a search as lines through their settings to their score at the last rung each reached.

    Axes are logarithmic where the space is, and reach over all of it.
    """
    last = last_rungs(rows)
    if not last or not space:
        return None
    keys, deepest = list(space), max(map(rung_of, last))
    axes: list[Option] = [_axis(number, key, space[key], last) for number, key in enumerate(keys)]
    axes.append({"dim": len(keys), "name": "log-likelihood", "scale": True})
    groups: dict[str, list[Option]] = {group: [] for group in LOOKS}
    for row in last:
        values = [_place(row[key], space[key]) for key in keys]
        line = {"name": f"candidate {row['candidate']}, step {row['step']}", "value": [*values, row["log_likelihood"]]}
        group = CHOSEN if row["candidate"] == chosen else LAST_RUNG if rung_of(row) == deepest else CUT
        groups[group].append(line)
    series = [
        {"type": "parallel", "name": group, "data": lines, "lineStyle": {"color": colour, "width": width, "type": style, "opacity": 0.9}, "itemStyle": {"color": colour}}
        for group, lines in groups.items() for colour, width, style in [LOOKS[group]] if lines
    ]  # fmt: skip
    return {"title": "Candidates", "kind": "parallel", "parallelAxis": axes, "series": series}


def last_rungs(rows: Sequence[Row]) -> list[Row]:
    """Each candidate's row of the last rung it reached with a finite score, by candidate; confirmations left out."""
    last: dict[int, Row] = {}
    for row in sorted(rows, key=lambda row: row["step"]):
        if row["status"] == "finite" and row.get("stage", "search") == "search":
            last[row["candidate"]] = row
    return [last[candidate] for candidate in sorted(last)]


def rung_chart(rows: Sequence[Row], chosen: int | None) -> Option | None:
    """Each candidate's score from rung to rung, confirmations left out, looking as in `parallel_chart`."""
    paths: dict[int, list[tuple[float, float]]] = {}
    for row in sorted(rows, key=lambda row: row["step"]):
        if row["status"] == "finite" and row.get("stage", "search") == "search":
            paths.setdefault(row["candidate"], []).append((rung_of(row), row["log_likelihood"]))
    if not paths:
        return None
    unit = "updates of D and G" if "budget" in rows[0] else "step"
    deepest = max(step for path in paths.values() for step, _ in path)
    chart = line_chart("From rung to rung", {f"candidate {one}": paths[one] for one in sorted(paths)}, unit, "nats")
    for candidate, series in zip(sorted(paths), chart["series"], strict=True):
        group = CHOSEN if candidate == chosen else LAST_RUNG if paths[candidate][-1][0] == deepest else CUT
        colour, width, style = LOOKS[group]
        series |= {"lineStyle": {"color": colour, "width": width, "type": style}, "itemStyle": {"color": colour}}
        series["z"] = 3 if group == CHOSEN else 2
    return {**chart, "legend": False}


def _place(value: Any, distribution: Row) -> Any:
    """A setting's place on its axis: a category by its text."""
    return text_of(value) if "choice" in distribution else value


def text_of(value: Any) -> str:
    """A setting's value as people read it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _axis(number: int, key: str, distribution: Row, rows: Sequence[Row]) -> Option:
    axis: Option = {"dim": number, "name": short(key)}
    if "choice" in distribution:
        texts = [text_of(value) for value in distribution["choice"]]
        others = [
            text for row in rows if (text := text_of(row[key])) not in texts
        ]  # of a configuration outside the space
        return {**axis, "type": "category", "data": [*texts, *dict.fromkeys(others)]}
    bounds = next(iter(distribution.values()))
    values = [row[key] for row in rows]
    low, high = min([bounds[0], *values]), max([bounds[1], *values])
    logarithmic = "log_uniform" in distribution and low > 0
    return {**axis, "type": "log" if logarithmic else "value", "min": low, "max": high}
