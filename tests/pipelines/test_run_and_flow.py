"""A run does each stage once, in order, and whatever stops it, the same command finishes it."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version

import pytest

import pipelines
from gan_core.checkpoint import tensors_digest
from gan_core.datasets import load
from gan_core.errors import CheckpointError, ConfigurationError, DataError
from pipelines import config
from pipelines.evaluation.scores import evaluate_arrays
from pipelines.flow import Flow, Pipeline
from pipelines.registry import Registry
from pipelines.reporting import figures
from pipelines.runs.recorded_run import run_names
from pipelines.runs.records import RECORDS, STAGES, ReportRecord, TuneRecord
from pipelines.runs.run import Run
from pipelines.runs.run_name import checked_run_name, slug
from pipelines.stages import table
from pipelines.stages.training_samples import read_strip
from pipelines.storage import Storage, checkpoint_names
from pipelines.storage.metric_log import read_history
from tests.pipelines.conftest import gan, kill_group, start_gan, trained_alone, until


def create(configuration, storage, name=None):
    return Run.create(configuration, "stem", name, storage)


@pytest.fixture
def storage(tmp_path):
    return Storage.at(tmp_path / "storage")


# Runs


def test_unnamed_run_is_named_after_file_and_digest(small, storage):
    """A run without a name is named after its file and its configuration, and making one writes nothing."""
    run, same, other = (create(c, storage) for c in (small, small, config.override(small, {"seed": 1})))
    assert run.name == same.name != other.name
    assert run.name.startswith("stem-")
    assert len(run.name) == len("stem-") + 8
    assert int(run.name[5:], 16) >= 0
    assert not storage.local.exists()  # making one writes nothing


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("digits", "digits"), ("tiny (1)", "tiny-1"), ("my conf", "my-conf"), ("été", "ete"), ("цифры", "run"),
        ("..", "run"), ("-x", "x"), ("a/b\n", "a-b"), ("x" * 200, "x" * 100),
    ],
)  # fmt: skip
def test_any_file_name_gives_a_run_name(stem, name, small, storage):
    """A configuration may be called anything; its run's name is one folder everywhere."""
    assert slug(stem) == name
    assert Run.create(small, stem, None, storage).name.rpartition("-")[0] == name


@pytest.mark.parametrize("name", ["a", "night-2026.11.24_x=1", "_", "x" * 128])
def test_names_that_are_one_folder_everywhere_pass(name):
    assert checked_run_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", ".hidden", "-x", "a\nb", "a\0b", "a b", "é", "x" * 129, "a\\b", "a\n"]
)
def test_names_that_are_not_are_refused_in_one_line(name):
    with pytest.raises(ConfigurationError, match=r"not a run name \(--name\).*1 to 128 of A-Z") as caught:
        checked_run_name(name)
    assert len(str(caught.value).splitlines()) == 1


def test_seed_called_name_depends_on_the_runs_name(small, storage):
    """A seed called `name` is a function of the run's name, so each night has its own."""
    nightly = config.override(small, {"seed": "name"})
    seeds = [create(nightly, storage, name).configuration.seed for name in ("monday", "monday", "tuesday")]
    assert seeds[0] == seeds[1] != seeds[2]
    assert all(isinstance(seed, int) and 0 <= seed < 2**63 for seed in seeds)


def test_run_name_belongs_to_one_configuration(small, storage):
    """A name belongs to one configuration, and the first setting that differs is named."""
    create(small, storage, "mine").save()
    assert create(small, storage, "mine").configuration == small
    with pytest.raises(ConfigurationError) as caught:
        create(config.override(small, {"noise.size": 9, "seed": 5}), storage, "mine")
    assert str(caught.value) == (
        "run of another configuration (mine): noise.size was 8; expected 9; start a new run: --name NAME"
    )


