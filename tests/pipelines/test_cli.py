"""The `gan` command: what it prints, what it leaves behind, how it ends."""

import io
import json
import re
import shutil
import subprocess
import sys

import click
import numpy as np
import pytest
from PIL import Image

from pipelines.cli import cli
from pipelines.registry import Registry
from pipelines.storage import Storage
from tests.pipelines.conftest import environment, failed, gan
from tests.pipelines.test_tracking import closed_port


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """A folder with arrays of samples and points."""
    folder = tmp_path_factory.mktemp("arrays")
    random = np.random.default_rng(0)
    for name, shape in [("s", (60, 4, 4)), ("t", (40, 4, 4)), ("v", (30, 16)), ("wide", (9, 25))]:
        np.save(folder / f"{name}.npy", random.random(shape, dtype=np.float32))
    return folder


def commands(group=cli, path=("gan",)):
    """Every command, with its full name."""
    for name, command in group.commands.items():
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


# Help


def test_help_answers_without_torch_ray_or_mlflow(tmp_path):
    """How fast, `make bench` says; what it imports decides."""
    script = "import sys; from pipelines.cli import cli; cli.main(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    assert gan("--help", cwd=tmp_path).code == 0
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment()).stdout
    for library in ("torch", "ray", "mlflow", "numpy", "sklearn", "pydantic"):
        assert f"'{library}'" not in listed
    assert "'pipelines.cli'" in listed


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_help_has_an_example_with_its_name(name, command):
    """Every command's help has an example that starts with the command's own name."""
    text = command.get_help(click.Context(command, info_name=name))
    assert "Example" in text
    assert f"  {name}" in text.split("Example", 1)[1]


@pytest.mark.parametrize("name", [name for name, command in commands() if not isinstance(command, click.Group)])
def test_every_command_has_the_common_options(name):
    command = dict(commands())[name]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--storage", "--tracking-uri", "--json", "--debug", "-q"} <= options
    if name != "gan config" and "CONFIG" in [
        parameter.make_metavar(click.Context(command)) for parameter in command.params
    ]:
        assert {"--set", "--name", "--dry-run"} <= options


def test_the_shell_is_told_how_to_complete_commands(monkeypatch, capsys):
    monkeypatch.setenv("_GAN_COMPLETE", "zsh_source")
    with pytest.raises(SystemExit) as ended:
        cli.main([], prog_name="gan", standalone_mode=False)
    assert ended.value.code == 0
    assert "#compdef gan" in capsys.readouterr().out


# gan run


def test_run_prints_one_json_object_and_logs_to_stderr(finished):
    """With --json `gan run` prints one object with its results, and its progress is on stderr."""
    (line,) = finished.answer.out.splitlines()
    result = json.loads(line)
    numbers = {"log_likelihood", "standard_error", "sigma", "coverage"}
    assert {"run", "model", "version", "alias", "report"} | numbers <= set(result)
    assert {**result, "run": "small-run", "model": "gan-small", "version": 1, "alias": "champion"} == result
    score = finished.record("evaluate")
    assert {key: result[key] for key in numbers} == {key: score[key] for key in numbers}
    assert result["report"] == str(finished.folder / "report" / "report.html")
    assert "gate   gan-small/1: first version to pass the gate" in finished.answer.err
    assert "Warning" not in finished.answer.err


def test_report_refers_to_nothing_outside_itself(finished):
    """The report has no link to another host and no image that is not within it."""
    html = (finished.folder / "report" / "report.html").read_text()
    html = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)  # the library names its licence's address
    assert "http://" not in html
    assert "https://" not in html
    pictures = 5 + len(list((finished.folder / "samples").iterdir()))
    assert html.count('src="data:image/png;base64,') == pictures
    assert html.count("src=") == pictures
    assert finished.record("train")["weights_sha256"] in html


def test_same_command_again_says_done_and_does_nothing(finished, tmp_path, here):
    """The same command again says that the run is done, and changes no file and no version."""

    def files():
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in finished.folder.rglob("*") if p.is_file()}

    before = files()
    answer = gan("run", finished.yaml, "--name", "small-run", "--storage", finished.storage, "--json", cwd=tmp_path)
    assert (answer.code, answer.json) == (0, finished.answer.json)
    assert files() == before
    assert len(Registry(f"sqlite:///{finished.storage}/mlflow.db").versions("gan-small")) == 1
    for_people = here("run", finished.yaml, "--name", "small-run", "--storage", finished.storage)
    assert files() == before
    assert for_people.code == 0
    assert "done   small-run was done already" in for_people.out
    assert "gan-small/1 is champion" in for_people.out


