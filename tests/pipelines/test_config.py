"""A configuration is read whole, or refused in one line that says what, where and what instead."""

import dataclasses
import json
import math
import typing
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gan_core.errors import ConfigurationError
from pipelines import config
from pipelines.config import Configuration, ResolvedConfiguration
from pipelines.config.candidates import candidate_configurations, draw_candidates
from pipelines.config.keys import type_of
from pipelines.config.yaml_text import as_number

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
LEAVES = [
    "seed", "data.name", "noise.size", "network.generator.hidden", "network.discriminator.max_column_norm",
    "algorithm.steps", "algorithm.generator_learning_rate", "algorithm.momentum.initial", "train.gpu",
    "train.virtual_shards", "tune.rungs", "tune.space", "tune.space.noise.size", "registry.model", "registry.gate",
]  # fmt: skip


FRACTIONS = [
    name for name in config.flat(config.to_plain(Configuration()))
    if float in (hint := type_of(name, "dense"), *typing.get_args(hint))
]  # fmt: skip


def refused(text: str, tmp_path: Path) -> str:
    """The one line that refuses a configuration file of this text."""
    path = tmp_path / "it.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        config.load(path)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_an_empty_file_is_the_defaults(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    assert config.load(tmp_path / "empty.yaml") == ResolvedConfiguration()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_round_trips(path, tmp_path):
    """Every configuration that is shipped loads, and survives its own YAML with the same digest."""
    loaded = config.load(path)
    (tmp_path / "resolved.yaml").write_text(config.to_yaml(loaded))
    assert config.load(tmp_path / "resolved.yaml") == loaded
    again = config.build(config.to_plain(loaded))
    assert again == loaded
    assert config.digest(config.identity(again)) == config.digest(config.identity(loaded))


def test_configurations_of_ours_are_found():
    assert "digits" in {path.stem for path in CONFIGS}


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path):
    (tmp_path / "it.yaml").write_text("seed: 7\nalgorithm: {steps: 5, momentum: {final: 0.8}}\n")
    plain, default = config.to_plain(config.load(tmp_path / "it.yaml")), config.to_plain(Configuration())
    default["seed"], default["algorithm"]["steps"], default["algorithm"]["momentum"]["final"] = 7, 5, 0.8
    assert plain == default


def test_overrides_apply_in_order_and_are_yaml(tmp_path):
    """Overrides apply in order on top of the file, and their values are YAML."""
    (tmp_path / "it.yaml").write_text("algorithm: {steps: 5}\n")
    overrides = [
        "algorithm.steps=6",
        "algorithm.steps=7",
        "network.generator.hidden=[3, 4]",
        "train.gpu=false",
        "seed=name",
    ]
    loaded = config.load(tmp_path / "it.yaml", overrides)
    assert (loaded.algorithm.steps, loaded.network.generator.hidden) == (7, (3, 4))
    assert (loaded.train.gpu, loaded.seed) == (False, "name")


def test_architecture_and_size_overrides_commute(tmp_path):
    """Overrides of an architecture and of its sizes may come in any order."""
    (tmp_path / "it.yaml").write_text("seed: 1\n")
    architecture, sizes = "network.architecture=convolutional", "network.generator.channels=[8, 4]"
    for overrides in ([architecture, sizes], [sizes, architecture]):
        network = config.load(tmp_path / "it.yaml", overrides).network
        assert (network.architecture, network.generator.channels) == ("convolutional", (8, 4))
    with pytest.raises(
        ConfigurationError, match=r"unknown setting .*: network.generator.channels; expected one of hidden"
    ):
        config.load(tmp_path / "it.yaml", [sizes])