def test_candidates_may_be_added_until_trained(small, storage):
    """More candidates are allowed until the run is trained, and its search then counts as not done."""
    run = create(small, storage, "mine")
    run.save()
    found = TuneRecord(
        {}, candidate=0, log_likelihood=1.0, coverage=0.5, candidates=2, diverged=0, failed=0, seconds=1.0
    )
    run.folder.write_json("records/tune.json", {"inputs": "", "record": dataclasses.asdict(found)})
    more = config.override(small, {"tune.candidates": 5})
    extended = create(more, storage, "mine")
    assert extended.record("tune") is None
    assert create(small, storage, "mine").record("tune")["candidates"] == 2
    extended.save()
    assert create(more, storage, "mine").configuration == Run.open("mine", storage).configuration == more
    assert Run.open("mine", storage).record("tune") is None
    for other, says in [
        ({"tune.candidates": 4}, r"tune.candidates was 5; expected 4"),
        ({"tune.candidates": 6, "tune.samples": 100}, r"tune.candidates was 5"),
        ({"tune.candidates": 0}, r"tune.candidates was 5; expected 0"),
    ]:
        with pytest.raises(ConfigurationError, match=says):
            create(config.override(more, other), storage, "mine")
    run.folder.child("checkpoints", "step=00000010").write("MANIFEST.json", b"{}")
    with pytest.raises(ConfigurationError, match=r"run is trained already \(mine\): tune.candidates 6; expected 5"):
        create(config.override(more, {"tune.candidates": 6}), storage, "mine")


def test_run_is_opened_with_its_configuration(small, storage):
    """A run is opened by its name with the configuration it was made from."""
    create(small, storage, "one").save()
    assert Run.open("one", storage).configuration == small
    assert run_names(storage) == ["one"]
    with pytest.raises(ConfigurationError, match=r"no such run \(two\).*one of: one$"):
        Run.open("two", storage)
    with pytest.raises(ConfigurationError, match=r"no such run \(onee\).*; did you mean one\?"):
        Run.open("onee", storage)


def test_stage_runs_once_for_the_same_inputs(small, storage):
    """A stage is done once for the same inputs, and again for others."""
    run, done = create(small, storage), []
    for inputs in ({"x": 1}, {"x": 1}, {"x": 2}, {"x": 2}):
        record = run.stage("report", ReportRecord, inputs, lambda: done.append(1) or ReportRecord("page", len(done)))
        assert record == ReportRecord("page", 1 if inputs == {"x": 1} else 2)
    assert len(done) == 2
    assert run.records() == {"report": {"report": "page", "seconds": 2}}


