"""The page of a run that goes on: samples of one z so far, curves, candidates; it asks its server for what is new."""

import base64
import hashlib

from markupsafe import Markup

from gan_core.manifest import checkpoint_step
from pipelines.reporting import charts, html_report
from pipelines.reporting.live_panel import NAMES, clock
from pipelines.runs.observation import Observation
from pipelines.storage import Storage, run_layout
from pipelines.storage.metric_log import read_history

# A page that is loaded anew keeps its place; one whose server has ended says so, and stays.
RENEWAL = """
setInterval(async () => {
  const note = document.getElementById("renewed");
  try {
    const answer = await fetch("version");
    if (await answer.text() !== document.body.querySelector("main header").dataset.version) location.reload();
    note.textContent = "";
  } catch { note.textContent = "nobody watches this run any more: this is how it was"; }
}, 2000);
"""


def live_page(folder: Storage, seen: Observation, version: str) -> str:
    """The page of what was seen of the run in this folder; as long as it runs it looks for a newer version."""
    scripts = html_report.page_scripts()
    digest = base64.b64encode(hashlib.sha256(RENEWAL.encode()).digest()).decode()
    policy = scripts["policy"].replace("script-src", f"connect-src 'self'; script-src 'sha256-{digest}'")
    samples = folder.child(run_layout.SAMPLES)
    names = [name for name in samples.names() if name.endswith(".png") and not name.startswith(".")]
    strip = [
        (checkpoint_step(name.removesuffix(".png")), html_report.png_address(samples.read(name) or b""))
        for name in names
    ]
    history = read_history(folder.child(run_layout.HISTORY))
    last = history[-1]["step"] if history else -1
    history += [seen.training] if seen.stage == "train" and seen.training.get("step", -1) > last else []
    searched = [{**row, "stage": "search" if row["search"] else "confirm"} for row in seen.candidates]
    chosen = seen.records.get("tune", {}).get("candidate")
    return html_report.environment().get_template("live.html").render(
        scripts | {"policy": policy}, seen=seen, version=version, names=NAMES, clock=clock, strip=strip,
        training_charts=charts.training_charts(history), rung_chart=charts.rung_chart(searched, chosen),
        candidates=charts.last_rungs(searched), score=seen.records.get("evaluate"),
        renewal=Markup(RENEWAL) if seen.state == "running" else None,
    )  # fmt: skip
