"""Ray Train: the bits of gan_core alone, for any number of workers, stopped, damaged or killed on the way."""

import os
import signal
import threading
import time
from dataclasses import replace

import pytest
import ray

from gan_core.checkpoint import tensors_digest
from gan_core.conditions.base import UNCONDITIONAL
from gan_core.errors import CheckpointError, Diverged
from gan_core.threads import one_thread
from gan_core.training import initial_state, train
from pipelines import config
from pipelines.runs.resume import resume
from pipelines.runtime import ray_session
from pipelines.search.results_store import open_segment
from pipelines.stages.train import Validation, gan_training, train_run
from pipelines.storage import Storage, checkpoint_names, latest_checkpoint, save_checkpoint
from pipelines.storage.metric_log import read_history
from tests.pipelines.conftest import trained_alone, until

TIMES = ("time_ms", "steps_per_second", "images_per_second")


def digests(settings, digits, steps):
    """The digests of all weights and of G's, as gan_core alone trains them."""
    tensors = trained_alone(settings, digits, steps).tensors()
    return tensors_digest(tensors["generator"], tensors["discriminator"]), tensors_digest(tensors["generator"])


def metrics_alone(settings, digits, steps, every):
    """Each reported step's metrics, as gan_core alone computes them."""
    state = initial_state(settings, digits.train)
    with one_thread():
        reports = train(settings, digits.train, state, steps, lambda step: step % every == 0)
        return [timeless({"step": report.step, **report.metrics}) for report in reports]


def timeless(row):
    return {key: value for key, value in row.items() if key not in TIMES}


def silent(line):
    pass


@pytest.fixture(scope="module")
def one_worker(small):
    """One worker that adds up the two shards which two workers would share."""
    return config.override(small, {"train.workers": 1, "train.virtual_shards": 2})


@pytest.fixture(scope="module")
def stopped(one_worker, digits, ray_cluster, tmp_path_factory):
    """A training of 100 steps, and the same folder's after damage to its newest checkpoint and to Ray's snapshot, gone on to 200."""
    run = Storage.at(tmp_path_factory.mktemp("stopped"))
    half = config.override(one_worker, {"algorithm.steps": 100})
    first = train_run(half, digits, run, silent)
    kept = checkpoint_names(run.child("checkpoints"))
    newest = run.child("checkpoints", "step=00000100")
    content = newest.read("generator.safetensors")
    newest.write("generator.safetensors", content[:-1] + bytes([content[-1] ^ 1]))
    run.child("ray-train").write("checkpoint_manager_snapshot.json", b'{"checkpoint_results": [')
    return first, kept, train_run(one_worker, digits, run, silent), run


@pytest.mark.parametrize(
    ("cpu", "line"), [(1, "goes on from step 60 of candidate 3"), (2, "starts at step 0: trials had 2")]
)
def test_the_winners_training_goes_on_with_the_same_bits(cpu, line, one_worker, digits, ray_cluster, tmp_path):
    """A training goes on from a search's last rung, with its curve, to the bits of one that nothing disturbed.

    Trials with other threads have other bits: then it starts over.
    """
    configuration = config.override(
        one_worker, {"algorithm.steps": 100, "tune.resources_per_trial.cpu": cpu, "train.report_every": 20}
    )
    run = Storage.at(tmp_path)
    segment = open_segment(run.child("tune", "findings"), {"candidate": 3, "seed": 0}, None)
    state = trained_alone(configuration.training(), digits, 60)
    for step in (20, 40, 60):
        segment.log_metrics({"step": step, "value": 0.5})
    segment.commit({"step": 60, "status": "diverged"}, state.tensors())
    searched = {
        "candidate": 3, "segment": segment.name, "step": 60, "finalists": [], "failed_trainings": [],
    }  # fmt: skip
    said = []
    record = train_run(configuration, digits, run, said.append, searched=searched)
    assert (record.weights_sha256, record.generator_sha256) == digests(configuration.training(), digits, 100)
    assert [text for text in said if line in text]
    history = read_history(run.child("history"))
    assert [row["step"] for row in history] == [20, 40, 60, 80, 100]
    assert [row["value"] for row in history[:3]].count(0.5) == (3 if cpu == 1 else 0)