def test_a_stage_that_fails_leaves_no_record(small, storage):
    run = create(small, storage)
    with pytest.raises(ZeroDivisionError):
        run.stage("report", ReportRecord, {}, lambda: ReportRecord("page", 1 // 0))
    assert run.records() == {}


@pytest.mark.parametrize(
    "document",
    [[], {"inputs": ""}, {"record": {}}, {"record": {"report": "page"}}, {"record": {"report": "", "seconds": 0, "x": 1}}],
)  # fmt: skip
def test_incomplete_record_is_named_with_a_remedy(document, small, storage):
    """A record that lacks something is named, with what to do."""
    run = create(small, storage)
    run.folder.write_json("records/report.json", document)
    with pytest.raises(
        CheckpointError, match=r"damaged file .*records/report\.json.*remove the file to redo its stage"
    ):
        run.record("report")


def test_a_runs_own_file_that_lacks_something_is_named(small, storage):
    run = create(small, storage, "mine")
    run.save()
    run.folder.write_json("run.json", {"run": "mine"})
    with pytest.raises(CheckpointError, match=r"damaged file .*mine/run\.json.*'configuration'"):
        Run.open("mine", storage)


def test_a_damaged_record_is_named_with_what_to_do(small, storage):
    run = create(small, storage)
    run.folder.write("records/train.json", b'{"inputs": ')
    with pytest.raises(CheckpointError, match=r"damaged file .*records/train\.json.*remove the file to redo its stage"):
        run.record("train")


def test_untrained_run_says_how_to_get_a_generator(small, storage):
    """A run that was never trained has no generator and says how to get one."""
    with pytest.raises(CheckpointError, match=r"not trained yet \(mine\).*gan train CONFIG --name mine"):
        create(small, storage, "mine").generator()


def test_every_stage_has_a_record_and_a_place():
    """The table that is walked and the records that are read name the same stages, in the same order."""
    assert tuple(table.STAGES) == STAGES
    assert {name: stage.record for name, stage in table.STAGES.items()} == RECORDS


def test_sigterm_lets_python_save_before_it_exits(tmp_path):
    """`pipelines.run` in a program of the user's own is preempted as `gan run` is: what is open is closed, code 143."""
    script = (
        "import os, signal\nfrom pipelines.runtime.exit_codes import sigterm_as_exit\n"
        "with sigterm_as_exit():\n    try:\n        os.kill(os.getpid(), signal.SIGTERM)\n    finally:\n        print('saved')\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (143, "saved\n")


# Before anything starts


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"algorithm.batch_size": 2000}, ConfigurationError, "algorithm.batch_size.*2000; expected at most 1000"),
        ({"evaluate.folds": 201}, ConfigurationError, "evaluate.folds.*201; expected at most 200"),
        ({"tune.space": {"noise.size": {"choice": [0]}}}, ConfigurationError, "noise.size 0"),
        ({"data.name": "mnist", "data.root": "/nowhere", "data.download": False}, DataError, "MNIST/raw"),
    ],
)
def test_preflight_check_finds_what_can_be_known(changes, kind, words, small, storage):
    """What can be known to be wrong is found before anything starts, and nothing is written."""
    with pytest.raises(kind, match=words):
        Flow(create(config.override(small, changes), storage), "", lambda line: None).check()
    assert not storage.local.exists()


def test_what_is_right_passes_the_check_and_writes_nothing(small, storage):
    Flow(create(small, storage), "", lambda line: None).check()
    assert not storage.local.exists()


def test_stage_before_its_time_names_the_missing_one(small, storage):
    """A stage asked for before its time says which stage is missing."""
    flow = Flow(create(small, storage), "", lambda line: None)
    with pytest.raises(CheckpointError, match="not searched yet"):
        flow.do("train")
    with pytest.raises(CheckpointError, match="no train stage yet"):
        flow.do("evaluate")
    with pytest.raises(CheckpointError, match="no evaluate stage yet"):
        flow.do("register")


# A run begun by other code


@pytest.mark.parametrize(
    ("stage", "kept", "words"),
    [
        ("tune", None, "results kept: 0"),
        ("tune", "tune/findings/candidate-0-seed-0/00000020.jsonl", "results kept: 1"),
        ("train", None, "no checkpoint yet"),
        ("train", "checkpoints/step=00000050/generator.safetensors", "step 50 is saved"),
        ("register", None, "records kept: none"),
    ],
)
def test_a_stopped_stage_says_what_is_kept(stage, kept, words, small, storage, monkeypatch):
    """Ctrl-C in a search, an evaluation or a registration was no line, in a training one of a checkpoint not there."""

    def interrupted(context):
        if kept:
            context.run.folder.write(kept, b"")
        raise KeyboardInterrupt

    changed = dataclasses.replace(table.STAGES[stage], inputs=lambda context: [], run=interrupted, on_cluster=False)
    monkeypatch.setitem(table.STAGES, stage, changed)
    lines = []
    flow = Flow(create(small, storage), "", lines.append)
    with flow.working(), pytest.raises(KeyboardInterrupt):
        flow.do(stage)
    assert lines == [f"{stage:<6} stopped; {words}; the same command resumes"]


