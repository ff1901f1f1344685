"""gan doctor, gan init, gan figure, and files that cannot be written: what a user meets first."""

import io
import json
import math
import os
import sqlite3
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from gan_core.datasets import LOADERS, Examples
from gan_core.metrics.sample_quality import nearest_neighbours
from gan_core.threads import one_thread
from gan_core.training import initial_state, train
from pipelines import config, diagnostics
from pipelines.config import Configuration
from pipelines.runs import estimate, memory
from pipelines.storage import Storage
from tests.pipelines.conftest import failed, gan
from tests.pipelines.test_tracking import closed_port

ROOT = Path(__file__).parents[2]

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
    answer = here("init", "--output", "new/gan.yaml", "--json")
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


def strokes(side: int) -> Image.Image:
    """A white line on black, in a file that is in colour."""
    picture = np.zeros((side, side, 3), np.uint8)
    picture[2, 1:-1] = 255
    return Image.fromarray(picture)


def gradient(height: int, width: int, channels: int) -> Image.Image:
    """Shades from left to right, other ones in each colour."""
    shades = np.linspace(0, 255, width)[None, :, None] * np.linspace(1, 0.3, channels)
    return Image.fromarray(np.broadcast_to(shades, (height, width, channels)).astype(np.uint8).squeeze())


# Pictures of each kind, how many, and what is written for them: architecture, data.size, data.channels, noise.size, candidates.
OWN_IMAGES = {
    "photos": (
        [gradient(120, 160, 3), gradient(160, 120, 3), gradient(120, 160, 3)],
        100,
        ("convolutional", (48, 64), "colour", 100, 0),
    ),
    "tiny": ([strokes(12)], 40, ("dense", (12, 12), "grey", 16, 0)),
    "strokes": ([strokes(28)], 1300, ("dense", (28, 28), "grey", 100, 8)),
    "shades": ([gradient(28, 28, 1)], 40, ("dense", (28, 28), "grey", 100, 0)),
    "large": ([gradient(480, 640, 1)], 40, ("convolutional", (48, 64), "grey", 100, 0)),
}


