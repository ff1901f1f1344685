"""The page holds all it shows, says what the records say, and escapes it."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np

from pipelines.reporting import figures, html_report

SCORE = {"log_likelihood": -7.25, "standard_error": 0.5, "sigma": 0.278256, "samples": 500, "validation_points": 200}
RECORDS = {
    "train": {"step": 200, "device": "cpu", "seconds": 3.2, "weights_sha256": "a" * 64},
    "evaluate": {
        **SCORE, "weights": "last", "extension": None, "coverage": 0.25, "data_digest": "d" * 64,
        "paper": {**SCORE, "protocol": "paper"},
        "cross_validated": {**SCORE, "protocol": "cross_validated", "fold_sigmas": [0.25, 0.26]},
        "quality": {"precision": 0.81, "recall": 0.42, "density": 1.07, "coverage": 0.25, "duplicates": 0.03, "memorisation": 0.58, "count": 297},
        "references": {"training data": {**SCORE, "log_likelihood": 21.75, "coverage": 0.99}},
    },
    "tune": {"candidates": 6, "diverged": 1, "chosen": {"noise.size": 16}},
    "register": {"model": "gan-digits", "version": 3, "alias": "champion", "reason": "better than gan-digits/2"},
}  # fmt: skip
PICTURES = {
    name: figures.png(np.zeros((4, 4), np.uint8))
    for name in ("samples.png", "interpolation.png", "curves.png", "search.png", "sigma.png")
}


class Page(HTMLParser):
    """A page's text, and everything it refers to."""

    def __init__(self, html):
        super().__init__()
        self.text, self.links, self.tags = "", [], []
        self.feed(without_scripts(html))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.text += data


PAGE = html_report.RunPage("run-1", "digits", RECORDS, PICTURES, "seed: 0\n", "c0ffee", 5)


def page(records=RECORDS, data="digits", configuration="seed: 0\n"):
    return html_report.render(replace(PAGE, data=data, records=records, configuration=configuration))


def without_scripts(html):
    """A page without the two scripts that are its own."""
    for own in ("library", "drawing"):
        script = f"<script>{html_report.page_scripts()[own]}</script>"
        assert script in html
        html = html.replace(script, "")
    return html


def test_the_page_refers_to_nothing_outside_itself():
    html = page()
    parsed = Page(html)
    assert sorted(link.partition(",")[0] for link in parsed.links) == sorted(
        ["data:image/png;base64"] * 5 + ["data:text/yaml;base64", "data:", "#again"]
    )
    for outside in ("http://", "https://", "url(", "@import", "<script"):
        assert outside not in without_scripts(html)


def test_policy_allows_the_pages_own_scripts_alone():
    """The policy fetches nothing and names both scripts by their SHA-256; no value can add one."""
    html = page()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#39;", "'")
    bodies = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies]
    assert len(digests) == 2
    assert (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digests[0]}' 'sha256-{digests[1]}';"
        in policy
    )


def test_charting_library_is_the_published_one():
    """The library is Apache ECharts 6.1.0 as it was published, by its digest; a changed byte would be ours."""
    content = (files("pipelines.reporting") / "assets" / "echarts.min.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0"
    assert b"</script" not in content


def test_page_shows_scores_protocol_and_sources():
    """The page shows the scores with their protocol, and what they were made from."""
    text = " ".join(Page(page()).text.split())
    for words in (
        "-7.2 ± 0.5 nats on the test set of digits: Parzen window, protocol paper, sigma 0.2783; coverage 0.25.", "21.8 ± 0.5", "0.2500, 0.2600",
        "the model, last G 0.81 0.42 1.07 0.25 0.03 0.58", "training data 0.99",
        "500 samples; sigma from 200 validation images", "of 297 samples and as many test images in every row", "Registered as gan-digits/3 (champion): better than gan-digits/2.",
        "6 candidates, 1 diverged; chosen: noise.size 16.", "200 steps on cpu in 3 s", "gan run run-1.yaml --name run-1", "a" * 64, "d" * 64, "c0ffee", "seed: 0",
    ):  # fmt: skip
        assert words in text


def test_page_of_an_older_run_omits_sample_counts():
    """A run of an earlier version has no number of samples a row, and its page none either."""
    quality = {key: value for key, value in RECORDS["evaluate"]["quality"].items() if key != "count"}
    older = {**RECORDS, "evaluate": {**RECORDS["evaluate"], "quality": quality}}
    assert "in every row" not in Page(page(older)).text


def test_the_page_says_why_a_version_stays_challenger():
    reason = "not enough held-out images to judge (18; 200 needed)"
    registered = {**RECORDS["register"], "alias": "challenger", "reason": reason}
    assert f"gan-digits/3 (challenger): {reason}." in Page(page({**RECORDS, "register": registered})).text


def test_page_omits_stages_that_did_not_run():
    """The page leaves out the stages that did not run."""
    text = Page(page({key: RECORDS[key] for key in ("train", "evaluate")})).text
    assert "Registered" not in text
    assert "candidates" not in text


def test_paper_table_appears_for_its_own_data_only():
    """The paper's table stands beside MNIST and TFD, which it is of, and no other data set."""
    assert "225 ± 2.0" in Page(page(data="mnist")).text
    faces = Page(page(data="tfd")).text
    assert "Table 1 of the paper, TFD, over five folds" in faces
    assert "2057 ± 26" in faces
    assert "Table 1" not in Page(page()).text


def test_what_a_configuration_says_is_text_and_not_html():
    parsed = Page(page(configuration="data: {root: '<script>alert(1)</script><img src=x>'}\n"))
    assert "<script>alert(1)</script>" in parsed.text
    assert "script" not in parsed.tags
    assert "x" not in parsed.links