@pytest.mark.parametrize(
    ("own", "other", "coverage", "fails"),
    [(1e3, 1e3, 3.0, True), (1e3, -1e3, 3.0, False), (-1e3, 1e3, 3.0, False), (1e3, 1e3, 0.0, False)],
)
def test_a_training_fails_only_if_it_has_collapsed(own, other, coverage, fails, one_worker, digits):
    """Worse than it was, worse than the runner-up was, and covering half of what it did: a score alone may dip."""
    at_rung = {"candidate": 1, "log_likelihood": own, "standard_error": 0.5, "coverage": coverage}
    runner_up = {**at_rung, "candidate": 2, "log_likelihood": other}
    validation = Validation((20,), one_worker, digits.validation, UNCONDITIONAL, at_rung, runner_up)
    state = trained_alone(one_worker.training(), digits, 20)
    if fails:
        with pytest.raises(Diverged, match=r"failing training \(step 20\): validation log-likelihood -"):
            validation.check(state)
    else:
        assert set(validation.check(state)) == {"validation_log_likelihood", "validation_coverage"}


def test_one_worker_has_the_bits_of_gan_core_alone(stopped, one_worker, digits):
    first, kept, _, run = stopped
    assert (first.weights_sha256, first.generator_sha256) == digests(one_worker.training(), digits, 100)
    assert (first.step, first.device, kept) == (100, "cpu", ["step=00000050", "step=00000100"])
    assert first.checkpoint == run.child("checkpoints", "step=00000100").uri
    assert first.run == run.uri.rsplit("/", 1)[-1]


def test_two_workers_equal_one_with_two_shards(finished, one_worker, small, digits):
    """Two workers have the bits of one that adds up the same two shards."""
    chosen = finished.record("tune")["chosen"]
    alone = digests(config.override(one_worker, chosen).training(), digits, 200)
    trained = finished.record("train")
    assert small.train.workers == 2
    assert (trained["weights_sha256"], trained["generator_sha256"]) == alone


def test_continued_training_equals_the_undisturbed_one(stopped, one_worker, digits):
    """Stopped at step 100 and continued to 200, a training has the bits of an undisturbed one."""
    _, _, whole, _ = stopped
    assert (whole.weights_sha256, whole.generator_sha256) == digests(one_worker.training(), digits, 200)
    assert whole.step == 200


def test_damaged_checkpoint_leaves_history_whole(stopped, one_worker, digits):
    """Past a damaged checkpoint and a damaged snapshot of Ray's, the history has each step once, to the bit."""
    _, _, _, run = stopped
    segments = run.child("history").names()
    assert {"00000060-00000100.jsonl", "00000110-00000150.jsonl"} < set(segments)
    assert [timeless(row) for row in read_history(run.child("history"))] == metrics_alone(
        one_worker.training(), digits, 200, 10
    )
    assert checkpoint_names(run.child("checkpoints")) == ["step=00000150", "step=00000200"]


def test_checkpoint_has_recorded_weights_and_sources(stopped, one_worker, digits):
    """The weights are those of the record, and the checkpoint notes what they were made from."""
    _, _, whole, run = stopped
    name, manifest, tensors = latest_checkpoint(run.child("checkpoints"))
    assert whole.checkpoint.endswith(name)
    assert tensors_digest(tensors["generator"], tensors["discriminator"]) == whole.weights_sha256
    assert manifest.about["data_digest"] == digits.digest
    assert manifest.about["training"] == config.to_plain(one_worker.training())


def test_another_seed_is_another_training(one_worker, digits):
    other = replace(one_worker.training(), seed=1)
    assert digests(other, digits, 20) != digests(one_worker.training(), digits, 20)


def disturbed(digits, run, settings, class_name, disturb):
    """A training in which, once it has gone some way, something is done to the pid of an actor of this class."""
    from ray.util.state import list_actors

    done = []

    def wait_and_disturb():
        until(lambda: checkpoint_names(run.child("checkpoints")))
        alive = list_actors(address, filters=[("class_name", "=", class_name), ("state", "=", "ALIVE")])
        until(lambda: "step=00000100" in checkpoint_names(run.child("checkpoints")))
        disturb(max(actor.pid for actor in alive))
        done.append(checkpoint_names(run.child("checkpoints"))[-1])

    address = ray.get_runtime_context().gcs_address  # ours: the machine may run other clusters
    thread = threading.Thread(target=wait_and_disturb, daemon=True)
    thread.start()
    said = []
    record = train_run(settings, digits, run, said.append)
    thread.join()
    assert "step=00000100" <= done[0] < f"step={settings.algorithm.steps:08d}", "over before it was disturbed"
    assert (record.weights_sha256, record.generator_sha256) == digests(
        settings.training(), digits, settings.algorithm.steps
    )
    assert [timeless(row) for row in read_history(run.child("history"))] == metrics_alone(
        settings.training(), digits, settings.algorithm.steps, 10
    )
    return said


