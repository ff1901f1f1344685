"""gan doctor, gan init, gan figure, and files that cannot be written: what a user meets first."""

import io
import json
import os
import sqlite3
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from gan_core.datasets import LOADERS
from gan_core.metrics.sample_quality import nearest_neighbours
from pipelines import config, diagnostics
from pipelines.config import Configuration
from pipelines.storage import Storage
from tests.pipelines.conftest import failed, gan
from tests.pipelines.test_tracking import closed_port

# gan doctor


def verdicts(answer):
    return {one["part"]: one["verdict"] for one in answer.json["findings"]}


def test_doctor_passes_here_and_creates_nothing(tmp_path, here):
    """Doctor finds what is installed here good enough, and creates nothing."""
    answer = here("doctor", "--json")
    assert answer.code == 0, answer.err
    found = {one["part"]: one for one in answer.json["findings"]}
    for part in ("python", "torch", "ray", "cores", "memory", "/dev/shm", "gpus", "cluster", "storage", "tracking"):
        assert found[part]["verdict"] in ("ok", "warn")
    assert found["torch"]["found"] == metadata.version("torch")
    assert str(len(os.sched_getaffinity(0))) in found["cores"]["found"]
    assert list(tmp_path.iterdir()) == []
    assert "ready" in here("doctor").out


def test_doctor_says_what_is_wrong_and_ends_with_2(tmp_path, here):
    uri = f"http://me:s3cr3t@127.0.0.1:{closed_port()}"
    answer = here("doctor", "--tracking-uri", uri, "--storage", "/proc/nowhere", "--json")
    assert answer.code == 2
    assert answer.json["verdict"] == "fail"
    failing = [one["part"] for one in answer.json["findings"] if one["verdict"] == "fail"]
    assert failing == ["storage", "tracking"]
    assert answer.error.startswith("error: not ready (gan doctor): storage: ")
    assert "s3cr3t" not in answer.err + answer.out


def test_doctor_tells_a_database_of_mlflow_from_another(registry_uri, tmp_path, here):
    good = here("doctor", "--tracking-uri", registry_uri, "--json")
    found = next(one["found"] for one in good.json["findings"] if one["part"] == "tracking")
    assert found.endswith("0 registered models")
    with sqlite3.connect(tmp_path / "other.db") as database:
        database.execute("create table t (x)")
    database.close()
    bad = here("doctor", "--tracking-uri", f"sqlite:///{tmp_path}/other.db", "--json")
    assert (bad.code, verdicts(bad)["tracking"]) == (2, "fail")


def test_missing_or_old_package_is_reported_with_version(monkeypatch):
    """A package that is missing or too old is said with the version that is wanted."""
    wanted = ["nosuchpackage>=2", "numpy>=999", "torch", "pytest>=999; extra == 'dev'"]
    monkeypatch.setattr(diagnostics.metadata, "requires", lambda name: wanted)
    found = {one.part: one for one in diagnostics.examine("x", "sqlite:////no.db", False)}
    assert (found["nosuchpackage"].verdict, found["nosuchpackage"].found) == ("fail", "not installed")
    assert found["numpy"].verdict == "fail"
    assert found["numpy"].advice == "a version >=999"
    assert found["torch"].verdict == "ok"
    assert found["nosuchpackage"].advice.startswith("pip install 'adversarial-nets-on-ray[pipelines]'")
    assert "pytest" not in found