def test_run_of_other_code_is_named_not_restarted_silently(small, storage):
    """An unnamed run is named after the code too: after an upgrade the same command says which run it had begun."""
    Run.create(small, "stem", "stem-0a1b2c3d", storage).save()
    Run.create(config.override(small, {"noise.size": 9}), "stem", "stem-00000000", storage).save()
    said = []
    pipeline = Pipeline(storage, lambda: "", said.append)
    planned = pipeline.run(small, "stem", stages=("train",), dry_run=True)
    hint = "run    stem-0a1b2c3d is of this configuration, by other code: --name stem-0a1b2c3d goes on with it"
    assert said == [hint]
    assert planned.run.name not in ("stem-0a1b2c3d", "stem-00000000")
    nightly = config.override(small, {"seed": "name"})
    Run.create(nightly, "stem", "stem-11111111", storage).save()
    pipeline.run(nightly, "stem", stages=("train",), dry_run=True)
    assert "stem-11111111" in said[-1]  # whose seed is another, being its name's


def test_run_resumed_by_another_commit_says_both(finished, tmp_path):
    """A run that an earlier version began goes on under its name, with a line that names both commits."""
    shutil.copytree(finished.folder, tmp_path / "runs" / "small-run")
    run = Run.open("small-run", Storage.at(tmp_path))
    document = run.folder.read_json("run.json")
    run.folder.write_json("run.json", {**document, "commit": "0123456789abcdef-dirty", "code": "other"})
    run.folder.delete("records/report.json")
    said = []
    outcome = Pipeline(run.storage, lambda: f"sqlite:///{finished.storage}/mlflow.db", said.append).finish(
        run, ("report",)
    )
    assert outcome.state == "done"
    assert any(line.startswith("run    begun by commit 0123456789ab-dirty, goes on by commit ") for line in said)


# A whole run


def test_python_repeats_and_plans_runs_as_gan_does(finished):
    """`pipelines.run` finds the finished run of the same arguments, and plans another without writing it."""
    again = pipelines.run(finished.yaml, name="small-run", storage=finished.storage)
    assert (again.state, again.stages, again.done_before) == ("done", again.run.stages, again.run.stages)
    assert again.records["evaluate"] == finished.record("evaluate")
    assert again.failure is None
    said = []
    planned = pipelines.run(
        config.load(finished.yaml), ["tune.candidates=0"], name="other", storage=finished.storage, dry_run=True,
        log=said.append,
    )  # fmt: skip
    assert (planned.state, planned.done_before, said) == ("planned", (), [])
    assert planned.stages == ("train", "evaluate", "register", "report")
    assert run_names(Storage.at(finished.storage)).count("other") == 0
    with pytest.raises(ConfigurationError, match=r"run of another configuration \(small-run\): noise.size was"):
        pipelines.run(finished.yaml, ["noise.size=9"], name="small-run", storage=finished.storage)


def test_run_leaves_samples_on_the_way_and_where_it_was_begun(finished):
    """From step 0 to the end, whose picture is what the registered weights draw of the run's seed; and the versions."""
    run = Run.open("small-run", Storage.at(finished.storage))
    pictures = dict(read_strip(run.folder))
    assert {0, 50, 100, 150, 200} <= set(pictures)
    last = figures.sample_grid(run.generator().draw(16, run.configuration.seed), "unit")
    assert pictures[200] == figures.png(last)
    assert run.folder.read_json("environment.json")["versions"]["torch"] == version("torch")


def test_run_leaves_records_history_and_report(finished):
    """A run leaves its records, history, checkpoints, pictures and page, with its configuration and commit."""
    assert sorted(path.stem for path in (finished.folder / "records").iterdir()) == sorted(set(STAGES) - {"infer"})
    names = {"report.html", "samples.png", "interpolation.png", "curves.png", "search.png", "sigma.png"}
    assert {path.name for path in (finished.folder / "report").iterdir()} == names
    assert (finished.folder / "tune" / "table.parquet").is_file()
    assert checkpoint_names(Storage.at(finished.folder / "checkpoints")) == ["step=00000150", "step=00000200"]
    assert [row["step"] for row in read_history(Storage.at(finished.folder / "history"))] == list(range(10, 201, 10))
    document = json.loads((finished.folder / "run.json").read_text())
    assert config.build(document["configuration"]) == config.load(finished.yaml)
    assert document["run"] == "small-run"
    assert len(document["commit"].removesuffix("-dirty")) == 40


