"""`data.streaming`: images decoded once by Ray Data, from a disk or S3, and trained on to the bits of a data set in memory."""

import dataclasses
import io
import re

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from gan_core.checkpoint import tensors_digest
from gan_core.datasets import DataSettings
from gan_core.errors import ConfigurationError, DataError
from pipelines import config
from pipelines.data import image_files
from pipelines.data import streaming as stored_images
from pipelines.storage import Storage, image_cache
from tests.pipelines.conftest import ANY_MODEL, gan, trained_alone

IMAGES = np.random.default_rng(0).integers(0, 256, (300, 6, 5, 3), dtype=np.uint8)
NETS = {
    "noise": {"size": 4},
    "network": {"generator": {"hidden": [8]}, "discriminator": {"units": [6], "pieces": 2}},
    "algorithm": {"batch_size": 20, "steps": 60},
    "train": {"workers": 2, "checkpoint_every": 30, "report_every": 30},
    "evaluate": {"samples": 50, "folds": 2},
    "registry": {"model": "gan-streamed", "gate": ANY_MODEL},
}


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


ENCODED = [png(image) for image in IMAGES]


@pytest.fixture
def root(request, tmp_path):
    """A folder of images: as files, or as Parquet of several files and row groups."""
    folder = tmp_path / "images"
    folder.mkdir()
    if request.param == "files":
        for index, content in enumerate(ENCODED):
            (folder / f"{index:04}.png").write_bytes(content)
    else:
        for part in range(3):
            table = pyarrow.table({"image": ENCODED[part * 100 : part * 100 + 100]})
            parquet.write_table(table, folder / f"{part}.parquet", row_group_size=40)
    return folder


def settings(root, **more):
    return DataSettings("images", str(root), **{"size": (4, 3), "channels": "colour", "streaming": True, **more})


def load(settings, storage):
    said = []
    return stored_images.load(settings, storage, said.append, "it"), said


@pytest.mark.parametrize("root", ["files", "parquet"], indirect=True)
def test_streamed_data_set_equals_the_one_in_memory(root, ray_cluster, tmp_path, monkeypatch):
    """Streamed images are the data set in memory to the bit, and so is a training on it."""
    monkeypatch.setattr(stored_images, "FILES_AT_A_TIME", 70)
    storage = Storage.at(tmp_path / "st")
    found, said = load(settings(root), storage)
    assert (len(said), said[-1]) == (2, "data   300 images")
    memory = image_files.load(settings(root, streaming=False))
    assert (found.digest, found.shape) == (memory.digest, memory.shape)
    assert dataclasses.replace(found, noted_digest=None).digest == memory.digest  # the one noted is the true one
    assert found.train.total_variance == memory.train.total_variance
    training = config.build(NETS).training()
    ours, theirs = (trained_alone(training, data, 60).tensors() for data in (found, memory))
    for group in ("generator", "discriminator"):
        assert tensors_digest(ours[group]) == tensors_digest(theirs[group])


@pytest.mark.parametrize("root", ["parquet"], indirect=True)
def test_images_are_decoded_once_until_inputs_change(root, ray_cluster, tmp_path):
    """Images are decoded once, until a file, the size or the colours change."""
    storage = Storage.at(tmp_path / "st")
    found, _ = load(settings(root), storage)
    again, said = load(settings(root), storage)
    assert (again.digest, said) == (found.digest, ["data   300 images"])
    (name,) = image_cache.names(storage)
    assert storage.child("rows", name, "readers").names() == ["it"]
    assert np.array_equal(again.train.images[:], found.train.images[:])
    assert load(settings(root, size=(5, 3)), storage)[0].shape == (5, 3, 3)
    assert load(settings(root, channels="grey"), storage)[0].shape == (4, 3)
    parquet.write_table(pyarrow.table({"image": ENCODED[:50]}), root / "2.parquet")
    changed, said = load(settings(root), storage)
    assert len(changed.train) == 250 - 10 - 15 - 25  # 4, 6 and 10 %, at least 10
    assert (len(said), said[-1]) == (2, "data   250 images")


