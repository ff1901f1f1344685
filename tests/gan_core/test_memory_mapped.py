"""Images in files: what an array in memory gives, to the bit, and no more of them in memory than is asked for."""

import functools
import itertools
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_core.datasets import Dataset, Examples
from gan_core.datasets.examples import REFERENCES
from gan_core.datasets.memory_mapped import StoredImages
from gan_core.errors import DataError
from gan_core.training import BatchSource


def written(folder, rows, lengths):
    """Rows in files of these lengths, and what finds them."""
    paths = []
    for number, part in enumerate(np.split(rows, np.cumsum(lengths)[:-1])):
        paths.append(Path(folder) / f"{number}")
        paths[-1].write_bytes(part.tobytes())
    return functools.partial(list, paths)


@pytest.fixture
def both(tmp_path):
    """The same images in memory and in files of unequal lengths, in an order that is not the files'."""
    random = np.random.default_rng(0)
    rows, order = random.integers(0, 256, (2500, 12), dtype=np.uint8), random.permutation(2500)[:2400]
    images = rows[order].astype(np.float32)
    images /= np.float32(255)
    lengths = [1, 999, 1100, 400]
    stored = StoredImages(written(tmp_path, rows, lengths), lengths, 12, order)
    return tuple(Examples(one, np.zeros(2400, np.int64)) for one in (images, stored))


@pytest.mark.parametrize("chosen", [slice(None), slice(3, 1200, 7), np.array([2399, 0, 0, 7]), np.array([], np.int64)])
def test_what_is_asked_for_is_what_an_array_gives(both, chosen):
    memory, stored = both
    assert np.array_equal(stored.images[chosen], memory.images[chosen])
    assert stored.images.shape == memory.images.shape


def test_mean_variance_and_digest_have_an_array_s_bits(both):
    memory, stored = both
    assert np.array_equal(stored.pixel_means, memory.pixel_means)
    assert stored.total_variance == memory.total_variance
    assert stored.total_variance == pytest.approx(float(memory.images.astype(np.float64).var(axis=0).sum()), rel=1e-12)
    one, other = (Dataset("images", (4, 3), train, *[memory[:20]] * 3) for train in both)
    assert one.digest == other.digest


def test_memory_mapped_minibatches_equal_array_ones(both):
    """Minibatches of images in files have the bits of those of an array, after pickling too."""
    memory, stored = both
    away = pickle.loads(pickle.dumps(stored))
    for index in (0, 1, 23, 24, 100):  # 24 in an epoch
        expected = BatchSource(5, memory, 100).at(index).data
        for examples in (stored, away):
            assert torch.equal(BatchSource(5, examples, 100).at(index).data, expected)


def numbered(tmp_path, count):
    """Images that are their own numbers, as three bytes each."""
    rows = np.arange(count)[:, None] >> np.array([0, 8, 16]) & 255
    locate = written(tmp_path, rows.astype(np.uint8), [count // 2, count - count // 2])
    order = np.random.default_rng(1).permutation(count)
    return Examples(StoredImages(locate, [count // 2, count - count // 2], 3, order), np.zeros(count, np.int64))


def numbers(batch):
    return (np.rint(batch.data.numpy().astype(np.float64) * 255).astype(np.int64) << np.array([0, 8, 16])).sum(axis=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_resuming_neither_repeats_nor_skips_an_image(tmp_path, workers):
    """A training stopped and resumed at any step sees each image once in each epoch, with 1 or 2 workers."""
    examples, batch = numbered(tmp_path, 70_000), 100
    per_epoch, seen = 700, np.zeros(70_000, np.int64)
    stops = [0, 1, 350, 699, 700, 1000, 1400]  # killed and resumed there, elsewhere, twice in an epoch and at its end
    for start, stop in itertools.pairwise(stops):
        sources = [BatchSource(3, pickle.loads(pickle.dumps(examples)), batch) for _ in range(workers)]
        for index in range(start, stop):
            for rank, source in enumerate(sources):
                size = batch // workers
                seen[numbers(source.at(index, slice(rank * size, (rank + 1) * size)))] += 1
        if stop <= per_epoch:
            assert seen.max() == 1
    assert (seen == 2).all()  # two epochs, each image once in each


def test_epoch_needs_memory_for_minibatches_only(tmp_path):
    """An epoch takes the memory of its minibatches and order, not that of the images."""
    count, width = 50_000, 784
    rows = np.random.default_rng(0).integers(0, 256, (count, width), dtype=np.uint8)
    locate = written(tmp_path, rows, [count])
    del rows
    source = BatchSource(0, Examples(StoredImages(locate, [count], width, np.arange(count)), np.zeros(count)), 100)
    tracemalloc.start()
    try:
        for index in range(0, source.per_epoch, 10):
            source.at(index)
        assert source.data.total_variance > 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 157 MB as floats. The epoch's order is 0.4 MB, twice while it is drawn; a block of 1,000 is 3 MB, in float64 6.
    assert peak < 30e6


def test_samples_are_compared_with_so_many_of_the_first(tmp_path):
    stored = numbered(tmp_path, REFERENCES + 5)
    assert stored.references.shape == (REFERENCES, 3)
    assert np.array_equal(stored.references, stored.images[:REFERENCES])
    memory = Examples(stored.images[:], stored.labels)
    assert memory.references is memory.images


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes()[:-1])])  # fmt: skip
def test_missing_or_truncated_files_are_named(tmp_path, change):
    """Files that are gone or cut short are refused by name."""
    examples = numbered(tmp_path, 100)
    change(tmp_path / "1")
    with pytest.raises(DataError, match=r"rows.*\(.*/1\)"):
        examples.images[:1]
