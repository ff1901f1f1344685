"""The first look at images of one's own: what it refuses, and that a run refuses the same in the same words."""

import io

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from gan_core.datasets import DataSettings, images
from gan_core.errors import DataError
from pipelines import config
from pipelines.data.image_files import load
from pipelines.data.survey import survey
from pipelines.names import MODEL_NAME, model_name
from pipelines.runs import estimate
from tests.pipelines.conftest import failed

BYTES = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 4), dtype=np.uint8)
REFUSED = {
    "int64": BYTES[..., 0].astype(np.int64),
    "bool": BYTES[..., 0] > 100,
    "bytes of 0 and 1": BYTES[..., 0] // 128,
    "four channels": BYTES,
    "floats to 255": BYTES[..., 0].astype(np.float32),
    "constant": np.full((40, 6, 5), 0.5),
    "not finite": np.where(BYTES[..., 0] > 100, np.nan, 0.5),
    "too few": BYTES[:39, ..., 0],
    "no images": np.zeros((0, 6, 5)),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_array_is_refused_as_a_run_would(kind, tmp_path):
    """What the look refuses of an array, and how, is what the data set's own loader does."""
    np.save(tmp_path / "x.npy", REFUSED[kind])
    refusals = []
    for read in (survey, lambda path: load(DataSettings("images", str(path)))):
        with pytest.raises(DataError) as refused:
            read(tmp_path / "x.npy")
        refusals.append(str(refused.value))
    assert refusals[0] == refusals[1]


@pytest.mark.parametrize(
    ("array", "channels"),
    [(BYTES[..., 0], "grey"), (BYTES[..., :1], "grey"), (BYTES[..., :3] / 255, "colour")],
    ids=["bytes", "one channel", "colour"],
)
def test_an_array_is_seen_as_it_is(array, channels, tmp_path):
    np.save(tmp_path / "x.npy", array)
    seen = survey(tmp_path / "x.npy")
    assert (seen.images, seen.size, seen.channels) == (40, (6, 5), channels)


def test_damaged_parquet_is_one_line(tmp_path, here):
    """A Parquet file that is damaged ends `gan init` with a line and code 3, as it ends a run."""
    whole = io.BytesIO()
    parquet.write_table(pyarrow.table({"image": [b"x"] * 41}), whole)
    for content in (b"", b"PAR1", whole.getvalue()[:-1]):
        (tmp_path / "x.parquet").write_bytes(content)
        failed(here("init", "x.parquet"), 3, "unreadable file (x.parquet)", "expected a whole Parquet file")


def test_an_image_too_large_is_refused_unread(tmp_path, monkeypatch):
    """The look reads no more of an image file than a run would."""
    monkeypatch.setattr(images, "MOST_BYTES", 100)
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(b"x" * 101)
    with pytest.raises(DataError, match=r"unreadable image \(.*\.png\): 101 bytes, of at most 100"):
        survey(tmp_path)


@pytest.mark.parametrize("stem", ["split=train", "a", "x" * 200, "...", ""])
def test_model_names_are_valid(stem):
    assert MODEL_NAME.fullmatch(model_name(stem))


def test_init_of_a_partition_writes_what_loads(tmp_path, here, monkeypatch):
    """A folder named as a partition, `split=train`, gives a model whose name the configuration takes."""
    monkeypatch.setattr(estimate, "SECONDS", 0.0)  # of timed steps
    (tmp_path / "split=train").mkdir()
    for number, image in enumerate(BYTES[..., 0]):
        Image.fromarray(image).save(tmp_path / "split=train" / f"{number}.png")
    answer = here("init", "split=train")
    assert answer.code == 0, answer.err
    assert config.load(tmp_path / "gan.yaml").registry.model == "gan-split-train"
