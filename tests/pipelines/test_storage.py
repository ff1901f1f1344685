"""A run's folder holds whole files, whole checkpoints and each step once, on a disk and on an object store."""

import errno
import logging
import os
import resource
import subprocess
import sys
import uuid
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_core.errors import CheckpointError, ConfigurationError
from pipelines.storage import Storage, check_storage, checkpoint_names, latest_checkpoint, local_copy, save_checkpoint
from pipelines.storage.metric_log import append_history, read_history
from tests.pipelines.conftest import environment, until

# A path, its URI, and stores without folders, renaming or appending: fsspec's, in memory, and S3, over HTTP.
KINDS = ("path", "file", "objects", "s3")


@pytest.fixture(params=KINDS)
def storage(request, tmp_path):
    if request.param == "s3":
        return Storage.at(request.getfixturevalue("bucket")).child(uuid.uuid4().hex, "runs", "it")
    uri = {"path": str(tmp_path), "file": f"file://{tmp_path}", "objects": f"fsspec+memory:///{uuid.uuid4().hex}"}
    return Storage.at(uri[request.param]).child("runs", "it")


def tensors(step):
    return {"generator": {"w": torch.full((3,), float(step))}, "optimizer": {"step": torch.tensor(step)}}


def damage(folder, name, file, content):
    folder.child(name).write(file, content)


def test_file_is_read_as_written_and_none_if_absent(storage):
    """A file is read back as it was written, and as None where there is none."""
    assert storage.read("a.bin") is None
    assert storage.read_json("a.json") is None
    assert storage.names() == []
    for content in (b"", b"\x00\xff" * 1000, b"shorter"):
        storage.write("a.bin", content)
        assert storage.read("a.bin") == content
    storage.write_json("deep/er/a.json", {"x": [1, None, "é"]})
    assert storage.read_json("deep/er/a.json") == {"x": [1, None, "é"]}
    assert storage.child("deep", "er").names() == ["a.json"]
    assert storage.names() == ["a.bin", "deep"]
    storage.remove()
    assert storage.names() == []
    storage.remove()  # what is not there can be removed


@pytest.mark.parametrize(("shared", "mode"), [(False, 0o700), (True, 0o755)])
def test_new_folders_are_their_owners_alone(shared, mode, tmp_path):
    """The first folder made is private, unless that above it was made to be shared; what is there stays as it is."""
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o2755 if shared else 0o755)
    before = os.umask(0o022)
    try:
        with Storage.at(place / "storage").child("runs", "it").lock():
            Storage.at(place / "storage").write("deep/er/a.bin", b"a")
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (place, place / "storage")] == [0o755, mode]
    assert (place / "storage" / "deep" / "er" / "a.bin").read_bytes() == b"a"


def test_a_file_that_is_not_json_is_named(storage):
    storage.write("a.json", b'{"half": ')
    with pytest.raises(CheckpointError, match=r"damaged file .*/runs/it/a\.json.*expected JSON"):
        storage.read_json("a.json")


def test_relative_path_becomes_absolute_and_uri_stays(tmp_path, monkeypatch):
    """A relative path becomes absolute, and a URI stays what it is."""
    monkeypatch.chdir(tmp_path)
    assert Storage.at("here").uri == str(tmp_path / "here")
    assert Storage.at("s3://bucket/x").uri == "s3://bucket/x"
    assert (Storage.at("here").local, Storage.at("file:///x").local) == (tmp_path / "here", Path("/x"))
    assert Storage.at("s3://bucket/x").local is None


def test_a_uri_of_no_filesystem_is_refused():
    with pytest.raises(CheckpointError, match=r"unusable storage \(nonsense://x\).*expected a path, or a URI"):
        Storage.at("nonsense://x").names()


