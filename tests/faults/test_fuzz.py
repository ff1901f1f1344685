"""Parsers of what others wrote, fuzzed: the value, or one line that says what is wrong; `make fuzz` does it for an hour."""

import contextlib
import io
import json
import os
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gan_core.checkpoint import MALFORMED, read_manifest
from gan_core.datasets.idx import parse_idx
from gan_core.datasets.images import decode_all, read_array
from gan_core.errors import CheckpointError, ConfigurationError, DataError, GanError, RegistryError
from pipelines import config
from pipelines.registry.move import Move
from pipelines.registry.reference import is_model_reference, parse_reference
from pipelines.runs.run import Run
from pipelines.runs.run_name import RUN_NAME, checked_run_name, slug
from pipelines.serving.requests import parse_request
from pipelines.storage import Storage
from pipelines.storage.metric_log import append_history, read_history
from tests.pipelines.conftest import SMALL

EXAMPLES = int(os.environ.get("GAN_FUZZ_EXAMPLES", "60"))
fuzz = settings(
    max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

LINES = SMALL.splitlines(keepends=True)
TOKENS = [
    *LINES,
    *re.findall(r"\w+", SMALL),
    *"[]{}:,-?!&*|>'\"%@`#\n\t ",
    "<<: ",
    ": ",
    "- ",
    "&a ",
    "*a",
    "1e3",
    "!!float ",
    "~",
]
yaml_text = st.lists(st.sampled_from(TOKENS), max_size=60).map("".join) | st.text(max_size=200)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def mutated(whole: bytes) -> st.SearchStrategy[bytes]:
    """The content with some bytes changed, cut out or put in."""
    edit = st.tuples(st.integers(0, len(whole)), st.integers(0, 8), st.binary(max_size=8))

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        content = whole
        for place, length, new in edits:
            content = content[:place] + new + content[place + length :]
        return content

    return st.lists(edit, min_size=1, max_size=4).map(apply)


def one_line(error: GanError) -> None:
    """An error is one line that a terminal does not obey."""
    assert str(error).isprintable()
    assert str(error)


@fuzz
@given(yaml_text)
def test_any_text_is_a_configuration_or_refused(text):
    """What is read as a configuration is read again from its own YAML, the same."""
    try:
        document = config.parse_yaml(text, "it.yaml")
        built = config.build(document if isinstance(document, dict) else {}, "it.yaml")
    except ConfigurationError as error:
        one_line(error)
        return
    assert config.build(config.parse_yaml(config.to_yaml(built), "again")) == built


@fuzz
@given(st.lists(st.tuples(st.sampled_from(list(config.flat(config.to_plain(config.build({}))))), values), max_size=4))
def test_any_value_of_any_setting_is_taken_or_refused(settings_and_values):
    document: dict = {}
    for key, value in settings_and_values:
        *path, last = key.split(".")
        section = document
        for part in path:
            section = section.setdefault(part, {}) if isinstance(section, dict) else {}
        section[last] = value
    try:
        config.build(document, "it.yaml")
    except ConfigurationError as error:
        one_line(error)


@fuzz
@given(st.tuples(yaml_text, yaml_text).map("=".join) | st.text(max_size=100))
def test_any_override_is_taken_or_refused(text):
    try:
        config.build(_with_override(text), "it.yaml")
    except ConfigurationError as error:
        one_line(error)


def _with_override(text: str) -> dict:
    from pipelines.config.loader import apply_override

    document = config.parse_yaml(SMALL, "SMALL")
    apply_override(document, text)
    return document


@fuzz
@given(st.binary(max_size=300) | mutated(b"\0\0\x08\x03" + b"\0\0\0\x02" + b"\0\0\0\x03" * 2 + bytes(18)))
def test_any_bytes_are_an_idx_array_or_refused(content):
    try:
        array = parse_idx(content, 3, "it")
    except DataError as error:
        one_line(error)
        return
    assert array.tobytes() == content[16:]


def _saved() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.arange(12.0).reshape(3, 4))
    return stream.getvalue()


@fuzz
@given(content=st.binary(max_size=300) | mutated(_saved()))
def test_any_bytes_are_an_array_or_refused(content, tmp_path):
    path = tmp_path / "it.npy"
    path.write_bytes(content)
    try:
        assert isinstance(read_array(path, path, "an array"), np.ndarray)
    except DataError as error:
        one_line(error)


def _png() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (5, 4), (10, 20, 30)).save(stream, "PNG")
    return stream.getvalue()


@fuzz
@given(st.binary(max_size=200) | mutated(_png()))
def test_any_bytes_are_an_image_or_refused(content):
    try:
        assert decode_all([("it.png", content)], [4, 5], None).shape[:3] == (1, 4, 5)
    except DataError as error:
        one_line(error)


ROWS = [{"step": 10, "value": 0.5}, {"step": 20, "value": None}]


@fuzz
@given(mutate=st.data())
def test_any_part_of_a_history_is_whole_or_left_out(mutate, tmp_path):
    """Rows are those that were written, or none."""
    folder = Storage.at(tmp_path)
    append_history(folder, ROWS)
    path = tmp_path / "00000010-00000020.jsonl"
    path.write_bytes(mutate.draw(mutated(path.read_bytes())))
    assert read_history(folder) in ([], ROWS)


@fuzz
@given(content=st.binary(max_size=100) | values.map(lambda value: json.dumps(value).encode()))
@pytest.mark.parametrize("file", ["run.json", "records/train.json"])
def test_any_bytes_for_a_run_are_refused_by_name(file, content, tmp_path):
    folder = Storage.at(tmp_path).child("runs", "it")
    folder.write_json("run.json", {"run": "it", "commit": "k", "configuration": config.to_plain(config.build({}))})
    folder.write(file, content)
    try:
        Run.open("it", Storage.at(tmp_path)).records()
    except (CheckpointError, ConfigurationError) as error:
        one_line(error)


@fuzz
@given(content=st.binary(max_size=100) | values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_for_a_manifest_are_refused(content, tmp_path):
    (tmp_path / "MANIFEST.json").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_manifest(tmp_path)
    one_line(caught.value)


@fuzz
@given(
    st.text(max_size=200) | st.lists(st.sampled_from(["a", "@", "/", "1", "v", "champion", "-", ".", " "])).map("".join)
)
def test_any_name_is_taken_or_refused(text):
    """Runs' names and models' references; of any file's name there is a run's name."""
    assert RUN_NAME.fullmatch(slug(text))
    for parse in (checked_run_name, parse_reference):
        try:
            parse(text)
        except (ConfigurationError, RegistryError) as error:
            one_line(error)
    assert is_model_reference(text) in (True, False)


@fuzz
@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_a_request_or_refused(body):
    try:
        assert 1 <= parse_request(body, 100).count <= 100
    except ConfigurationError as error:
        one_line(error)


@fuzz
@given(st.text(max_size=100) | values.map(json.dumps))
def test_any_text_is_a_move_or_malformed(text):
    with contextlib.suppress(*MALFORMED):
        Move.parse(text)