def test_search_training_and_version_belong_together(finished, digits):
    """The chosen settings, the trained weights, the scores and the version are of one and the same model."""
    searched, trained, scored = (finished.record(stage) for stage in ("tune", "train", "evaluate"))
    settings = config.override(config.load(finished.yaml), searched["chosen"])
    tensors = trained_alone(settings.training(), digits, 200).tensors()
    assert trained["weights_sha256"] == tensors_digest(tensors["generator"], tensors["discriminator"])
    assert scored["generator_sha256"] == trained["generator_sha256"]
    assert scored["data_digest"] == digits.digest
    registry = Registry(f"sqlite:///{finished.storage}/mlflow.db")
    (version,) = registry.versions("gan-small")
    assert version.tags["weights_sha256"] == trained["weights_sha256"]
    assert version.aliases == ("challenger", "champion")
    assert registry.load(version).sha256 == trained["generator_sha256"]
    runs = registry.backend.client.search_runs(
        [registry.backend.client.get_experiment_by_name("gan-small").experiment_id]
    )
    assert sorted(run.info.run_name for run in runs) == [
        "small-run",
        *(f"small-run/{s}" for s in ("candidate-0", "candidate-1", "evaluate", "train", "tune")),
    ]
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_mlflow_pages_say_what_a_run_was(finished):
    """Durations as measured, every setting, samples by step, scores by rung, the card, and the model's own version."""
    client = Registry(f"sqlite:///{finished.storage}/mlflow.db").backend.client
    experiment = client.get_experiment_by_name("gan-small").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    run, seconds = runs["small-run"], {}
    for name, one in runs.items():
        seconds[name.removeprefix("small-run").lstrip("/")] = (one.info.end_time - one.info.start_time) / 1000
    for stage in ("tune", "evaluate"):
        assert seconds[stage] == pytest.approx(finished.record(stage)["seconds"], abs=0.01)
    assert seconds["train"] >= finished.record("train")["seconds"] - 0.1  # from when it was first followed
    assert seconds[""] > seconds["tune"] + seconds["evaluate"]
    settings = config.flat(config.identity(config.load(finished.yaml))) | finished.record("tune")["chosen"]
    assert run.data.params == {key: str(value) for key, value in settings.items()}
    steps = [path.stem.removeprefix("step=") for path in (finished.folder / "samples").iterdir()]
    images = [file.path for file in client.list_artifacts(run.info.run_id, "images") if file.path.endswith(".png")]
    assert sorted(int(path.split("+")[2]) for path in images) == sorted(int(step) for step in steps if int(step))
    rungs = client.get_metric_history(run.info.run_id, "validation_log_likelihood")
    assert {20, 40, 200} <= {point.step for point in rungs}, "scores at the search's rungs, and on the training's way"
    (version,) = client.search_model_versions("name='gan-small'")
    score = finished.record("evaluate")
    assert version.description.startswith(f"{score['log_likelihood']:.1f} ± {score['standard_error']:.1f} nats (Parzen")
    for text in ("training data", f"runs/{run.info.run_id}/artifacts/report.html", "gan run configuration.yaml"):
        assert text in version.description
    assert run.data.tags["mlflow.note.content"] == version.description
    assert "challenger" in client.get_registered_model("gan-small").description
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "gan-small", "version": "1"}]
    shown = {metric.key: metric.value for metric in logged.metrics}
    assert shown["log_likelihood"] == score["log_likelihood"]
    assert not {"log_likelihood", "standard_error", "coverage"} & version.tags.keys()
    points = client.get_metric_history(run.info.run_id, "log_likelihood")
    assert [point.value for point in points] == [score["log_likelihood"]]


