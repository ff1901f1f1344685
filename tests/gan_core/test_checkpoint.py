"""Checkpoints: whole or not at all; no damage is ever loaded, no refusal of the storage loses anything."""

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as parse_tensors

from gan_core.checkpoint import (
    MAX_HEADER,
    MAX_JSON,
    checkpoint_name,
    commit_checkpoint,
    read_checkpoint,
    read_manifest,
    tensors_digest,
    write_checkpoint,
)
from gan_core.errors import CheckpointError

TENSORS = {
    "generator": {"w": torch.arange(6.0).reshape(2, 3), "tiny": torch.tensor([1e-45, -0.0])},
    "optimizer": {"step": torch.tensor(2**40, dtype=torch.int64)},
}
ABOUT = {"training": {"seed": 1, "rate": 0.1}, "note": ""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return commit_checkpoint(tmp_path, 3, TENSORS, ABOUT)


def rewrite_manifest(folder: Path, change, sign: bool = True) -> None:
    """Change the manifest, and its own SHA-256 with it."""
    path = folder / "MANIFEST.json"
    document = json.loads(path.read_text())
    change(document)
    if sign:
        del document["sha256"]
        document["sha256"] = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(document))


def test_round_trip_keeps_every_bit_and_what_was_noted(folder):
    manifest, tensors = read_checkpoint(folder)
    assert (manifest.step, manifest.about) == (3, ABOUT)
    assert {group: sorted(named) for group, named in tensors.items()} == {g: sorted(n) for g, n in TENSORS.items()}
    for group, named in TENSORS.items():
        for name, tensor in named.items():
            assert tensors[group][name].dtype == tensor.dtype
            assert tensors[group][name].numpy().tobytes() == tensor.numpy().tobytes()
    assert sorted(path.name for path in folder.iterdir()) == [
        "MANIFEST.json",
        "generator.safetensors",
        "optimizer.safetensors",
    ]


def test_only_the_groups_asked_for_are_read(folder):
    (folder / "optimizer.safetensors").unlink()
    assert list(read_checkpoint(folder, ["generator"])[1]) == ["generator"]
    with pytest.raises(CheckpointError, match=r"unreadable checkpoint .*optimizer.safetensors.*: No such file"):
        read_checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"not in the manifest .*other.safetensors"):
        read_checkpoint(folder, ["other"])


@pytest.mark.parametrize("name", ["generator.safetensors", "MANIFEST.json"])
@pytest.mark.parametrize("cut", ["nothing left", "within the header", "half", "one byte", "one byte more"])
def test_a_file_cut_or_extended_anywhere_is_refused(folder, name, cut):
    content = (folder / name).read_bytes()
    left = {"nothing left": 0, "within the header": 7, "half": len(content) // 2, "one byte": -1}
    (folder / name).write_bytes(content + b"x" if cut == "one byte more" else content[: left[cut]])
    with pytest.raises(CheckpointError, match=rf"(damaged checkpoint|unreadable manifest) .*{name}"):
        read_checkpoint(folder)


# The folder is put back after each example. Of the manifest too, no bit is without meaning (as the
# case of an exponent's letter would be).
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["generator.safetensors", "optimizer.safetensors", "MANIFEST.json"]), st.data())
def test_one_flipped_bit_anywhere_is_refused(folder, name, data):
    content = bytearray((folder / name).read_bytes())
    position, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
    whole = bytes(content)
    content[position] ^= 1 << bit
    (folder / name).write_bytes(content)
    try:
        with pytest.raises(CheckpointError, match=r"damaged|unreadable|unknown schema"):
            read_checkpoint(folder)
    finally:
        (folder / name).write_bytes(whole)
    read_checkpoint(folder)


def test_safetensors_alone_would_not_have_noticed_a_flipped_bit(folder):
    content = bytearray((folder / "generator.safetensors").read_bytes())
    content[-1] ^= 1
    assert not torch.equal(parse_tensors(bytes(content))["w"], TENSORS["generator"]["w"])


def test_endless_list_of_tensors_is_not_parsed(folder):
    """A million tensors without an element: 70 MB of names, which took 12 s and 1.2 GiB to read."""
    content = (MAX_HEADER + 1).to_bytes(8, "little") + b"{" + b" " * (MAX_HEADER - 1) + b"}"
    (folder / "generator.safetensors").write_bytes(content)
    described = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite_manifest(folder, lambda m: m["files"].update({"generator.safetensors": described}))
    with pytest.raises(CheckpointError, match=r"not safetensors .*a list of tensors of over 4,194,304 bytes"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema=2), "unknown schema .*: schema 2; expected 1, or a newer version"),
        (lambda m: m["files"].update({"../w.safetensors": m["files"]["generator.safetensors"]}), "strange file"),
        (lambda m: m["files"].update({"/etc/w.safetensors": m["files"]["generator.safetensors"]}), "strange file"),
        (lambda m: m["files"].update({"w\0.safetensors": m["files"]["generator.safetensors"]}), "strange file"),
        (lambda m: m["files"].update({"code.py": m["files"]["generator.safetensors"]}), "strange file"),
        (lambda m: m.update(files={}), "strange file .*: no file"),
        (lambda m: m.pop("step"), "unreadable manifest .*KeyError: 'step'"),
        *[
            (lambda m, step=step: m.update(step=step), "unreadable manifest .*step")
            for step in (float("inf"), 10**400, -1, "3")
        ],
        (lambda m: m.update(about="x" * MAX_JSON), "unreadable manifest .*, of at most 4,194,304"),
        (lambda m: m["files"]["generator.safetensors"].update(bytes=1), "damaged checkpoint .*; expected 1"),
        (lambda m: m["files"]["generator.safetensors"].update(sha256="0"), "damaged checkpoint .*; expected 0"),
    ],
)
def test_foreign_manifest_is_refused_despite_its_digest(folder, change, message):
    """A manifest of another schema, with strange files or wrong sizes is refused though its own digest is right."""
    rewrite_manifest(folder, lambda document: None)
    read_checkpoint(folder)
    rewrite_manifest(folder, change)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)