def test_dry_run_lists_stages_and_creates_nothing(finished, tmp_path, here):
    """A dry run says what would be done, and creates nothing."""
    answer = gan("run", finished.yaml, "--dry-run", "--json", "--storage", "new", cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert (answer.json["stages"], answer.json["done"]) == (["tune", "train", "evaluate", "register", "report"], [])
    assert answer.json["run"].startswith("small-")
    assert answer.json["storage"] == str(tmp_path / "new" / "runs" / answer.json["run"])
    assert list(tmp_path.iterdir()) == []


def test_run_of_another_process_is_left_alone(finished, tmp_path):
    """A run that another process works on is left alone: state running, exit code 0."""
    with Storage.at(finished.folder).lock() as free:
        assert free
        answer = gan("run", finished.yaml, "--name", "small-run", "--storage", finished.storage, "--json", cwd=tmp_path)
    assert answer.code == 0
    assert answer.json == {"run": "small-run", "state": "running"}


# How it ends


def test_a_name_of_another_configuration_ends_with_2(finished, tmp_path, here):
    answer = here("run", finished.yaml, "--set", "seed=1", "--name", "small-run", "--storage", finished.storage)
    failed(answer, 2, "run of another configuration (small-run)", "seed was 0; expected 1", "--name NAME")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "none.yaml"], ["none.yaml", "No such file"]),
        (["run"], ["Missing argument 'CONFIG'; expected gan run [OPTIONS] CONFIG; gan run --help"]),
        (["run", "."], ["Is a directory; expected a YAML file, which gan init . writes for a folder of images"]),
        (["run", "it.yaml", "--data", "x"], ["expected --set data.name=x or --set data.root=x"]),
        (["rum", "x.yaml"], ["usage", "No such command 'rum'"]),
        (["run", "it.yml"], ["No such file", "did you mean it.yaml?"]),
        (["run", "it.yaml", "--steps", "500"], ["No such option '--steps'; expected --set algorithm.steps=500"]),
        (["run", "it.yaml", "--batch-size=7"], ["No such option '--batch-size'; expected --set algorithm.batch_size=7"]),
        (["run", "it.yaml", "--zzqx"], ["No such option '--zzqx'; expected a command of gan --help"]),
        (["run", "it.yaml", "--set", "learning_rate=1"], ["mean algorithm.generator_learning_rate or algorithm.discriminator_learning_rate"]),
        (["run", "it.yaml", "--set", "network.hidden=[3]"], ["did you mean network.generator.hidden or network.discriminator.hidden?"]),
        (["sample", "x"], ["Missing option '--output'; expected --output FILE: grid.png, or samples.npy"]),
        (["run", "it.yaml", "--set", "algorithm.stepz=3"], ["did you mean algorithm.steps?"]),
        (["run", "it.yaml", "--name", "a/b"], ["not a run name", "'a/b'"]),
        (["run", "it.yaml", "--set", "train.workers=64", "--set", "algorithm.batch_size=64"], ["not enough resources", "64 CPU", "at most"]),
        (["tune", "it.yaml"], ["nothing to search", "tune.candidates is 0"]),
        (["evaluate"], ["usage", "give either REF, or --samples and --points"]),
        (["evaluate", "--samples", "s.npy", "--points", "t.npy", "--features"], ["usage", "--features needs a REF"]),
        (["evaluate", "nosuchrun"], ["no such run (nosuchrun)", "none yet"]),
    ],
    ids=lambda value: "-".join(value)[:40] if value and value[0] in ("run", "rum", "tune", "evaluate") else "",
)  # fmt: skip
def test_usage_error_ends_with_2_and_creates_nothing(arguments, words, tmp_path, here):
    """A mistake in a setting or an argument is one line, ends with 2 and creates nothing."""
    (tmp_path / "it.yaml").write_text("data: {name: digits}\n")
    failed(here(*arguments), 2, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["it.yaml"]


def test_data_that_cannot_be_used_ends_with_3(arrays, finished, tmp_path, here):
    no_mnist = ["--set", "data.name=mnist", "--set", "data.root=nowhere", "--set", "data.download=false"]
    failed(here("run", finished.yaml, *no_mnist), 3, "MNIST/raw", "data.root")
    widths = gan("evaluate", "--samples", arrays / "s.npy", "--points", arrays / "wide.npy", cwd=tmp_path)
    failed(widths, 3, "widths differ", "points of 25 and samples of 16")
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_of_which_none_is_valid_end_with_4(finished, tmp_path, here):
    shutil.copytree(finished.folder, tmp_path / "st" / "runs" / "copy")
    for path in (tmp_path / "st" / "runs" / "copy" / "checkpoints").rglob("generator.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    failed(gan("sample", "copy", "--output", "x.npy", "--storage", "st", cwd=tmp_path), 4, "no valid checkpoint")
    failed(here("run", finished.yaml, "--storage", "/proc/nowhere"), 4, "/proc/nowhere", "bytes free")


def test_unreachable_mlflow_ends_with_5_without_password(finished, tmp_path, here):
    """An MLflow that does not answer ends with 5 before anything is trained, and no password is shown."""
    uri = f"http://me:s3cr3t@127.0.0.1:{closed_port()}"
    answer = gan("run", finished.yaml, "--tracking-uri", uri, "--storage", "st", cwd=tmp_path)
    failed(answer, 5, "MLflow does not answer", "http://***@127.0.0.1")
    assert "s3cr3t" not in answer.err
    assert list(tmp_path.iterdir()) == []
    failed(here("models", "--storage", "st"), 5, "no such registry")
    assert list(tmp_path.iterdir()) == []


def test_divergence_ends_with_6_and_keeps_a_checkpoint(finished, tmp_path):
    """A training that diverges ends with 6, keeps its last finite checkpoint and writes no record."""
    changes = ["algorithm.discriminator_learning_rate=1.0e+20", "train.workers=1"]
    changes += ["train.checkpoint_every=1", "train.report_every=1"]
    arguments = [part for change in changes for part in ("--set", change)]
    answer = gan("train", finished.yaml, *arguments, "--name", "bad", "--storage", "st", cwd=tmp_path)
    failed(answer, 6, "training diverged", "step", "lower the learning rates")
    left = [path.name for path in (tmp_path / "st" / "runs" / "bad" / "checkpoints").iterdir()]
    assert "step=00000001" in left
    assert not (tmp_path / "st" / "runs" / "bad" / "records").exists()


def test_collapsed_model_is_registered_and_ends_with_6(finished, tmp_path):
    """A run whose model has collapsed registers it unpromoted, says so, notifies and ends with 6, each time."""
    changes = ["tune.candidates=0", "train.workers=1", "algorithm.steps=20", "registry.gate.max_duplicates=0.0"]
    changes.append("notify.command=[sh, -c, 'cat >> notified; echo >> notified']")
    arguments = [part for change in changes for part in ("--set", change)]
    for _ in range(2):
        answer = gan("run", finished.yaml, *arguments, "--name", "flat", "--storage", "st", "--json", cwd=tmp_path)
        assert answer.code == 6, answer.err
        assert answer.error.startswith("error: a collapsed model (gan-small/1): ")
        assert answer.error.endswith(
            "at most 0% allowed; expected another seed or other rates; it stays registered, not promoted"
        )
        assert (answer.json["version"], answer.json["alias"], answer.json["promoted"]) == (1, "challenger", False)
    notified = [json.loads(line) for line in (tmp_path / "notified").read_text().splitlines()]
    assert [(one["event"], one["exit_code"], one["stage"]) for one in notified] == [("failed", 6, "report")] * 2
    assert {f"error: {one['error']}" for one in notified} == {answer.error}


def test_debug_shows_where_and_still_ends_with_the_code(tmp_path, here):
    answer = here("run", "none.yaml", "--debug")
    assert answer.code == 2
    assert "Traceback" in answer.err
    assert answer.error.startswith("error: unreadable configuration (none.yaml)")


# Looking and judging


def test_models_are_listed_and_shown(finished, tmp_path, here):
    where = ("--storage", finished.storage, "--json")
    listed = gan("models", *where, cwd=tmp_path)
    shown = here("models", "show", "gan-small@champion", *where)
    digests = {"generator_sha256", "data_digest", "config_digest", "commit"}
    assert set(shown.json) == {"name", "version", "aliases", "tags", "metrics"} | digests
    assert listed.json == {"models": [shown.json]}
    assert (shown.json["name"], shown.json["version"]) == ("gan-small", 1)
    assert shown.json["aliases"] == ["challenger", "champion"]
    assert shown.json["generator_sha256"] == finished.record("train")["generator_sha256"]
    assert shown.json["metrics"]["log_likelihood"] == finished.record("evaluate")["log_likelihood"]
    failed(here("models", "show", "gan-smal@champion", "--storage", finished.storage), 5, "one of gan-small")


def test_runs_are_listed_and_their_status_told(finished, tmp_path, here):
    status = here("runs", "status", "small-run", "--storage", finished.storage, "--json").json
    assert status["state"] == "done"
    assert status["stages"] == ["tune", "train", "evaluate", "register", "report"]
    assert (status["step"], status["steps"]) == (200, 200)
    listed = here("runs", "--storage", finished.storage, "--json")
    assert listed.json == {"runs": [status]}


def test_run_and_its_version_give_the_same_samples(finished, tmp_path, here):
    """A run and its registered version give the same samples, and a grid shows them pixel by pixel."""
    where = ("--storage", finished.storage)
    for reference, output in [("small-run", "run.npy"), ("gan-small/1", "model.npy"), ("small-run", "grid.png")]:
        answer = here("sample", reference, "-n", 10, "--seed", 3, "--output", output, *where, "--json")
        assert answer.code == 0, answer.err
        assert answer.json["generator_sha256"] == finished.record("train")["generator_sha256"]
    samples = np.load(tmp_path / "run.npy")
    assert (samples.shape, samples.dtype) == ((10, 8, 8), np.float32)
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert np.array_equal(samples, np.load(tmp_path / "model.npy"))
    picture = np.asarray(Image.open(io.BytesIO((tmp_path / "grid.png").read_bytes())))
    assert picture.shape == (7 * (2 + 3 * 10), 7 * (2 + 4 * 10))  # 10 samples: rows of four, 7 times as large
    assert np.array_equal(picture[::7, ::7][2:10, 12:20], np.rint(samples[1] * 255))


@pytest.mark.parametrize(("output", "words"), [("x.jpg", "unknown kind of output"), ("no/x.npy", "no such folder")])
def test_unwritable_output_is_refused_before_loading(output, words, tmp_path, here):
    """An output that cannot be written is refused before a model is loaded."""
    failed(here("sample", "any", "--output", output), 2, words, output)


def test_samples_are_written_whole_or_not_at_all(finished, tmp_path, here):
    """More samples than the disk has room for, or than a picture can show, are refused before one is drawn."""
    where, many = ("--storage", finished.storage), 10**12
    failed(here("sample", "small-run", "-n", many, "--output", "x.npy", *where), 4, "disk full (x.npy)", "bytes free")
    failed(here("sample", "small-run", "-n", 10_001, "--output", "x.png", *where), 2, "too many for a picture", "10000")
    assert list(tmp_path.iterdir()) == []


def test_evaluating_again_gives_the_recorded_scores(finished, tmp_path, here):
    """A run evaluated again has the scores of its record, to the rounding of other threads."""
    answer = here("evaluate", "small-run", "--features", "--storage", finished.storage, "--json")
    score = finished.record("evaluate")
    for key in ("log_likelihood", "standard_error", "sigma"):  # on other threads than the tasks': float32 sums
        assert answer.json[key] == pytest.approx(score[key], abs=1e-4)
    assert answer.json["paper"]["samples"] == 500
    assert answer.json["cross_validated"]["sigma"] == pytest.approx(score["cross_validated"]["sigma"], abs=1e-4)
    assert answer.json["quality"] == pytest.approx(score["quality"], abs=1e-3)
    assert (answer.json["weights"], len(answer.json["cross_validated"]["fold_sigmas"])) == (score["weights"], 4)
    # of nets of a few thousand weights after 200 steps: nobody takes these for digits
    features = answer.json["features"]
    assert features["samples"] == 500
    assert features["frechet_distance"] > 3 * features["training_images"] > 0
    assert features["classifier_accuracy"] > 0.95


def test_arrays_are_scored_as_by_the_function(arrays, tmp_path):
    """Any two arrays are scored by the command as by `evaluate_arrays`, and no file is written."""
    from pipelines.evaluation.scores import evaluate_arrays, load_array

    named = [
        f"--{kind}={arrays / name}"
        for kind, name in [("samples", "s.npy"), ("points", "t.npy"), ("validation", "v.npy")]
    ]
    answer = gan("evaluate", *named, "--sigma", "0.3", "--folds", 3, "--json", cwd=tmp_path)
    assert answer.code == 0, answer.err
    s, t, v = (load_array(str(arrays / f"{name}.npy"), "") for name in "stv")
    expected = json.loads(json.dumps(evaluate_arrays(s, t, v, 0.3, 3)))
    assert (
        set(answer.json)
        == set(expected)
        == {"fixed", "log_likelihood", "standard_error", "sigma", "quality", "paper", "cross_validated"}
    )
    for key in ("log_likelihood", "standard_error", "sigma"):
        assert answer.json[key] == pytest.approx(expected[key], abs=1e-9)
    assert answer.json["cross_validated"]["fold_sigmas"] == pytest.approx(
        expected["cross_validated"]["fold_sigmas"], abs=1e-6
    )
    assert list(tmp_path.iterdir()) == []


def test_report_again_is_there_and_quiet_is_quiet(finished, tmp_path, here):
    """A report asked for again is the one that is there, and --quiet writes nothing on stderr."""
    answer = here("report", "small-run", "--storage", finished.storage, "-q", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.json["report"] == finished.answer.json["report"]
    told = here("report", "small-run", "--storage", finished.storage, "-q")
    assert (told.code, told.err, told.out.split("\n")[0]) == (0, "", "done   small-run was done already")
    assert told.out.strip().endswith(answer.json["report"])