@pytest.mark.slow
def test_doctor_starts_ray_when_asked_to(tmp_path):
    answer = gan("doctor", "--start", "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    (ray,) = [one for one in answer.json["findings"] if one["part"] == "cluster"]
    assert "answers" in ray["found"]
    assert "CPU" in ray["found"]


# gan init


def test_init_writes_a_configuration_that_passes_every_check(tmp_path, here):
    answer = here("init", "new", "--json")
    assert (answer.code, answer.json) == (0, {"configuration": "new/gan.yaml"})
    text = (tmp_path / "new" / "gan.yaml").read_text()
    settings = config.load(tmp_path / "new" / "gan.yaml")
    assert settings.data.name == "digits"
    assert settings.tune.candidates > 0
    assert here("run", "new/gan.yaml", "--dry-run").code == 0
    others = [yaml.safe_load(line.removeprefix("# ")) for line in text.splitlines() if line.startswith("# data: ")]
    assert [other["data"]["name"] for other in others] == ["images", "mnist"]
    for other in others:
        if other["data"]["name"] in LOADERS:
            config.build({**yaml.safe_load(text), **other})
    assert set(yaml.safe_load(text)) < set(Configuration.__dataclass_fields__)


def test_init_overwrites_nothing(tmp_path, here):
    (tmp_path / "gan.yaml").write_text("mine")
    failed(here("init"), 2, "would overwrite (gan.yaml)")
    assert (tmp_path / "gan.yaml").read_text() == "mine"


# gan figure


def test_figures_of_run_and_version_equal_the_reports(finished, tmp_path, here):
    """The figures of a run and of its version are those of its page; what has no figure is one line."""
    where = ("--storage", finished.storage, "--json")
    for which, page in (("fig2", "samples.png"), ("fig3", "interpolation.png")):
        for reference in ("small-run", "gan-small/1"):
            answer = here("figure", which, reference, "--output", "x.png", *where)
            assert answer.code == 0, answer.err
            assert answer.json["generator_sha256"] == finished.record("train")["generator_sha256"]
            assert (tmp_path / "x.png").read_bytes() == (finished.folder / "report" / page).read_bytes()
    other = here("figure", "fig3", "small-run", "--output", "y.png", "--seed", 1, *where)
    assert other.code == 0
    assert (tmp_path / "y.png").read_bytes() != (tmp_path / "x.png").read_bytes()
    failed(here("figure", "fig1", "small-run", "--output", "x.png"), 2, "fig1 is of no model (REF): small-run")
    failed(here("figure", "fig2", "--output", "x.png"), 2, "no model given (REF)")
    failed(here("figure", "fig2", "small-run", "--output", "x.npy"), 2, "a name ending in .png")


def test_fig2_last_column_is_the_nearest_training_image(finished, digits, tmp_path, here):
    """The last column of fig2 is the training image nearest to the sample beside it."""
    assert here("figure", "fig2", "small-run", "--output", "x.png", "--storage", finished.storage).code == 0
    picture = np.asarray(Image.open(io.BytesIO((tmp_path / "x.png").read_bytes())))[::7, ::7]
    sample, nearest = picture[2:10, 72:80], picture[2:10, 88:96]
    found = nearest_neighbours(sample.reshape(1, -1) / np.float32(255), digits.train.images)
    assert np.array_equal(nearest, np.rint(digits.train.images[found[0]].reshape(8, 8) * 255))


# Files that cannot be written, and runs that are not ready


def test_unwritable_output_is_an_error_in_one_line(finished, tmp_path, here):
    """An output that is a folder or on a full disk is an error in one line."""
    where = ("--storage", finished.storage)
    (tmp_path / "folder.png").mkdir()
    failed(here("sample", "small-run", "--output", "folder.png", *where), 2, "cannot be written (--output): folder.png")
    (tmp_path / "full.npy").symlink_to("/dev/full")
    failed(here("sample", "small-run", "--output", "full.npy", *where), 4, "storage refused", "No space left", "wanted")
    assert Path("/dev/full").is_char_device()


def test_untrained_run_and_damaged_record_are_one_line(small_yaml, tmp_path, here):
    """A run that is not trained and a record that is damaged are errors in one line."""
    from pipelines.runs.run import Run

    run = Run.create(config.load(small_yaml), "small", "fresh", Storage.at(tmp_path / "st"))
    run.save()
    for command in (("evaluate", "fresh"), ("sample", "fresh", "--output", "x.png"), ("figure", "fig2", "fresh", "--output", "x.png")):  # fmt: skip
        failed(here(*command, "--storage", "st"), 4, "not trained yet (fresh)", "gan train CONFIG --name fresh")
    run.folder.write_json("records/train.json", {"inputs": "", "record": {"step": 3}})
    for command in (("runs", "status", "fresh"), ("evaluate", "fresh"), ("report", "fresh")):
        answer = here(*command, "--storage", "st")
        assert answer.code == 4, answer.err
    (run.folder.local / "run.json").write_text(json.dumps({"run": "fresh"}))
    failed(here("runs", "status", "fresh", "--storage", "st"), 4, "damaged file", "run.json")
