"""Virtual shards: one binary tree of additions, to the bit, over any number of real processes."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
from hypothesis import given
from hypothesis import strategies as st

from gan_core.algorithm1 import AlgorithmSettings
from gan_core.checkpoint import tensors_digest
from gan_core.data_parallel import Shards, tree_sum
from gan_core.datasets.digits import load_digits
from gan_core.networks.convolutional import (
    ConvolutionalDiscriminatorSettings,
    ConvolutionalGeneratorSettings,
    ConvolutionalSettings,
)
from gan_core.networks.dense import DenseDiscriminatorSettings, DenseGeneratorSettings, NetworkSettings
from gan_core.training import TrainingSettings, initial_state, train
from tests.conftest import fork_server

VIRTUAL, BATCH = 4, 40
# 1 + 2^-24 is 1 in float32, 2^-24 + 2^-24 is not nothing: the order of addition shows.
TELLTALE = [1.0, 2.0**-24, 2.0**-24, 2.0**-24]
SETTINGS = TrainingSettings(
    network=NetworkSettings(
        generator=DenseGeneratorSettings(hidden=(24,)),
        discriminator=DenseDiscriminatorSettings(units=(16,), pieces=2, init_range=0.05),
    ),
    algorithm=AlgorithmSettings(batch_size=BATCH, discriminator_steps=2, share_draws=False),
    virtual_shards=VIRTUAL,
)
CONVOLUTIONAL = replace(
    SETTINGS,
    network=ConvolutionalSettings(
        generator=ConvolutionalGeneratorSettings(channels=(6, 4)),
        discriminator=ConvolutionalDiscriminatorSettings(channels=(4, 6), spectral_norm=True),
    ),
)


def test_tree_sum_adds_pairs_of_pairs():
    """The sum adds pairs, then pairs of pairs, whose rounding differs from adding one after the other."""
    values = [torch.tensor([value]) for value in [*TELLTALE, 1e8, 1.0, -1e8, 1.0]]
    a, b, c, d, e, f, g, h = [value.clone() for value in values]
    tree, sequence = ((a + b) + (c + d)) + ((e + f) + (g + h)), sum(value.clone() for value in values)
    assert torch.equal(tree_sum([[value] for value in values])[0], tree)
    assert not torch.equal(tree, sequence)


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]), st.integers(1, 5))
def test_shards_partition_the_batch_in_order(workers, share, size):
    """The rows of all workers' shards are a partition of the batch, in order and of equal sizes."""
    virtual = workers * share
    seen = []
    for rank in range(workers):
        shards = Shards(virtual * size, virtual, workers, rank)
        mine = list(range(virtual * size))[shards.rows]
        parts: list[list[int]] = []
        # As one worker of its own rows: no exchange with others is asked for.
        Shards(len(mine), share).sum(lambda rows, mine=mine, parts=parts: parts.append(mine[rows]) or [torch.zeros(1)])
        assert [len(part) for part in parts] == [size] * share
        seen += [row for part in parts for row in part]
    assert seen == list(range(virtual * size))


@pytest.mark.parametrize("virtual", [1, 2, 4, 8])
def test_sum_of_shard_shares_is_the_mean_over_rows(virtual):
    """Summed over the shards, each with its share, a mean of rows is the mean over the whole batch."""
    x = torch.randn(24, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shards = Shards(24, virtual)
    (mean,) = shards.sum(lambda rows: [shards.share * x[rows].mean(dim=0)])
    # 24 additions in float64.
    torch.testing.assert_close(mean, x.mean(dim=0), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 10, "virtual": 4}, "batch_size 10 cannot be shared by 4 shards; use 8 or 12$"),
        ({"batch_size": 3, "virtual": 4}, "batch_size 3 cannot be shared by 4 shards; use 4$"),
        ({"batch_size": 12, "virtual": 3}, "virtual_shards 3 is not a power of two"),
        ({"batch_size": 12, "virtual": 0}, "virtual_shards 0 is not a power of two"),
        ({"batch_size": 12, "virtual": 4, "workers": 3}, "workers 3 is not a power of two"),
        ({"batch_size": 12, "virtual": 2, "workers": 4}, "virtual_shards 2 cannot be shared by 4 workers"),
    ],
)
def test_indivisible_sizes_are_refused_with_ones_that_fit(arguments, message):
    """Sizes that do not divide are refused in one line that names sizes that do."""
    with pytest.raises(ValueError, match=message):
        Shards(**arguments)
    Shards(8, 4, 2, 1)
    Shards(12, 4, 4, 3)


def work(rank: int, workers: int, folder: Path) -> None:
    """What each process does: one sum that tells the order, and a training of some steps."""
    torch.set_num_threads(1)
    if workers > 1:
        meeting = f"file://{folder}/meeting-{workers}"
        distributed.init_process_group(
            "gloo", init_method=meeting, rank=rank, world_size=workers, timeout=timedelta(minutes=5)
        )
    shards = Shards(VIRTUAL, VIRTUAL, workers, rank)
    mine = torch.tensor(TELLTALE)[shards.rows]
    (total,) = shards.sum(lambda rows: [mine[rows].sum(dim=0)])
    digits = load_digits()
    seen = [total.item().hex()]
    for settings in (SETTINGS, CONVOLUTIONAL):
        state = initial_state(settings, digits.train, digits.shape)
        shards = Shards(BATCH, VIRTUAL, workers, rank)
        (report,) = train(settings, digits.train, state, 3, lambda step: False, shards)
        seen += [report.metrics[name].hex() for name in ("discriminator_loss", "generator_loss", "real_accuracy")]
        seen.append(tensors_digest(*state.tensors().values()))
    (folder / f"{workers}-{rank}").write_text("\n".join(seen))
    if workers > 1:
        distributed.destroy_process_group()


def test_1_2_and_4_processes_get_the_same_bits(tmp_path):
    context = fork_server(__name__)
    for workers in (1, 2, 4):
        processes = [context.Process(target=work, args=(rank, workers, tmp_path)) for rank in range(workers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * workers
    found = {path.name: path.read_text() for path in tmp_path.glob("?-?")}
    assert sorted(found) == ["1-0", "2-0", "2-1", "4-0", "4-1", "4-2", "4-3"]
    assert len(set(found.values())) == 1
    # The tree's sum, which one worker after the other would not have made.
    assert float.fromhex(found["1-0"].splitlines()[0]) == 1 + 2**-23
    assert sum(torch.tensor(TELLTALE)).item() / VIRTUAL == 1 / VIRTUAL
