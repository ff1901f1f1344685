"""The training driver, for what it is given beside G and D: the encoder is saved, stopped and recovered as they are."""

import os
import resource
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ray import cloudpickle
from ray.train import FailureConfig, WorkerGroupError

from gan_core.checkpoint import tensors_digest
from gan_core.conditions.settings import InferenceSettings
from gan_core.errors import CheckpointError
from gan_core.extensions.inference import initial_encoder, train_encoder
from gan_core.threads import one_thread
from pipelines.runs.resume import resume
from pipelines.stages.failure_policy import FailurePolicy, as_worker_raises, own_errors
from pipelines.stages.train import gan_training
from pipelines.stages.train_encoder import encoder_training
from pipelines.stages.training_driver import CheckpointWriter, _save_before_leaving, run_training
from pipelines.storage import Storage, checkpoint_names, latest_checkpoint, save_checkpoint
from pipelines.storage.metric_log import read_history
from tests.pipelines.conftest import principal_generator

STEPS = 200
SETTINGS = InferenceSettings(hidden=(16,), steps=STEPS)


@pytest.fixture
def encoder(small, digits, tmp_path):
    """The training of a closed-form generator's encoder."""
    settings = replace(small.train, checkpoint_every=50, report_every=10)
    return encoder_training(Storage.at(tmp_path), principal_generator(digits, 8), SETTINGS, settings, 0, digits.digest)


@pytest.fixture
def gan(small, digits, tmp_path):
    return gan_training(Storage.at(tmp_path), small.training(), small.train, digits.digest, digits.shape)


@pytest.fixture
def reports_alone(digits):
    """The encoder's reports and its last weights' digest, by gan_core alone."""
    model = principal_generator(digits, 8)
    state = initial_encoder(SETTINGS, model, 0)
    with one_thread():
        reports = train_encoder(model, SETTINGS, 0, digits.train, state, lambda step: step % 10 == 0)
        rows = [{"step": report.step, **report.metrics} for report in reports]
    return rows, tensors_digest(state.encoder.state_dict())


@pytest.mark.parametrize("kind", ["encoder", "gan"])
def test_a_preempted_driver_gets_a_checkpoint(kind, digits, request):
    """The driver's request is answered at the next report, with a checkpoint and its step, far from a step to save at."""
    spec = request.getfixturevalue(kind)
    driver = threading.Thread(target=_save_before_leaving, args=(spec,))
    writer, state = CheckpointWriter(spec), spec.initial_state(digits.train)
    with one_thread():
        for report in spec.reports(digits.train, state, lambda step: True, 0, 1):
            if report.step == 3:
                driver.start()
                while spec.folder.read_json("stop.json") is not True:
                    time.sleep(0.01)
                writer.polled_at = 0.0  # as if it had been half a second
            writer.on_report(report, at_checkpoint=False)
            if report.step == 3:
                break
    driver.join()
    name, _, tensors = latest_checkpoint(spec.checkpoints)
    assert (name, int(tensors["optimizer"]["step"])) == ("step=00000003", 3)
    assert [row["step"] for row in read_history(spec.folder.child("history"))] == [1, 2, 3]


def test_nobody_waits_for_workers_that_have_not_begun(gan):
    """A signal early in a training took nine seconds, and a line named a checkpoint that was not there."""
    started = time.monotonic()
    _save_before_leaving(gan)
    assert time.monotonic() - started < 1
    assert gan.folder.read_json("stop.json") is None


def test_an_encoder_s_checkpoint_of_other_settings_is_refused(encoder, digits):
    state = encoder.initial_state(digits.train)
    with one_thread():
        CheckpointWriter(encoder).on_report(next(encoder.reports(digits.train, state, lambda step: True, 0, 1)), True)
    resumed = encoder.initial_state(digits.train)
    resume(resumed, encoder)
    assert tensors_digest(*resumed.tensors().values()) == tensors_digest(*state.tensors().values())
    other = replace(encoder, about={**encoder.about, "seed": 1})
    with pytest.raises(CheckpointError) as caught:
        resume(encoder.initial_state(digits.train), other)
    error = "checkpoint of another training (encoder/step=00000001): seed was 0; expected 1; remove the folder"
    assert str(caught.value) == error


def test_a_killed_encoder_worker_recovers_to_the_same_bits(encoder, digits, reports_alone, ray_cluster, tmp_path):
    """SIGKILL after step 120: the next worker goes on from step 100, and weights, history and files are as undisturbed."""
    mark, once = Path(tmp_path / "killed"), encoder.reports

    def killed_once(*arguments):
        for report in once(*arguments):
            yield report
            if report.step == 120 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    assert run_training(replace(encoder, reports=killed_once), digits.train, lambda line: None) == "cpu"
    rows, digest = reports_alone
    _, manifest, tensors = latest_checkpoint(encoder.checkpoints)
    assert mark.exists()
    assert (manifest.step, manifest.about) == (STEPS, encoder.about)
    assert tensors_digest(tensors["encoder"]) == digest
    assert read_history(encoder.folder.child("history")) == rows
    assert checkpoint_names(encoder.checkpoints) == ["step=00000150", "step=00000200"]


@pytest.mark.parametrize(("room", "decision"), [(10, "RAISE"), (None, "RETRY")])
def test_a_full_disk_is_not_tried_again(room, decision, gan, digits):
    """What a worker's refused checkpoint, as it reaches Ray Train's controller, leads to; another refusal to new workers."""
    state, soft = gan.initial_state(digits.train), resource.getrlimit(resource.RLIMIT_FSIZE)
    if room is None:
        gan.checkpoints.local.parent.mkdir(exist_ok=True)
        gan.checkpoints.local.write_text("a file where the folder is to be")
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, soft[1]))
    try:
        with pytest.raises(CheckpointError) as caught:
            save_checkpoint(gan.checkpoints, 1, state.tensors(), {}, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    sent = cloudpickle.loads(cloudpickle.dumps(as_worker_raises(caught.value)))
    failed = WorkerGroupError("rank 0", {0: sent, 1: RuntimeError("connection closed by peer")})
    assert FailurePolicy(FailureConfig(max_failures=3)).make_decision(failed).value == decision
    assert str(next(own_errors(failed))) == str(caught.value)