def test_averaged_g_is_scored_beside_or_replaces_g(finished, digits):
    """The averaged G is scored beside G by name, or in its place if chosen."""
    trained, scored = finished.record("train"), finished.record("evaluate")
    run = Run.open("small-run", Storage.at(finished.storage))
    assert run.generator("averaged").sha256 == trained["averaged_sha256"] != trained["generator_sha256"]
    assert scored["weights"] == "last"
    samples = run.generator("averaged").draw(500, run.configuration.seed).reshape(500, -1)
    expected = evaluate_arrays(samples, digits.test.images, digits.validation.images, None, 5)["paper"]
    row = scored["references"]["averaged G"]
    assert [row[key] for key in ("log_likelihood", "sigma")] == [expected["log_likelihood"], expected["sigma"]]
    chosen = config.override(run.configuration, {"evaluate.weights": "averaged"})
    assert Run("small-run", chosen, run.storage).generator().sha256 == trained["averaged_sha256"]
    unset = config.override(run.configuration, {"evaluate.weights": None})
    assert Run("small-run", unset, run.storage).generator().sha256 == trained["averaged_sha256"]
    with pytest.raises(ConfigurationError, match=r"evaluate.weights averaged, but algorithm.generator_average is 0"):
        config.override(chosen, {"algorithm.generator_average": 0.0})


def test_the_runner_up_goes_on_where_a_training_fails(small, tmp_path):
    """A training that falls behind the search's runner-up is ended, and the runner-up's goes on, to its own bits.

    The fault is put into the search's record: two finalists that were better by a thousand nats than they are, and of
    which the choice covered more than it does.
    """
    said, storage = [], Storage.at(tmp_path)
    configuration = config.override(small, {"train.workers": 1, "train.virtual_shards": 2})
    how = {"name": "it", "storage": tmp_path, "log": said.append}
    pipelines.run(configuration, stages=("tune",), **how)
    run = Run.open("it", storage)
    first, second = run.record("tune")["finalists"]
    fallen = [{**of, "log_likelihood": 1000.0, "coverage": 3.0} for of in (first, second)]
    run.revise("tune", finalists=fallen)
    done = pipelines.run(configuration, stages=("tune", "train"), **how)
    searched = done.records["tune"]
    assert (searched["candidate"], searched["chosen"]) == (second["candidate"], second["chosen"])
    (failed,) = searched["failed_trainings"]
    assert (failed["candidate"], failed["chosen"]) == (first["candidate"], first["chosen"])
    assert "failing training (step 80)" in failed["error"]
    assert f"train  candidate {second['candidate']} goes on instead of candidate {first['candidate']}" in said
    settings = config.override(configuration, second["chosen"])
    tensors = trained_alone(settings.training(), load(settings.data), 200).tensors()
    assert done.records["train"]["weights_sha256"] == tensors_digest(tensors["generator"], tensors["discriminator"])
    said.clear()
    assert pipelines.run(configuration, stages=("tune", "train"), **how).done_before == ("tune", "train")
    assert not [line for line in said if line.startswith("train")]


def test_a_search_begun_before_0_3_stays_as_it_was(small, storage):
    """A run of an earlier version searched without its configuration: it is opened so, and not gone on with unasked."""
    old = config.to_plain(small)
    for key in ("include_default", "points", "sample_sets"):
        del old["tune"][key]
    storage.child("runs", "old").write_json("run.json", {"run": "old", "configuration": old})
    tune = Run.open("old", storage).configuration.tune
    assert (tune.include_default, tune.points, tune.sample_sets) == (False, (), 1)
    with pytest.raises(
        ConfigurationError, match=r"run of another configuration \(old\): tune.include_default was False"
    ):
        create(small, storage, "old")
    without = config.override(small, {"tune.candidates": 0})
    storage.child("runs", "plain").write_json("run.json", {"run": "plain", "configuration": config.to_plain(without)})
    assert create(without, storage, "plain").exists