@pytest.mark.parametrize("kind", OWN_IMAGES)
def test_init_writes_nets_for_the_images_it_finds(kind, tmp_path, here, monkeypatch):
    """Dense nets for small grey images, also saved in colour, convolutional ones for others; a run takes what is written."""
    monkeypatch.setattr(estimate, "SECONDS", 0.0)  # of timed steps
    pictures, count, expected = OWN_IMAGES[kind]
    (tmp_path / kind / "a").mkdir(parents=True)
    for number in range(count):
        pictures[number % len(pictures)].save(tmp_path / kind / ("a" if number % 4 else "") / f"{number}.png")
    answer = here("init", kind, "--json")
    assert answer.code == 0, answer.err
    text, settings = (tmp_path / "gan.yaml").read_text(), config.load("gan.yaml")
    found = settings.network.architecture, settings.data.size, settings.data.channels, settings.noise.size
    assert (*found, settings.tune.candidates) == expected
    assert (answer.json["images"], answer.json["classes"]) == (count, {"a": count * 3 // 4})
    assert (settings.algorithm.adam.beta1 == 0) == (kind not in ("tiny", "shades"))
    assert "# time   about " in text
    assert ("held-out images and needs 200" in text) == (count < 3334)
    planned = here("run", "gan.yaml", "--dry-run", "--json")
    assert planned.code == 0, planned.err
    plan = planned.json["plan"]
    assert sum(plan["images"].values()) == count
    assert tuple(plan["image_shape"]) == ((*expected[1], 3) if expected[2] == "colour" else expected[1])
    assert plan["classes"] == answer.json["classes"]
    assert plan["generator_parameters"] > plan["discriminator_parameters"] > 10_000
    assert len(plan["warnings"]) == 1  # the gate's images
    assert plan["seconds"]["total"] > plan["seconds"]["training"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["gan.yaml", kind])


def test_init_without_images_is_one_line(tmp_path, here):
    failed(here("init", "nowhere"), 3, "no images (nowhere): no such folder")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    failed(here("init", "empty"), 3, "no images (empty)", "1 not images (notes.txt)")
    (tmp_path / "few").mkdir()
    strokes(8).save(tmp_path / "few" / "1.png")
    failed(here("init", "few"), 3, "too few images", "at least 40")
    (tmp_path / "few" / "1.png").write_bytes(b"<html>")
    failed(here("init", "few"), 3, "unreadable image", "<html>")
    assert not (tmp_path / "gan.yaml").exists()


def test_init_streams_images_larger_than_memory(tmp_path, here, monkeypatch):
    """Images that would fill half of the machine's memory are streamed."""
    monkeypatch.setattr(estimate, "SECONDS", 0.0)
    (tmp_path / "a").mkdir()
    for number in range(40):
        strokes(12).save(tmp_path / "a" / f"{number}.png")
    monkeypatch.setattr(memory, "machine_memory", lambda: 2 * 8 * 144 * 40)
    assert here("init", "a", "--output", "1.yaml").code == 0
    monkeypatch.setattr(memory, "machine_memory", lambda: 2 * 8 * 144 * 40 - 1)
    assert here("init", "a", "--output", "2.yaml").code == 0
    assert [config.load(f"{number}.yaml").data.streaming for number in (1, 2)] == [False, True]


def test_init_takes_an_array_and_parquet_files(tmp_path, here, monkeypatch):
    """An array keeps its size; of Parquet files the image column is looked at."""
    monkeypatch.setattr(estimate, "SECONDS", 0.0)
    np.save(tmp_path / "array.npy", np.linspace(0, 1, 40 * 70 * 80, dtype=np.float32).reshape(40, 70, 80))
    assert here("init", "array.npy", "--output", "array.yaml", "--json").json["image_shape"] == [70, 80]
    assert here("run", "array.yaml", "--dry-run", "-q").code == 0
    encoded = io.BytesIO()
    gradient(20, 30, 3).save(encoded, "PNG")
    table = pyarrow.table({"label": [0] * 41, "image": [encoded.getvalue()] * 41})
    pyarrow.parquet.write_table(table, tmp_path / "some.parquet")
    answer = here("init", "some.parquet", "--output", "some.yaml", "--json")
    assert (answer.json["images"], answer.json["image_shape"]) == (41, [20, 30, 3])
    assert here("run", "some.yaml", "--dry-run", "-q").code == 0


@pytest.mark.parametrize("name", ["digits", "mnist_convolutional"])
def test_a_step_takes_what_is_estimated(name):
    """The estimate of a step is within a factor of 1.5 of a training's own steps, both in CPU time of one thread."""
    settings = config.load(ROOT / "configs" / f"{name}.yaml", ["train.workers=1", "train.threads_per_worker=1"])
    settings = config.resolve(settings, name)
    shape = (8, 8) if name == "digits" else (28, 28)
    counts = {"train": 1000, "validation": 40, "gate": 40, "test": 40}
    images = np.random.default_rng(0).random((1000, math.prod(shape)), dtype=np.float32)
    data = Examples(images, np.zeros(1000, np.int64))
    training, steps = settings.training(), 60
    for attempt in range(3):  # a neighbour that comes or goes in between changes even CPU time
        estimated = estimate.time_estimate(settings, shape, counts, stages=("train",)).step
        with one_thread():
            state = initial_state(training, data, shape)
            started = time.process_time()
            for _ in train(training, data, state, steps, lambda step: False):
                pass
            ratio = estimated / ((time.process_time() - started) / steps)
        if 1 / 1.5 < ratio < 1.5:
            break
    assert 1 / 1.5 < ratio < 1.5


def test_time_is_steps_times_their_number(small, monkeypatch):
    """A training takes its start and its steps; a search adds its rungs, and its budget bounds it."""
    monkeypatch.setattr(estimate, "SECONDS", 0.2)
    counts = {"train": 1000, "validation": 40, "gate": 40, "test": 40}

    def estimated(**settings):
        nested = config.override(config.resolve(small, "x"), {key.replace("__", "."): v for key, v in settings.items()})
        return estimate.time_estimate(nested, (8, 8), counts)

    once = estimated(algorithm__steps=100_000, tune__candidates=0)
    assert once.search == 0
    assert (once.training - estimate.WORKERS_START) / (100_000 * once.step) == pytest.approx(1)
    searched = estimated(tune__rungs=[10_000, 20_000])
    assert searched.search > 20_000 * searched.step / 2
    assert estimated(tune__rungs=[10_000, 20_000], tune__time_budget_s=5.0).search == 5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0.4 s"),
        (89, "89 s"),
        (90, "1.5 min"),
        (99.6 * 60, "1.7 h"),
        (30 * 3600, "30 h"),
        (200 * 86400, "200 days"),
    ],
)
def test_durations_are_for_people(seconds, text):
    assert estimate.duration(seconds) == text


def test_dry_run_warns_of_dense_nets_on_large_images(tmp_path, here):
    """Dense nets on images of many pixels are not refused, and said to be the wrong ones."""
    np.save(tmp_path / "x.npy", np.linspace(0, 1, 40 * 64 * 64, dtype=np.float32).reshape(40, 64, 64))
    (tmp_path / "gan.yaml").write_text("data: {name: images, root: x.npy}\nalgorithm: {batch_size: 10}\n")
    answer = here("run", "gan.yaml", "--dry-run", "-q")
    assert answer.code == 0, answer.err
    assert "note   dense nets on 64 x 64 grey pixels" in answer.out
    assert "time " not in answer.out


@pytest.mark.parametrize(
    ("name", "said"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("cifar10", "CIFAR-10")]
)
def test_dry_run_fetches_nothing_and_makes_no_folder(name, said, tmp_path, here):
    """Data that are not there are named, with where they should be, and left to be fetched by the run itself."""
    (tmp_path / "gan.yaml").write_text(
        f"data: {{name: {name}, root: deep/data}}\nnetwork: {{generator: {{hidden: [8]}}}}\n"
    )
    failed(here("run", "gan.yaml", "--dry-run"), 3, f"{said} is missing (deep/data", "a dry run downloads nothing")
    assert [path.name for path in tmp_path.iterdir()] == ["gan.yaml"]


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
    run.folder.delete("records/train.json")
    (run.folder.local / "run.json").write_text(json.dumps({"run": "fresh"}))
    failed(here("runs", "status", "fresh", "--storage", "st"), 4, "damaged file", "run.json")
