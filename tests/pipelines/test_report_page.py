"""The page in a real browser: quiet, self-contained, readable in both schemes, on a telephone and on paper."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.reporting import figures, html_report
from tests.pipelines.conftest import principal_generator
from tests.pipelines.headless_chromium import Tab, installed, open_tab
from tests.pipelines.test_html_report import PAGE

needs_browser = pytest.mark.skipif(installed() is None, reason="no Chromium on PATH; Debian: apt-get install chromium")
SPACE = {"algorithm.generator_learning_rate": {"log_uniform": [0.001, 0.1]}, "noise.size": {"choice": [8, 16]}}
CANDIDATES = [
    {"stage": "search", "candidate": number, "seed": 0, "step": step, "status": "finite", "log_likelihood": number + step / 100,
     "algorithm.generator_learning_rate": 0.001 * 4**number, "noise.size": (8, 16)[number % 2]}
    for number in range(4) for step in ((100, 200) if number > 1 else (100,))
]  # fmt: skip
ENVIRONMENT = {
    "begun": "2026-11-30T22:20:21+00:00",
    "machine": {"system": "Linux x86_64", "processor": "a processor", "cores": 2, "memory_bytes": 2**34},
    "versions": {"python": "3.11.7", "torch": "2.15.0"},
}
# Text whose contrast with what lies behind it is below what WCAG 2.2 asks for (AA: 4.5, large text 3), and what it is.
CONTRAST = """(() => {
  const seen = (css) => (css.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const colour = seen(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("main *")) {
    const written = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!written || node.closest("noscript") || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const front = seen(node instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(front), light(behind(node))].sort((x, y) => y - x);
    const wanted = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    if ((a + .05) / (b + .05) < wanted) found.push([node.tagName, node.textContent.trim().slice(0, 40), (a + .05) / (b + .05)]);
  }
  return found;
})()"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with open_tab() as tab:
        yield tab


@pytest.fixture(scope="module")
def full_page(digits, tmp_path_factory) -> Path:
    """A page with all that a page can have, of a generator in closed form."""
    model = principal_generator(digits, 8)
    picture = figures.png(figures.samples_with_neighbours(model, digits.train.images, 0))
    strip = [
        (step, figures.png(figures.sample_grid(model.draw(16, 0), "unit")))
        for step in (0, *range(10, 1_000_001, 99_999))
    ]
    history = [
        {"step": 10 * step, "value": -1.3 / step, "generator_loss": 0.7, "real_accuracy": 0.5, "fake_accuracy": 0.6,
         "discriminator_gradient_norm": 0.1, "generator_gradient_norm": 0.2, "sample_variance": 0.9,
         "validation_log_likelihood": float(step)} for step in range(1, 50)
    ]  # fmt: skip
    records = json.loads(json.dumps(PAGE.records))
    records["evaluate"]["paper"] |= {"grid": [0.1, 0.2, 0.4], "curve": [-5.0, 3.0, 1.0]}
    records["tune"] |= {"candidate": 3, "rung_correlation": {"100": 0.8}, "seconds": 99.0}
    page = replace(
        PAGE, run="a-run-with-a-name-as-long-as-people-give-them-2026-11-30-0123456789abcdef", data="mnist",
        records=records, pictures={**PAGE.pictures, "samples.png": picture}, strip=strip, history=history,
        candidates=CANDIDATES, environment=ENVIRONMENT, settings={"seed": 0, "tune": {"space": SPACE}, "algorithm": {"steps": 200}},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html_report.render(page))
    return path


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_is_quiet_readable_and_fits(tab, full_page, width, scheme):
    """No console message, no request, nothing wider than the window, enough contrast, each picture named, all charts drawn."""
    tab.open(full_page, width, scheme)
    assert tab.complaints == []
    assert tab.requests == [full_page.as_uri()]
    assert tab.value("document.documentElement.scrollWidth") <= width
    outside = "[...document.querySelectorAll('main > *, section > *')].filter((one) => one.getBoundingClientRect().right > innerWidth).length"
    assert tab.value(outside) == 0
    assert tab.value(CONTRAST) == []
    assert tab.value("[...document.images].filter((one) => !one.alt || !one.naturalWidth).length") == 0
    plots = tab.value("document.querySelectorAll('.plot').length")
    drawn = "[...document.querySelectorAll('.plot[aria-label] svg')].filter((one) => one.querySelectorAll('path').length > 5).length"
    assert plots == tab.value(drawn) == 8
    dark = tab.value("getComputedStyle(document.body).backgroundColor")
    assert dark == {"light": "rgb(250, 249, 246)", "dark": "rgb(19, 21, 26)"}[scheme]


@needs_browser
def test_chart_answers_the_pointer_and_zooms(tab, full_page):
    """A chart says the numbers under the pointer, and the slider's handle narrows what it shows."""
    tab.open(full_page, 1280)
    chart = "echarts.getInstanceByDom(document.querySelector('.plot'))"
    tab.value("document.querySelector('.plot').scrollIntoView()")
    box = tab.value(
        "(() => { const b = document.querySelector('.plot').getBoundingClientRect(); return [b.left, b.top, b.width, b.height] })()"
    )
    left, top, width, height = box
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=left + width / 2, y=top + height / 2)
    shown = tab.value("[...document.querySelectorAll('body > div')].map((one) => one.innerText).join(' ')")
    assert "V(D, G)" in shown
    assert "G's loss" in shown
    assert "0.7" in shown
    from_to = f"{chart}.getOption().dataZoom.map((one) => Math.round(one.end))"
    assert tab.value(from_to) == [100, 100]
    tab.value(f"void {chart}.dispatchAction({{type: 'dataZoom', start: 0, end: 50}})")
    assert tab.value(from_to) == [50, 50]


@needs_browser
def test_paper_is_white_whatever_the_scheme(tab, full_page):
    """In print, dark letters on white, and no chart wider than the paper."""
    tab.open(full_page, 700, "dark", "print")
    assert tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.value(CONTRAST) == []
    wide = "[...document.querySelectorAll('.plot')].filter((one) => one.firstElementChild.getBoundingClientRect().width > one.clientWidth + 1).length"
    assert tab.value(wide) == 0


@needs_browser
def test_policy_stops_a_script_that_is_not_the_pages(tab, tmp_path):
    """What no value can write, for all are escaped, would not run either: the policy names the page's own scripts."""
    html = html_report.render(PAGE).replace(
        "</main>", "<script>window.foreign = 1</script><img src=http://127.0.0.1:9/x></main>"
    )
    path = tmp_path / "foreign.html"
    path.write_text(html)
    tab.open(path, 1280)
    assert tab.value("typeof window.foreign") == "undefined"
    assert any("Content Security Policy" in str(one) for one in tab.complaints)
