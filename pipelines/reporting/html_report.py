"""One self-contained HTML page per run: samples first, the score in words, curves to hover, the search, its origin."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from pipelines.reporting import charts, narrative
from pipelines.reporting.importance import importances

MEASURES = ("precision", "recall", "density", "coverage", "duplicates", "memorisation")
STAGES = {"tune": "search", "train": "training", "infer": "inference net", "evaluate": "scores"}


@dataclass(frozen=True)
class RunPage:
    """What a run's page is made of; of a run of an earlier version the last ones may be missing.

    `records` are those of the stages that ran, by stage; `settings` is the configuration as plain data and
    `configuration` the same as YAML; `candidates` are the search's rows; `strip` are pictures of the same z by step.
    """

    run: str
    data: str
    records: Mapping[str, Mapping[str, Any]]
    pictures: Mapping[str, bytes]
    configuration: str
    commit: str
    neighbours: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    candidates: Sequence[Mapping[str, Any]] = ()
    strip: Sequence[tuple[int, bytes]] = ()
    environment: Mapping[str, Any] | None = None
    continued_from: str | None = None
    links: Mapping[str, str] = field(default_factory=dict)  # text -> address, of http or https


def render(page: RunPage) -> str:
    """The page, everything inside it, with interactive charts: the same parts, the same bytes."""
    from gan_core.extensions.measures import described_measures  # and with it torch, which the live page has no use for

    records, score = page.records, page.records["evaluate"]
    whose = f"the model, {score['weights']} G"
    rows = [
        {"name": whose, **_row(score["paper"])},
        {"name": whose, **_row(score["cross_validated"])},
        *({"name": name, "protocol": "paper", **row} for name, row in score["references"].items()),
    ]
    of_rows = {whose: score["quality"] or {"coverage": score["coverage"]}, **score["references"]}
    qualities = {name: quality for name, quality in of_rows.items() if quality.get("coverage") is not None}
    space = (page.settings.get("tune") or {}).get("space") or {}
    searched = records.get("tune")
    chosen = searched.get("candidate") if searched else None
    timed = {name: records[stage]["seconds"] for stage, name in STAGES.items() if "seconds" in records.get(stage, {})}
    return environment().get_template("report.html").render(
        page=page, run=page.run, score=score, rows=rows, qualities=qualities.items(), measured=MEASURES,
        measures=described_measures(score["extension"]), table=narrative.PAPER_TABLE_1.get(page.data),
        scale=narrative.scale(score, page.data), standing=narrative.standing(score),
        steps=narrative.next_steps(page.run, records, page.settings, page.history),
        pictures=embedded(page.pictures), strip=[(step, png_address(content)) for step, content in page.strip],
        download=_address("text/yaml", page.configuration.encode()),
        trained=records["train"], searched=searched, inferred=records.get("infer"), registered=records.get("register"),
        timed=timed, longest=max(timed.values(), default=0) or 1,
        training_charts=charts.training_charts(page.history),
        sigma_chart=charts.sigma_chart([score["paper"], score["cross_validated"]]),
        search_charts=[chart for chart in (charts.parallel_chart(page.candidates, space, chosen), charts.rung_chart(page.candidates, chosen)) if chart],
        importances=importances(page.candidates, space), **page_scripts(),
    )  # fmt: skip


def embedded(pictures: Mapping[str, bytes]) -> dict[str, str]:
    """Pictures by name, each as an address that holds it."""
    return {name: png_address(content) for name, content in pictures.items()}


def png_address(content: bytes) -> str:
    """A PNG as an address that holds it."""
    return _address("image/png", content)


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64," + base64.b64encode(content).decode()


@cache
def page_scripts() -> dict[str, Any]:
    """The page's two scripts, and the policy that lets these run, nothing else, and nothing be fetched."""
    here = files("pipelines.reporting")
    texts = [(here / name).read_text() for name in ("assets/echarts.min.js", "templates/charts.js")]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; form-action 'none'"
    return {
        "policy": policy,
        "library": Markup(texts[0]),
        "drawing": Markup(texts[1]),
    }  # files of ours: no run says a word


@cache
def environment() -> Environment:
    """The pages' templates, where every value is escaped."""
    templates = Environment(
        loader=PackageLoader("pipelines.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters |= {"duration": duration, "web": web_address, "setting": charts.text_of}
    return templates


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def web_address(uri: str | None) -> str | None:
    """An address that a browser may follow, or None: not a database, nor a script."""
    return uri if uri and uri.startswith(("http://", "https://")) else None


def _row(score: Mapping[str, Any]) -> dict[str, Any]:
    return {key: score[key] for key in ("protocol", "log_likelihood", "standard_error", "sigma")}