def test_space_fits_its_architecture_or_chooses_one(tmp_path):
    """A search names settings of its architecture, and may choose among architectures."""
    space = {
        "network.generator.channels": {"choice": [[8, 4], [4]]},
        "network.discriminator.spectral_norm": {"choice": [True, False]},
    }
    document = {
        "network": {"architecture": "convolutional"},
        "tune": {"candidates": 4, "searcher": "grid", "space": space, "include_default": False},
    }
    found = {
        (c.network.generator.channels, c.network.discriminator.spectral_norm)
        for c in candidate_configurations(config.build(document))
    }
    assert found == {(channels, norm) for channels in ((8, 4), (4,)) for norm in (True, False)}
    names = ("dense", "maxout_convolutional", "convolutional")
    space = {"network.architecture": {"choice": list(names)}}
    found = candidate_configurations(config.build({"tune": {"candidates": 3, "searcher": "grid", "space": space}}))
    assert tuple(c.network.architecture for c in found) == names


def test_override_replaces_by_dotted_name_and_validates_again(small):
    changed = config.override(small, {"noise.size": 3, "algorithm.momentum.initial": 0.25})
    assert (changed.noise.size, changed.algorithm.momentum.initial) == (3, 0.25)
    assert dataclasses.replace(changed, noise=small.noise, algorithm=small.algorithm) == small
    for key, value, says in [("noise.size", 0, "noise.size 0"), ("noise.sise", 1, "did you mean noise.size?"),
                             ("noise.size.x", 1, "not a section")]:  # fmt: skip
        with pytest.raises(ConfigurationError, match=says):
            config.override(small, {key: value})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # not YAML, or more than data
        ("a: b: c", ["not valid YAML", "line 1, column 5"]),
        ("seed: 1\nalgorithm: {steps: 1", ["not valid YAML", "line 2, column"]),
        ("seed: 1\n\tsteps: 1", ["not valid YAML", "line 2, column 1", "\\t"]),
        ("seed: 1\nseed: 2", ["the key 'seed' is given twice", "line 2, column 1"]),
        ("algorithm: {steps: 1, batch_size: 50, steps: 2}", ["the key 'steps' is given twice", "line 1, column 39"]),
        ("seed: !!python/object/apply:os.system ['touch canary']", ["python/object/apply", "line 1, column 7"]),
        ("seed: !!python/name:os.system", ["python/name", "line 1, column 7"]),
        ("seed: 2020-13-45", ["not valid YAML", "month must be in 1..12"]),
        ("seed: !!int", ["not valid YAML"]),
        ("seed: !!bool maybe", ["not valid YAML", "maybe"]),
        ("seed: 0x_", ["not valid YAML", "base 16"]),
        ("seed: 2020-01-01", ["not a configuration", "a date: 2020-01-01"]),
        ("seed: &a [*a]", ["not a configuration", "Circular"]),
        ("seed: " + "[" * 3000, ["not valid YAML", "recursion"]),
        ("- 1", ["not a configuration", "a list", "sections"]),
        # not a setting
        ("algoritm: {steps: 5}", ["unknown setting", "algoritm", "did you mean algorithm?"]),
        ("algorithm: {batch_sise: 5}", ["algorithm.batch_sise", "one of scheme,", "did you mean algorithm.batch_size?"]),
        ("algorithm: 5", ["wrong type", "algorithm", "5; expected"]),
        ("tune: {metric: loss}", ["unknown setting", "tune.metric"]),
        # not a value
        ("algorithm: {steps: '500'}", ["algorithm.steps", "the text '500'", "a number, without quotes: 500"]),
        ("algorithm: {generator_learning_rate: '1E-3'}", ["the text '1E-3'", "a number, without quotes: 0.001"]),
        ("algorithm: {steps: 1.5e0}", ["wrong type", "algorithm.steps", "1.5", "integer"]),
        ("data: {name: images, size: [28]}", ["wrong type", "data.size", "[28]", "one value more"]),
        ("a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "\n".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)),
         ["not a configuration", "over 100000 values"]),
        ("network: {generator: {hidden: [" + ", ".join(["1"] * 101) + "]}}", ["network.generator.hidden has 101 layers"]),
        ("tune: {candidates: 1000000000, space: {noise.size: {choice: [1, 2]}}}", ["tune.candidates 1000000000", "10000 or"]),
        ("registry: {model: ..}", ["registry.model '..'", "is not a model name"]),
        ("algorithm: {steps: 1.5}", ["wrong type", "algorithm.steps", "1.5", "integer"]),
        ("algorithm: {steps: true}", ["wrong type", "algorithm.steps", "True", "integer"]),
        ("data: {name: minst}", ["not one of the choices", "data.name", "'minst'", "'digits', 'mnist'"]),
        ("algorithm: {scheme: alternating}", ["algorithm.scheme", "'alternating'", "'algorithm1' or 'simultaneous'"]),
        # out of range
        *[(f"algorithm: {{{net}_learning_rate: {rate}}}", [f"algorithm.{net}_learning_rate", "not a positive number"])
          for net in ("generator", "discriminator") for rate in ("0", "-0.1", ".nan", ".inf")],
        *[(f"algorithm: {{momentum: {{{end}: {value}}}}}", [f"algorithm.momentum.{end} {value}", "not in [0, 1)"])
          for end in ("initial", "final") for value in ("1.0", "-0.1")],
        ("data: {preprocessing: global_contrast_normalisation}", ["network.generator.output sigmoid", "use linear"]),
        ("data: {name: tfd, fold: 5}", ["data.fold 5", "use 0 to 4"]),
        ("data: {name: images, size: 32}", ["wrong type", "data.size", "32"]),
        ("data: {name: images, channels: rgb}", ["data.channels", "'rgb'", "'grey' or 'colour'"]),
        ("network: {generator: {activations: [relu]}}", ["network.generator.activations ['relu']", "[1200, 1200]"]),
        # architectures
        ("network: {architecture: convolution}",
         ["not one of the choices", "network.architecture", "'convolution'", "'dense', 'maxout_convolutional', 'convolutional'"]),
        ("network: {architecture: convolutional, discriminator: {units: [3]}}",
         ["unknown setting", "network.discriminator.units", "one of channels, hidden, leak"]),
        ("network: {architecture: convolutional, generator: {chanels: [3]}}", ["did you mean network.generator.channels?"]),
        ("network: {generator: {channels: [3]}}", ["unknown setting", "network.generator.channels", "one of hidden"]),
        ("network: {architecture: convolutional, generator: {channels: 3}}", ["wrong type", ": network.generator.channels)"]),
        ("network: {architecture: convolutional, discriminator: {leak: 1.5}}", ["network.discriminator.leak 1.5", "[0, 1)"]),
        ("network: {architecture: maxout_convolutional, discriminator: {pools: [2]}}",
         ["network.discriminator.pools [2]", "one for each of [32, 32, 192]"]),
        ("network: {architecture: convolutional}\ndata: {preprocessing: global_contrast_normalisation}", ["use linear"]),
        ("network: {architecture: convolutional}\ntune: {space: {network.discriminator.units: {choice: [[3]]}}}",
         ["unknown setting", "tune.space", "network.discriminator.units", "one of channels"]),
        ("network: {generator: {pretrained_layers: 3}}", ["network.generator.pretrained_layers 3", "1 to 2"]),
        ("algorithm: {discriminator_steps: 0}", ["algorithm.discriminator_steps 0", "use 1 or more"]),
        ("algorithm: {batch_size: 0}", ["algorithm.batch_size 0", "use 1 or more"]),
        ("algorithm: {batch_size: 101}\ntrain: {workers: 2}", ["algorithm.batch_size 101", "2 shards", "use 100 or 102"]),
        ("train: {virtual_shards: 0}", ["train.virtual_shards 0", "use 1 or more"]),
        ("train: {virtual_shards: 3}", ["train.virtual_shards 3", "power of two"]),
        ("train: {workers: 4, virtual_shards: 2}", ["train.virtual_shards 2", "4 workers"]),
        ("train: {keep_checkpoints: 1}", ["train.keep_checkpoints 1", "use 2 or more"]),
        ("seed: -1", ["seed -1", "[0, 2^63)"]),
        (f"seed: {2**63}", [f"seed {2**63}", "[0, 2^63)"]),
        ("registry: {model: a/b}", ["registry.model 'a/b'", "1 to 128 of A-Z"]),
        ("tune: {rungs: [200, 100]}", ["tune.rungs [200, 100]", "rising"]),
        ("tune: {keep: 1.1}", ["tune.keep 1.1", "between 0 and 1"]),
        ("tune: {keep: 0}", ["tune.keep 0", "between 0 and 1"]),
        ("tune: {searcher: bayes}", ["not one of the choices", "tune.searcher", "'bayes'", "'random', 'grid' or 'tpe'"]),
        ("tune: {scheduler: hyperband}", ["not one of the choices", "tune.scheduler", "'asha'", "'population_based'"]),
        ("tune: {time_budget_s: 0}", ["tune.time_budget_s 0", "not a positive number of seconds"]),
        ("tune: {time_budget_s: -1.5}", ["tune.time_budget_s -1.5", "not a positive"]),
        ("tune: {max_concurrent: 0}", ["tune.max_concurrent 0", "use 1 or more"]),
        ("tune: {resources_per_trial: {gpu: 1.5}}", ["tune.resources_per_trial.gpu 1.5", "part of one GPU or a whole number"]),
        ("tune: {candidates: 4, searcher: grid, space: {noise.size: {choice: [1, 2]}}}",
         ["tune.candidates 4", "the grid's 2 points and 1 that are given", "use 3"]),
        ("tune: {candidates: 3, searcher: grid, space: {algorithm.generator_learning_rate: {uniform: [0.1, 0.2]}}}",
         ["tune.space.algorithm.generator_learning_rate", "no grid", "choice or integer"]),
        ("tune: {candidates: 3, searcher: tpe, space: {noise.size: {choice: [1, 2]}}}",
         ["tune.searcher tpe", "tune.scheduler synchronous_halving", "use tune.scheduler asha"]),
        ("tune: {candidates: 3, searcher: tpe, scheduler: population_based, space: {noise.size: {choice: [1, 2]}}}",
         ["tune.searcher tpe", "tune.scheduler population_based"]),
        ("tune: {candidates: 3, scheduler: asha, keep: 1.0, space: {noise.size: {choice: [1, 2]}}}",
         ["tune.keep 1.0", "asha", "tune.scheduler none"]),
        ("tune: {candidates: 3, scheduler: population_based, space: {noise.size: {choice: [1]}, algorithm.discriminator_steps: {choice: [1]}}}",
         ["noise.size, algorithm.discriminator_steps", "cannot change during a training", "algorithm.generator_learning_rate"]),
        ("tune: {candidates: 1, scheduler: population_based, space: {algorithm.generator_learning_rate: {choice: [0.1]}}}",
         ["population_based", "1 candidates and 2 rungs", "2 or more of each"]),
        ("tune: {candidates: 3, max_concurrent: 2, scheduler: population_based, space: {algorithm.generator_learning_rate: {choice: [0.1]}}}",
         ["tune.max_concurrent 2", "tune.candidates 3", "leave it null"]),
        ("tune: {min_coverage: 1.5}", ["tune.min_coverage 1.5", "[0, 1]"]),
        ("evaluate: {folds: 1}", ["evaluate.folds 1", "use 2 or more"]),
        ("registry: {gate: {sample_sets: 1}}", ["registry.gate.sample_sets 1", "use 2 or more"]),
        # search spaces
        ("tune: {candidates: 3}", ["tune.space is empty", "tune.candidates to 0"]),
        ("tune: {space: {noise.size: {choice: []}}}", ["tune.space.noise.size", "empty choice"]),
        ("tune: {space: {noise.size: {uniform: [2, 1]}}}", ["tune.space.noise.size [2, 1]", "inverted"]),
        ("tune: {space: {noise.size: {integer: [2, 2]}}}", ["tune.space.noise.size [2, 2]", "empty"]),
        ("tune: {space: {noise.size: {integer: [1.5, 3]}}}", ["tune.space.noise.size [1.5, 3]", "integers"]),
        ("tune: {space: {noise.size: {uniform: [1, .inf]}}}", ["tune.space.noise.size [1, inf]", "endless"]),
        ("tune: {space: {noise.size: {uniform: [1]}}}", ["tune.space.noise.size [1]", "pair of numbers"]),
        ("tune: {space: {noise.size: {gauss: [1, 2]}}}", ["gauss", "choice, uniform, log_uniform, integer"]),
        ("tune: {space: {algorithm.generator_learning_rate: {log_uniform: [0, 1]}}}", ["[0, 1]", "logarithm"]),
        ("tune: {space: {noise.sise: {choice: [1]}}}", ["unknown setting", "noise.sise", "did you mean noise.size?"]),
        ("tune: {space: {seed: {choice: [1]}}}", ["not searchable", "seed", "noise, network, algorithm"]),
        ("tune: {space: {train.workers: {choice: [1]}}}", ["not searchable", "train.workers"]),
    ],
)  # fmt: skip
def test_bad_configuration_is_refused_in_one_line(text, words, tmp_path, monkeypatch):
    """A bad configuration is refused in one line with what is wrong and what is right; no code in it runs."""
    monkeypatch.chdir(tmp_path)
    line = refused(text, tmp_path)
    assert [word for word in words if word not in line] == [], line
    assert "it.yaml" in line
    assert not Path("canary").exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e3", 1000), ("1E3", 1000), ("1.0e3", 1000), ("+1e+3", 1000), ("1_0e2", 1000), ("500", 500)],
)
def test_every_number_a_person_writes_is_one(text, value, tmp_path):
    """YAML 1.1 takes 1e3 for text; a whole number may be written so too."""
    (tmp_path / "it.yaml").write_text(f"algorithm: {{steps: {text}}}")
    assert config.load(tmp_path / "it.yaml").algorithm.steps == value
    assert config.load(tmp_path / "it.yaml", [f"algorithm.steps={text}"]).algorithm.steps == value
    assert config.parse_yaml("[1e-3, -.5e1, 1E-3, 1e999, 0x1e3, e3, 1e]", "it") == [
        0.001, -5, 0.001, math.inf, 483, "e3", "1e",
    ]  # fmt: skip


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["{!r}", "{:e}", "{:E}", "{:.3g}", "{:+.2e}", "{:.0f}"]),
)
def test_advice_for_a_number_in_quotes_works(value, form):
    """What the error says to write instead is read as that number."""
    text = form.format(value)
    assume(math.isfinite(float(text)))  # rounded up, the largest are endless
    advice = as_number(text)
    assert config.parse_yaml(advice, "it") == float(text)