def test_write_cut_short_keeps_the_old_file(tmp_path):
    """A write that the disk cuts short leaves the old file, and names the bytes that were wanted."""
    storage = Storage.at(tmp_path)
    storage.write("a.bin", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError) as caught:
            storage.write("a.bin", b"n" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert storage.read("a.bin") == b"old"
    assert storage.names() == ["a.bin"]
    for words in ("storage refused", str(tmp_path / "a.bin"), "200,000 bytes wanted", "free", os.strerror(errno.EFBIG)):
        assert words in str(caught.value)


def test_unwritable_place_is_a_storage_error(tmp_path):
    """A place that cannot be written is a storage error."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="storage refused"):
        Storage.at(tmp_path / "file").write("a", b"x")


WRITER = """
import sys
from pipelines.storage import Storage
storage = Storage.at(sys.argv[1])
with storage.lock() as free:
    print(free, flush=True)
    while True:
        for letter in (b"a", b"b"):
            storage.write("x", letter * 3_000_000)
"""


def test_folder_lock_and_whole_files_survive_a_kill(tmp_path):
    """A folder is held by one process until it ends, and a killed writer leaves a whole file."""
    storage, wholes = Storage.at(tmp_path), (b"a" * 3_000_000, b"b" * 3_000_000)
    storage.write("x", wholes[0])
    with storage.lock() as free:
        assert free
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert process.stdout.readline() == "True\n"
        with storage.lock() as free:
            assert not free
        with storage.child("another").lock() as free:
            assert free
        for _ in range(200):  # a reader sees one whole file or the other
            assert storage.read("x") in wholes
        until(lambda: any(name.startswith(".x-") for name in storage.names()))  # in the middle of a write
    finally:
        process.kill()
        process.communicate()
    assert storage.read("x") in wholes
    with storage.lock() as free:
        assert free


def test_newest_checkpoints_are_kept_and_last_is_read(storage):
    """The newest checkpoints are kept and the last one is read."""
    assert latest_checkpoint(storage) is None
    for step in (5, 10, 100):
        save_checkpoint(storage, step, tensors(step), {"of": "a test"}, keep=2)
    assert checkpoint_names(storage) == ["step=00000010", "step=00000100"]
    name, manifest, found = latest_checkpoint(storage)
    assert (name, manifest.step, manifest.about) == ("step=00000100", 100, {"of": "a test"})
    assert torch.equal(found["generator"]["w"], tensors(100)["generator"]["w"])
    assert int(found["optimizer"]["step"]) == 100
    with local_copy(storage.child(name)) as path:
        assert sorted(os.listdir(path)) == ["MANIFEST.json", "generator.safetensors", "optimizer.safetensors"]


@pytest.mark.parametrize(
    "fault", ["bit", "cut", "empty", "longer", "no manifest", "half a manifest", "no tensors", "empty folder"]
)
def test_damaged_checkpoint_is_skipped_with_one_warning(fault, storage, caplog):
    """A damaged checkpoint is passed over for the one before, with one warning."""
    for step in (5, 10, 15):
        save_checkpoint(storage, step, tensors(step), {}, keep=3)
    name, file = "step=00000015", "generator.safetensors"
    whole, manifest = storage.child(name).read(file), storage.child(name).read("MANIFEST.json")
    if fault in ("no manifest", "no tensors", "empty folder"):
        storage.child(name).remove()
        left = {"no manifest": {file: whole}, "no tensors": {"MANIFEST.json": manifest}, "empty folder": {".gone": b""}}
        for kept, content in left[fault].items():
            storage.child(name).write(kept, content)
    elif fault == "half a manifest":
        damage(storage, name, "MANIFEST.json", manifest[: len(manifest) // 2])
    else:
        flipped = whole[:-1] + bytes([whole[-1] ^ 1])
        damage(storage, name, file, {"bit": flipped, "cut": whole[:-1], "empty": b"", "longer": whole + b"\0"}[fault])
    with caplog.at_level(logging.WARNING):
        assert latest_checkpoint(storage)[0] == "step=00000010"
    (warning,) = caplog.records
    assert "1 damaged checkpoint(s), using step=00000010" in warning.getMessage()


def test_no_valid_checkpoint_is_an_error(storage):
    """With no valid checkpoint there is an error, and never a silent fresh start."""
    for step in (5, 10):
        save_checkpoint(storage, step, tensors(step), {}, keep=2)
        damage(storage, f"step={step:08d}", "optimizer.safetensors", b"")
    with pytest.raises(CheckpointError, match=r"no valid checkpoint.*0 bytes.*remove the folder to start afresh"):
        latest_checkpoint(storage)


def test_damaged_checkpoint_is_replaced_by_its_step(storage, caplog):
    """A damaged checkpoint is replaced when its step is trained again."""
    save_checkpoint(storage, 5, tensors(5), {}, keep=2)
    damage(storage, "step=00000005", "generator.safetensors", b"")
    save_checkpoint(storage, 5, tensors(5), {}, keep=2)
    assert latest_checkpoint(storage)[1].step == 5
    assert caplog.records == []


def test_checkpoint_cut_short_has_no_final_name(tmp_path):
    """A checkpoint that the disk cuts short never carries a final name."""
    storage = Storage.at(tmp_path)
    save_checkpoint(storage, 5, tensors(5), {}, keep=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"storage refused .*-10-.*bytes wanted, .* free"):
            save_checkpoint(storage, 10, {"generator": {"w": torch.zeros(100_000)}}, {}, keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["step=00000005"]
    assert latest_checkpoint(storage)[1].step == 5


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(5, 40))
def test_history_has_one_row_for_each_step(restarts, last):
    """History has one row for each step, in order, however often segments were replayed."""
    storage = Storage.at(f"fsspec+memory:///{uuid.uuid4().hex}")
    attempts = [0, *sorted(min(restart, last - 1) for restart in restarts)]
    for start in attempts:  # each attempt trains from a checkpoint to the end, in segments of five rows
        steps = list(range(start + 1, last + 1))
        for first in range(0, len(steps), 5):
            append_history(storage, [{"step": s, "value": s / 7} for s in steps[first : first + 5]])
    assert read_history(storage) == [{"step": s, "value": s / 7} for s in range(1, last + 1)]


def test_no_rows_make_no_segment(storage):
    """No rows make no segment, and a folder that is not there has no history."""
    append_history(storage, [])
    assert storage.names() == []
    assert read_history(storage) == []


def test_a_half_written_segment_is_not_read(tmp_path):
    storage = Storage.at(tmp_path)
    append_history(storage, [{"step": 1}])
    (tmp_path / ".00000002-00000003.jsonl-0123abcd").write_text('{"step": 2}\n{"st')
    assert read_history(storage) == [{"step": 1}]


def flipped(content):
    """The content with each of its bits flipped in turn."""
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def cut(content):
    """The content cut after each of its bytes but the last."""
    return [content[:length] for length in range(len(content))]


@pytest.mark.parametrize("damage", [flipped, cut])
def test_a_damaged_json_file_is_an_error_or_says_the_same(tmp_path, damage):
    """No bit and no cut of a JSON object's file changes what it says without an error of exit code 4."""
    storage, value = Storage.at(tmp_path), {"inputs": "e3", "record": {"score": 16.25, "steps": [1, 2], "none": None}}
    storage.write_json("it.json", value)
    content, refused = storage.read("it.json"), []
    assert storage.read_json("it.json") == value
    for damaged in damage(content):
        (tmp_path / "it.json").write_bytes(damaged)
        try:
            assert storage.read_json("it.json") == value  # spaces between them
        except CheckpointError as error:
            refused.append(error.exit_code)
    assert set(refused) == {4}
    assert len(refused) > 0.7 * len(list(damage(content)))


@pytest.mark.parametrize("damage", [flipped, cut])
def test_a_damaged_history_never_says_anything_else(tmp_path, damage, caplog):
    """A file of history that was changed or cut is left out with a warning, or has its rows as they were."""
    storage, rows = Storage.at(tmp_path), [{"step": step, "value": step / 7} for step in (1, 2)]
    append_history(storage, rows)
    append_history(storage, [{"step": 3, "value": 1.0}])
    path = tmp_path / "00000001-00000002.jsonl"
    content, left_out = path.read_bytes(), 0
    for damaged in damage(content):
        path.write_bytes(damaged)
        found = read_history(storage)
        assert found in ([*rows, {"step": 3, "value": 1.0}], [{"step": 3, "value": 1.0}])
        left_out += len(found) == 1
        assert read_history(storage, stop_at_damage=True) == ([] if len(found) == 1 else found)
    assert left_out > 0.7 * len(list(damage(content)))
    assert "its rows are left out" in caplog.text


def test_files_of_earlier_versions_have_no_digest(tmp_path):
    """They are read as they are; a history's must end where its name says."""
    storage = Storage.at(tmp_path)
    storage.write("it.json", b'{"a": 1}')
    assert storage.read_json("it.json") == {"a": 1}
    storage.write("00000001-00000002.jsonl", b'{"step": 1}\n{"step": 2}\n')
    storage.write("00000003-00000004.jsonl", b'{"step": 3}\n')
    assert read_history(storage) == [{"step": 1}, {"step": 2}]


def test_segments_sort_as_steps_do(storage):
    for first, last in pairwise((0, 999, 20_000, 300_000)):
        append_history(storage, [{"step": first + 1}, {"step": last}])
    assert [row["step"] for row in read_history(storage)] == [1, 999, 1000, 20_000, 20_001, 300_000]


def test_uri_options_stay_at_its_end_and_are_used(bucket, monkeypatch):
    """A storage with options in its URI keeps them at the end and is read with them."""
    server = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    options = f"?endpoint_override={server}&scheme=http"
    folder = Storage.at(f"{bucket}/{uuid.uuid4().hex}{options}").child("runs", "it")
    folder.write("a", b"1")
    assert (folder.read("a"), folder.child("b").read("a"), folder.name) == (b"1", None, "it")
    assert folder.uri.endswith(f"/runs/it{options}")
    assert Storage("/a?b").child("c").uri == "/a?b/c"  # a folder of that name


@pytest.mark.parametrize("uri", ["s3://key:secret@bucket/x", "s3://key@bucket", "https://a/b?secret_key=secret"])
def test_credentials_in_an_address_are_refused_and_not_repeated(uri):
    with pytest.raises(
        ConfigurationError, match=r"credentials in an address \(--storage\).*AWS_ACCESS_KEY_ID"
    ) as error:
        Storage.at(uri)
    assert "secret" not in str(error.value).replace("SECRET", "").replace("secret_key", "")
    assert "key:" not in str(error.value)


def test_missing_bucket_is_found_before_any_work(bucket):
    """A bucket that is not there is found before any work, and one that is passes."""
    with pytest.raises(CheckpointError, match=r"no such bucket \(s3://gan-other/x\): gan-other; expected one"):
        check_storage(Storage.at("s3://gan-other/x"), 1)
    with pytest.raises(CheckpointError, match=r"storage refused \(s3://gan-other/x/a\).*NO_SUCH_BUCKET") as error:
        Storage.at("s3://gan-other/x").write("a", b"1")
    assert "Request ID" not in str(error.value)
    assert "\n" not in str(error.value)
    check_storage(Storage.at(bucket).child("new"), 1)
    with pytest.raises(CheckpointError, match=r"unusable storage \(s3://\): no bucket"):
        Storage.at("s3://").names()


def test_silent_store_is_a_storage_error_for_any_call(bucket, monkeypatch):
    """A store that does not answer is a storage error, whatever it is asked."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # discard: nobody listens
    storage = Storage.at(bucket)
    for ask in (storage.names, lambda: storage.read("a"), lambda: check_storage(storage, 1)):
        with pytest.raises(CheckpointError, match=r"storage refused \(s3://gan-tests.*expected a store that answers"):
            ask()