def test_killed_worker_recovers_to_the_same_bits(small, digits, ray_cluster, tmp_path, monkeypatch):
    """A worker killed in mid-training recovers to the same bits and history, where all are on this machine's loopback."""
    monkeypatch.setattr(ray_session, "started_here", lambda: True)
    settings = config.override(small, {"algorithm.steps": 600, "seed": 3})
    assert settings.train.workers == 2
    disturbed(digits, Storage.at(tmp_path), settings, "RayTrainWorker", lambda pid: os.kill(pid, signal.SIGKILL))


@pytest.mark.slow
def test_killed_controller_recovers_to_the_same_bits(small, digits, ray_cluster, tmp_path):
    """A killed controller is started again, and the bits and the history are the same."""
    settings = config.override(small, {"algorithm.steps": 600, "seed": 3})
    said = disturbed(
        digits, Storage.at(tmp_path), settings, "TrainController", lambda pid: os.kill(pid, signal.SIGKILL)
    )
    assert [line for line in said if "controller died" in line] == [
        "train  Ray Train's controller died; started again, 1 of at most 3 times"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_hanging_worker_is_found_and_replaced_in_time(workers, small, digits, ray_cluster, tmp_path):
    """A worker that hangs is found within the configured time, and the bits are the same."""
    changes = {"algorithm.steps": 600, "seed": 3, "train.hang_timeout_s": 10.0, "train.workers": workers}
    settings = config.override(small, {**changes, "train.virtual_shards": 2})
    stopped = []

    def hang(pid):
        os.kill(pid, signal.SIGSTOP)
        stopped.append((pid, time.monotonic()))

    disturbed(digits, Storage.at(tmp_path), settings, "RayTrainWorker", hang)
    ((pid, since),) = stopped
    # 10 s until it is found, and what starting workers again takes, times ten; Ray's own are 600 s.
    assert time.monotonic() - since < 300
    assert not os.path.exists(f"/proc/{pid}")


def job(configuration, digits, run):
    return gan_training(run, configuration.training(), configuration.train, digits.digest, digits.shape)


@pytest.mark.parametrize(
    ("key", "value", "was"),
    [
        ("noise.size", 9, "training.noise.size was 8: 9"),
        ("algorithm.generator_learning_rate", 0.2, "training.algorithm.generator_learning_rate was 0.1: 0.2"),
        ("seed", 1, "training.seed was 0: 1"),
        ("train.virtual_shards", 1, "training.virtual_shards was 2: 1"),
    ],
)
def test_checkpoint_of_another_training_is_refused(key, value, was, one_worker, digits, ray_cluster, tmp_path):
    """A checkpoint of another training is refused by the first field that differs, before any worker."""
    run, state = Storage.at(tmp_path), initial_state(one_worker.training(), digits.train)
    save_checkpoint(run.child("checkpoints"), 10, state.tensors(), job(one_worker, digits, run).about, keep=2)
    for again in (
        lambda c: train_run(c, digits, run, silent),
        lambda c: resume(initial_state(c.training(), digits.train), job(c, digits, run)),
    ):
        with pytest.raises(CheckpointError) as caught:
            again(config.override(one_worker, {key: value}))
        field, _, ours = was.partition(":")
        assert (
            f"checkpoint of another training (step=00000010): {field}; expected{ours}; start a new run: --name NAME"
            == str(caught.value)
        )
    assert not (tmp_path / "ray-train").exists()  # no worker was started for it


def test_checkpoint_of_other_data_is_refused(one_worker, digits, tmp_path):
    """A checkpoint of other data is refused, and one for a longer training is not."""
    run, state = Storage.at(tmp_path), trained_alone(one_worker.training(), digits, 3)
    other = {**job(one_worker, digits, run).about, "data_digest": "0" * 64}
    save_checkpoint(run.child("checkpoints"), 3, state.tensors(), other, keep=2)
    fresh = initial_state(one_worker.training(), digits.train)
    with pytest.raises(CheckpointError, match="data_digest was 0000"):
        resume(fresh, job(one_worker, digits, run))
    longer = config.override(one_worker, {"algorithm.steps": 999})
    save_checkpoint(run.child("checkpoints"), 3, state.tensors(), job(one_worker, digits, run).about, keep=2)
    resume(fresh, job(longer, digits, run))
    assert int(fresh.step) == 3
    assert tensors_digest(*fresh.tensors().values()) == tensors_digest(*state.tensors().values())


def test_no_valid_checkpoint_fails_before_any_worker(one_worker, digits, ray_cluster, tmp_path):
    """With checkpoints of which none is valid there is an error before any worker."""
    run = Storage.at(tmp_path)
    run.child("checkpoints", "step=00000010").write("generator.safetensors", b"half")
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        train_run(one_worker, digits, run, silent)
    assert not (tmp_path / "ray-train").exists()