@pytest.mark.slow
@pytest.mark.parametrize("root", ["parquet"], indirect=True)
def test_streaming_on_s3_is_equal_and_checks_rows(root, bucket, tmp_path, monkeypatch):
    """From S3 into S3 the data set is the same, and damaged rows are refused."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place = Storage.at(bucket).child(tmp_path.name)
    for path in root.iterdir():
        place.child("images").write(path.name, path.read_bytes())
    data = {
        "name": "images",
        "root": place.child("images").uri,
        "size": [4, 3],
        "channels": "colour",
        "streaming": True,
    }
    (tmp_path / "it.yaml").write_text(config.to_yaml(config.build({**NETS, "data": data})))
    # A cluster of its own, whose workers have the store's credentials.
    uri = ("--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
    planned = gan("run", "it.yaml", "--storage", place.uri, *uri, "--dry-run", "--json", cwd=tmp_path)
    assert planned.code == 0, planned.err
    found, said = load(settings(place.child("images").uri), place)
    assert said == ["data   300 images"]
    memory = image_files.load(settings(root, streaming=False))
    assert found.digest == memory.digest
    assert np.array_equal(found.train.images[:], memory.train.images)
    (folder,) = (place.child("rows", name) for name in image_cache.names(place))
    name = next(name for name in folder.names() if name != "about.json")
    content = folder.read(name)
    folder.write(name, content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "another-machine"))
    with pytest.raises(DataError, match=r"damaged rows .*: its SHA-256 is another"):
        load(settings(place.child("images").uri), place)


@pytest.mark.parametrize("root", ["parquet"], indirect=True)
def test_unreadable_image_is_named_by_file_and_row(root, ray_cluster, tmp_path):
    """A task's fault is told by file and row, and nothing unfinished is taken for whole."""
    storage = Storage.at(tmp_path / "st")
    table = pyarrow.table({"image": [*ENCODED[:70], ENCODED[70][:40], *ENCODED[71:100]]})
    parquet.write_table(table, root / "1.parquet", row_group_size=40)
    with pytest.raises(DataError, match=re.escape(f"unreadable image ({root}/1.parquet, row 70)")):
        load(settings(root), storage)
    (folder,) = image_cache.names(storage)
    assert "about.json" not in storage.child("rows", folder).names()
    parquet.write_table(pyarrow.table({"image": ENCODED[100:200]}), root / "1.parquet")
    assert load(settings(root), storage)[0].digest == image_files.load(settings(root, streaming=False)).digest


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "digits", "streaming": True}, "is for data.name images"),
        ({"name": "images", "streaming": True, "channels": "grey"}, "needs data.size"),
        ({"name": "images", "streaming": True, "size": [4, 4]}, "data.channels"),
        (
            {"name": "images", "streaming": True, "size": [4, 4], "channels": "grey", "preprocessing": "global_contrast_normalisation"},
            "use none",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_known_beforehand_has_to_be_said(values, words):
    with pytest.raises(ConfigurationError, match=words):
        config.build({"data": values})


def test_a_place_without_images_is_refused_before_any_task(tmp_path):
    storage = Storage.at(tmp_path / "st")
    with pytest.raises(DataError, match="no such folder"):
        load(settings(tmp_path / "none"), storage)
    with pytest.raises(DataError, match=r"no PNG, .* or TIFF file, and no Parquet file"):
        load(settings(tmp_path), storage)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"unreadable file .*x.parquet"):
        load(settings(tmp_path), storage)


@pytest.mark.slow
@pytest.mark.parametrize("root", ["parquet"], indirect=True)
def test_streamed_run_equals_one_in_memory(root, tmp_path):
    """A whole run streamed to two workers has the weights and scores of one in memory."""
    answers = []
    for streaming in (True, False):
        data = {"name": "images", "root": str(root), "size": [4, 3], "channels": "colour", "streaming": streaming}
        path = tmp_path / f"{streaming}.yaml"
        path.write_text(config.to_yaml(config.build({**NETS, "data": data})))
        answers.append(gan("run", path, "--name", f"run-{streaming}", "--storage", "st", "--json", cwd=tmp_path))
        assert answers[-1].code == 0, answers[-1].err
    records = [Storage.at(tmp_path / "st" / "runs" / f"run-{one}" / "records") for one in (True, False)]
    for stage, key in (("train", "weights_sha256"), ("evaluate", "log_likelihood"), ("evaluate", "data_digest")):
        ours, theirs = (record.read_json(f"{stage}.json")["record"][key] for record in records)
        assert ours == theirs, key
    assert torch.isfinite(torch.tensor(answers[0].json["log_likelihood"]))
    drawn = gan("figure", "fig2", "run-True", "--output", "f.png", "--storage", "st", cwd=tmp_path)
    assert drawn.code == 0, drawn.err  # the images are found again