def stop(process, sign, happened):
    """Stop a command once something has happened, and return its exit code."""
    try:
        until(lambda: happened() or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        if sign == signal.SIGTERM:
            os.kill(process.pid, signal.SIGTERM)
            process.communicate()
        return process.poll()
    finally:
        kill_group(process)


@pytest.mark.slow
def test_killed_training_ends_with_undisturbed_bits(small_yaml, digits, tmp_path):
    """Preempted, killed in training and killed before it registers, a run ends with undisturbed bits."""
    overrides = [
        "tune.candidates=0",
        "seed=5",
        "algorithm.steps=700",
        "registry.model=gan-killed",
        "evaluate.samples=200",
    ]
    command = [
        "run",
        small_yaml,
        *(part for o in overrides for part in ("--set", o)),
        "--name",
        "killed",
        "--storage",
        "st",
    ]
    folder = Storage.at(tmp_path / "st" / "runs" / "killed")

    def newest():
        return ["", *checkpoint_names(folder.child("checkpoints"))][-1]

    def recorded(stage):
        return lambda: folder.read(f"records/{stage}.json")

    assert stop(start_gan(*command, cwd=tmp_path), signal.SIGTERM, newest) == 143
    preempted = newest()
    assert "step=00000050" <= preempted < "step=00000700"
    stop(start_gan(*command, cwd=tmp_path), signal.SIGKILL, lambda: newest() > preempted)
    assert preempted < newest() < "step=00000700", "the training was over before it was killed"
    stop(start_gan(*command, cwd=tmp_path), signal.SIGKILL, recorded("evaluate"))
    trained = recorded("train")()
    answer = gan(*command, "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert recorded("train")() == trained  # a finished stage was not done again
    settings = config.load(small_yaml, overrides)
    tensors = trained_alone(settings.training(), digits, 700).tensors()
    weights = tensors_digest(tensors["generator"], tensors["discriminator"])
    assert json.loads(trained)["record"]["weights_sha256"] == weights
    assert [row["step"] for row in read_history(folder.child("history"))] == list(range(10, 701, 10))
    registry = Registry(f"sqlite:///{tmp_path}/st/mlflow.db")
    (version,) = registry.versions("gan-killed")
    assert (answer.json["version"], version.tags["weights_sha256"]) == (1, weights)
    assert version.aliases == ("challenger", "champion")
    experiment = registry.backend.client.get_experiment_by_name("gan-killed").experiment_id
    runs = registry.backend.client.search_runs([experiment])
    assert sorted(run.info.run_name for run in runs) == ["killed", "killed/evaluate", "killed/train"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if run.info.run_name == "killed"]
    points = registry.backend.client.get_metric_history(parent.info.run_id, "value")
    assert sorted(point.step for point in points) == list(range(10, 701, 10))


@pytest.mark.slow
def test_kill_at_every_stage_keeps_the_results(finished, tmp_path):
    """Killed in its search and at every stage's end, a run has the results of an undisturbed one."""
    command = ["run", finished.yaml, "--name", "killed", "--storage", "st"]
    folder = Storage.at(tmp_path / "st" / "runs" / "killed")
    moments = [lambda: folder.child("tune", "search").names()]
    moments += [lambda stage=stage: folder.read(f"records/{stage}.json") for stage in ("tune", "train", "evaluate")]
    for moment in moments:
        stop(start_gan(*command, cwd=tmp_path), signal.SIGKILL, moment)
    register = start_gan("register", "killed", "--storage", "st", cwd=tmp_path)
    stop(register, signal.SIGKILL, lambda: folder.read("records/register.json"))
    answer = gan(*command, "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    for stage in ("tune", "train", "evaluate"):
        record = json.loads(folder.read(f"records/{stage}.json"))["record"]
        expected = finished.record(stage)
        differing = {key for key in expected if record[key] != expected[key]}
        assert differing <= {"seconds", "run", "checkpoint"}
    assert len(Registry(f"sqlite:///{tmp_path}/st/mlflow.db").versions("gan-small")) == 1
