"""The live page of a run: what is on it, that it renews itself, and who may ask for it."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from pipelines.reporting.live_page import live_page
from pipelines.reporting.live_server import serving
from pipelines.runs import run_lease
from pipelines.runs.observation import RunObserver
from pipelines.runs.recorded_run import RecordedRun
from pipelines.storage import Storage, run_layout
from tests.pipelines.conftest import environment, until
from tests.pipelines.headless_chromium import installed, open_tab
from tests.pipelines.test_watch import LIVE, in_training, searched


@pytest.fixture
def local(small, tmp_path):
    """A run that trains, on a disk."""
    return in_training(searched(tmp_path / "st", small))


def test_the_live_page_shows_samples_curves_and_candidates(finished):
    run = RecordedRun("small-run", Storage.at(finished.storage))
    page = live_page(run.folder, RunObserver(run).look(), "v")
    assert all(
        text in page for text in ("Samples of the same z", "Losses", "Candidates", "data:image/png", "small-run")
    )


@pytest.mark.skipif(installed() is None, reason="no Chromium on PATH; Debian: apt-get install chromium")
def test_the_page_renews_itself(local):
    """A browser shows a later step by itself, and says when nobody serves the page any more; its policy allows no more."""
    shown = lambda: tab.value("document.body?.innerText ?? ''")  # noqa: E731
    with open_tab() as tab, run_lease.working_on(local.folder):
        with serving(RunObserver(RecordedRun("seen", local.storage)), 0, 0.1) as address:
            tab.call("Page.navigate", url=address)
            until(lambda: "step 120 of 200" in shown())
            local.folder.write_json(run_layout.LIVE, {**LIVE, "step": 150})
            until(lambda: "step 150 of 200" in shown())
        until(lambda: "nobody watches" in shown())
    refused = [event for event in tab.events if "Content Security Policy" in json.dumps(event)]
    assert refused == []


def test_the_page_is_served_to_this_machine_only(local):
    """It answers its own address, by GET, and Ctrl-C ends it with 130."""
    command = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "runs",
        "watch",
        "seen",
        "--storage",
        local.storage.uri,
        "--port",
        "0",
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        address = json.loads(process.stdout.readline())["url"]
        page = urllib.request.urlopen(address, timeout=60).read().decode()
        assert "stopped" in page
        assert urllib.request.urlopen(f"{address}version", timeout=60).read().startswith(b"stopped")
        for path, headers in (("", {"Host": "evil.example"}), ("run.json", {})):
            with pytest.raises(urllib.error.HTTPError, match=r"40[34]"):
                urllib.request.urlopen(urllib.request.Request(address + path, headers=headers), timeout=60)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        assert (process.returncode, error.splitlines()[-1][:19]) == (130, "error: interrupted ")
    finally:
        process.kill()
        process.communicate()