def test_a_manifest_changed_without_its_digest_is_refused(folder):
    rewrite_manifest(folder, lambda document: document.update(step=7), sign=False)
    with pytest.raises(CheckpointError, match=r"damaged manifest .*MANIFEST.json"):
        read_manifest(folder)


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["schema", "step", "files", "about", "sha256", None]), documents)
def test_any_json_manifest_is_ours_or_refused(folder, key, document):
    """Any JSON in a manifest's place reads as the weights that were written, or is our error."""
    path = folder / "MANIFEST.json"
    whole = path.read_bytes()
    try:
        path.write_text(json.dumps(document)) if key is None else rewrite_manifest(
            folder, lambda manifest: manifest.update({key: document})
        )
        try:
            _, tensors = read_checkpoint(folder)
        except CheckpointError:
            return
        assert torch.equal(tensors.get("generator", TENSORS["generator"])["w"], TENSORS["generator"]["w"])
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"{}", b"null", b'{"schema": 1}'])
def test_a_manifest_that_is_none_is_refused(folder, content):
    (folder / "MANIFEST.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="unreadable manifest"):
        read_checkpoint(folder)


def test_folder_without_manifest_is_no_checkpoint(folder, tmp_path):
    """A folder without a manifest, or no folder at all, is refused as no checkpoint."""
    (folder / "MANIFEST.json").unlink()
    for path in (folder, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match=r"no such checkpoint .*: no MANIFEST.json"):
            read_checkpoint(path)


class Trap:
    """Unpickling it would write a file."""

    def __reduce__(self):
        return Path.touch, (Path("sprung"),)


def test_pickle_for_safetensors_is_never_unpickled(folder, tmp_path, monkeypatch):
    """A pickle in place of safetensors is refused and its code does not run, as unpickling would make it."""
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(Trap())
    (folder / "generator.safetensors").write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite_manifest(folder, lambda m: m["files"].update({"generator.safetensors": entry}))
    with pytest.raises(CheckpointError, match=r"not safetensors .*generator.safetensors"):
        read_checkpoint(folder)
    assert not Path("sprung").exists()
    pickle.loads(content)
    assert Path("sprung").exists()


def test_commit_replaces_the_checkpoint_of_its_step(tmp_path, folder):
    """A commit replaces the checkpoint of the same step and leaves no file under another name."""
    other = {"generator": {"w": torch.ones(1)}}
    assert commit_checkpoint(tmp_path, 3, other) == folder
    assert torch.equal(read_checkpoint(folder)[1]["generator"]["w"], torch.ones(1))
    assert [path.name for path in tmp_path.iterdir()] == ["step=00000003"]


def test_failed_write_keeps_the_previous_checkpoint(folder, tmp_path):
    """A write past the size limit leaves nothing under the final name, and the error names the bytes needed."""
    script = """
import resource, sys, torch
from pathlib import Path
from gan_core.checkpoint import commit_checkpoint
from gan_core.errors import CheckpointError
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for step, numbers in ((4, 100), (5, 10_000)):
    try:
        commit_checkpoint(Path(sys.argv[1]), step, {"generator": {"w": torch.ones(numbers)}})
    except CheckpointError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    # Of the two, 400 bytes fit and 40,000 do not.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step=00000003", "step=00000004"]
    assert read_checkpoint(tmp_path / "step=00000004")[0].step == 4
    assert read_checkpoint(folder)[0].step == 3
    (line,) = done.stdout.splitlines()
    wanted = int(line.split("File too large; ")[1].split(" bytes wanted")[0].replace(",", ""))
    # 40,000 bytes of numbers, and a header and a manifest of some hundreds each.
    assert 40_000 < wanted < 41_500
    assert line.startswith(f"storage refused ({tmp_path}")
    assert line.endswith(" free; expected a writable folder with room")


def test_unwritable_folder_is_refused_by_name(tmp_path):
    """A folder that cannot be written is refused by one error that names it."""
    (tmp_path / "file").write_text("in the way")
    for write in (write_checkpoint, commit_checkpoint):
        with pytest.raises(CheckpointError, match=r"storage refused \(.*file.*\): Not a directory"):
            write(tmp_path / "file" / "folder", 1, TENSORS)


@given(st.lists(st.integers(0, 99_999_999), min_size=2, max_size=2))
def test_names_sort_as_steps_do(steps):
    assert (checkpoint_name(steps[0]) < checkpoint_name(steps[1])) == (steps[0] < steps[1])


def test_digest_sees_all_of_tensors_but_their_order():
    """The digest of tensors sees names, types, shapes and bits, and neither the order nor the strides."""
    w = torch.arange(4.0)
    variants = [{"w": w, "b": w}, {"w": w}, {"v": w, "b": w}, {"w": w.double(), "b": w}, {"w": w.view(2, 2), "b": w}]
    variants += [{"w": torch.nextafter(w, w + 1), "b": w}, {"w": -w, "b": w}]
    assert len({tensors_digest(named) for named in variants}) == len(variants)
    assert tensors_digest({"b": w, "w": w}) == tensors_digest(variants[0])
    assert tensors_digest({"w": torch.stack([w, w], dim=1)[:, 0], "b": w}) == tensors_digest(variants[0])