def test_sections_may_be_empty_or_merged(tmp_path):
    """A section whose lines are all comments is its defaults; `<<` merges another."""
    (tmp_path / "it.yaml").write_text(
        "tune:\n  # candidates: 3\nalgorithm:\n  adam:\nnetwork:\n  generator: &g {init_range: 0.1}\n  discriminator: {<<: *g}\n"
    )
    assert config.load(tmp_path / "it.yaml") == config.build(
        {"network": {"generator": {"init_range": 0.1}, "discriminator": {"init_range": 0.1}}}
    )
    with pytest.raises(ConfigurationError, match=r"algorithm.steps\): None; expected"):
        config.build({"algorithm": {"steps": None}})


def test_unreadable_configuration_file_is_named(tmp_path):
    """A file that is missing, a folder or not text is named in the error."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "long").write_bytes(b"#" * 2**20 + b"#")
    for name, says in [
        ("none.yaml", "No such file"),
        ("", "Is a directory"),
        ("binary", "decode"),
        ("long", "over 1 MiB"),
    ]:
        with pytest.raises(ConfigurationError, match=says) as caught:
            config.load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_a_wrong_override_is_blamed_and_not_the_file(tmp_path):
    """An error is of the override without which all is right, of all of them where none is, or of the file."""
    path = tmp_path / "it.yaml"
    path.write_text("algorithm: {batch_size: 50}\n")
    wrong = {
        ("seed=1", "algorithm.steps=abc"): "wrong type (--set algorithm.steps=abc: algorithm.steps): the text 'abc'",
        ("train.workers=4", "seed=2"): "invalid setting (--set train.workers=4): algorithm.batch_size 50",
        ("seed=-1", "algorithm.steps=0"): "(--set seed=-1 --set algorithm.steps=0",
    }
    for overrides, said in wrong.items():
        with pytest.raises(ConfigurationError) as error:
            config.load(path, overrides)
        assert said in str(error.value)
    path.write_text("algorithm: {batch_size: 0}\n")
    with pytest.raises(ConfigurationError, match=rf"\({path}\): algorithm.batch_size 0"):
        config.load(path, ["seed=1"])
    assert config.load(path, ["algorithm.batch_size=8"]).algorithm.batch_size == 8


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("algorithm.steps", ["not an override", "section.key=value"]),
        ("=5", ["not an override"]),
        ("algorithm.stepz=5", ["unknown setting", "did you mean algorithm.steps?"]),
        ("algorithm.steps=[", ["not valid YAML", "--set algorithm.steps=["]),
        ("seed.x=5", ["not a section", "seed is 3"]),
        ("algorithm.steps=[\n5", ["not valid YAML", "--set algorithm.steps=[ 5, line 2"]),
    ],
)
def test_bad_override_is_refused_and_repeated(override, words, tmp_path):
    """A bad override is refused in one line that repeats it."""
    (tmp_path / "it.yaml").write_text("seed: 3\n")
    with pytest.raises(ConfigurationError) as caught:
        config.load(tmp_path / "it.yaml", [override])
    assert len(str(caught.value).splitlines()) == 1
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


YAML_PIECES = st.sampled_from(
    [*"[]{}:,-&*!|>'\"%@`#?=~<\n\t0123456789._+eExobn", "!!int ", "!!bool ", "!!set ", "2020-", "<<: ", "&a ", "*a"]
)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(LEAVES),
    st.one_of(
        st.text(), st.lists(YAML_PIECES, max_size=12).map("".join), st.integers().map(str), st.floats().map(repr)
    ),
)
def test_any_value_text_loads_or_is_one_error(key, text):
    """Any text in place of a value gives a configuration or a configuration error of one line."""
    line = "loaded"
    try:
        document = config.parse_yaml(f"it: {text}", "it")
        value = document["it"] if isinstance(document, dict) and "it" in document else document
        *path, last = key.split(".") if not key.startswith("tune.space.") else ["tune", "space", "noise.size"]
        built = {last: value}
        for part in reversed(path):
            built = {part: built}
        assert isinstance(config.build(built), Configuration)
    except ConfigurationError as error:
        line = str(error)
    assert len(line.splitlines()) == 1


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(LEAVES), st.one_of(st.text(), st.lists(YAML_PIECES, max_size=12).map("".join)))
def test_any_override_text_loads_or_is_one_error(key, text):
    """Any text as an override gives a configuration or a configuration error of one line."""
    line = "loaded"
    try:
        assert isinstance(config.load(CONFIGS[0], [f"{key}={text}"]), Configuration)
    except ConfigurationError as error:
        line = str(error)
    assert len(line.splitlines()) == 1


def test_the_scored_weights_follow_the_average_unless_set(tmp_path):
    """An own configuration trained an average and registered the last G: -219 nats against -63."""
    for text, scored in (
        ("algorithm: {generator_average: 0.99}", "averaged"),
        ("algorithm: {generator_average: 0.99}\nevaluate: {weights: last}", "last"),
        ("{}", "last"),
    ):
        (tmp_path / "own.yaml").write_text(text)
        configuration = config.load(tmp_path / "own.yaml")
        assert configuration.scored_weights == scored
        without = config.override(configuration, {"algorithm.generator_average": 0.0})
        assert without.scored_weights == "last"  # a candidate that keeps none is scored by its last


def test_first_difference_names_setting_and_both_values(small):
    """The first difference is that of the first setting in dotted order, with both values."""
    ours = config.to_plain(small)
    theirs = config.to_plain(config.override(small, {"noise.size": 9, "algorithm.steps": 1}))
    assert config.first_difference(ours, ours) is None
    assert config.first_difference(ours, theirs) == ("algorithm.steps", 200, 1)
    assert config.first_difference(ours, theirs, ignore=["algorithm.steps"]) == ("noise.size", 8, 9)


def test_digest_is_of_values_and_not_of_their_order():
    """The digest is of the values and their types, and not of the order of keys."""
    assert config.digest({"a": 1, "b": [2, 3]}) == config.digest({"b": [2, 3], "a": 1})
    assert len({config.digest(value) for value in ({"a": 1}, {"a": 2}, {"a": 1.0}, {"a": "1"}, {"a": [1]})}) == 5


def digest_of(build):
    try:
        return config.digest(config.identity(build()))
    except ConfigurationError:
        return "refused"


def by_set(name, spelling):
    document = {}
    config.apply_override(document, f"{name}={spelling}")
    return config.build(document)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FRACTIONS), st.one_of(st.sampled_from([0, 1, 250]), st.integers(0, 10**6)))
def test_digest_does_not_depend_on_a_numbers_spelling(name, number):
    """A value has one digest, written with a dot or without, in the file, by --set or by default."""
    spellings = (f"{number}", f"{number}.0", f"+{number}", f"{number}.0e+0")
    found = {digest_of(lambda text=text: by_set(name, text)) for text in spellings}
    found |= {
        digest_of(lambda value=value: config.override(ResolvedConfiguration(), {name: value}))
        for value in (number, float(number))
    }
    if config.flat(config.to_plain(Configuration()))[name] == number:
        found.add(digest_of(Configuration))
    assert len(found) == 1


def test_fractions_are_found():
    assert {"tune.min_coverage", "algorithm.momentum.start_epoch", "train.hang_timeout_s"} <= set(FRACTIONS)
    assert not {"seed", "noise.size", "tune.rungs", "train.gpu"} & set(FRACTIONS)


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("algorithm.momentum.initial", "{choice: [0, 0.5]}", "{choice: [0.0, 5.0e-1]}"),
        ("network.discriminator.max_column_norm", "{choice: [null, 2]}", "{choice: [null, 2.0]}"),
        ("network.generator.hidden_biases", "{choice: [[0, -2]]}", "{choice: [[0.0, -2.0]]}"),
        ("algorithm.momentum.final", "{uniform: [0, 0.5]}", "{uniform: [0.0, 0.5]}"),
        ("algorithm.generator_learning_rate", "{log_uniform: [0.5, 2]}", "{log_uniform: [0.5, 2.0]}"),
    ],
)  # fmt: skip
def test_space_digest_ignores_spelling_of_fractions(key, one, other):
    """A search space has one digest and the same draws however its fractions are written."""
    built = [config.build(config.parse_yaml(f"tune: {{space: {{{key}: {text}}}}}", "it")) for text in (one, other)]
    assert len({config.digest(config.identity(configuration)) for configuration in built}) == 1
    drawn = [
        config.build(config.parse_yaml(f"tune: {{candidates: 3, space: {{{key}: {text}}}}}", "it"))
        for text in (one, other)
    ]
    assert len({json.dumps(draw_candidates(configuration)) for configuration in drawn}) == 1


def test_integers_of_a_space_stay_integers():
    """Integers of a space stay integers; what no setting can be is left for its candidate to refuse."""
    space = {"noise.size": {"choice": [8, 16]}, "algorithm.steps": {"integer": [1, 3]}}
    assert config.build({"tune": {"space": space}}).tune.space == space
    assert "[8, 16]" in json.dumps(config.to_plain(config.build({"tune": {"space": space}})))
    wrong = {"tune": {"candidates": 3, "searcher": "grid", "space": {"noise.size": {"choice": [8, "many"]}}}}
    with pytest.raises(ConfigurationError, match=r"noise.size\): the text 'many'"):
        candidate_configurations(config.build(wrong))
