"""Rows of streamed images stay as long as a run that reads them, and while one may be about to."""

import os
import threading
import time

import pytest

from pipelines.storage import Storage, image_cache

HOUR = 3600.0


@pytest.fixture
def storage(tmp_path):
    return Storage.at(tmp_path / "st")


def make(storage, name, readers=(), hours=2.0):
    """Rows that such runs have asked for, so long ago."""
    folder = storage.child("rows", name)
    folder.write("000000-000", b"12345")
    for reader in readers:
        image_cache.description(storage, name, reader)
    aged(folder, hours)
    return folder


def aged(folder, hours):
    for path in folder.local.rglob("*"):
        os.utime(path, (time.time() - hours * HOUR,) * 2)


def names(found):
    return [one.rows for one in found]


def test_rows_are_known_once_whole_and_askers_are_readers(storage):
    """Cached rows are known once they are whole, and whoever asks is their reader."""
    folder = make(storage, "a")
    assert image_cache.description(storage, "a", "one") is None
    folder.write_json("about.json", {"files": []})
    assert image_cache.description(storage, "a", "two") == {"files": []}
    assert folder.child("readers").names() == ["one", "two"]


def test_unread_rows_have_no_reader_and_no_user(storage):
    """Unread are rows whose readers are all gone and that nobody has asked for lately."""
    make(storage, "of-a-run", ["kept", "gone"])
    make(storage, "of-none", ["gone", "gone-too"])
    make(storage, "new", ["gone"], hours=0.5)
    aged(make(storage, "asked-for-again", ["gone"]), 2)
    image_cache.description(storage, "asked-for-again", "begins-now")
    (found,) = image_cache.unread(storage, ["kept"])
    assert (found.rows, found.bytes) == ("of-none", 5)
    assert found.age_seconds == pytest.approx(2 * HOUR, abs=60)  # the test itself may take a minute
    assert names(image_cache.unread(storage, [])) == ["of-a-run", "of-none"]
    assert image_cache.unread(Storage.at(storage.local / "none"), []) == []


def test_rows_without_readers_go_by_age_if_asked(storage):
    """What an earlier version left without readers goes by its age alone, and only if asked."""
    make(storage, "old", hours=50)
    make(storage, "newer", hours=5)
    make(storage, "read", ["kept"], hours=50)
    assert image_cache.unread(storage, ["kept"]) == []
    assert names(image_cache.unread(storage, ["kept"], older_than=48 * HOUR)) == ["old"]
    assert names(image_cache.remove_unread(storage, ["kept"], older_than=0.0)) == ["newer", "old"]


def test_only_rows_still_unread_are_removed(storage):
    """What is removed is what is still unread when its turn comes, and under the lock."""
    for name in ("a", "b", "c"):
        make(storage, name, ["gone"])
    removing = image_cache.remove_unread(storage, [])
    assert next(removing).rows == "a"
    image_cache.description(storage, "b", "begins-now")
    with storage.child("rows").lock() as free:
        assert free
        assert list(removing) == []
    assert image_cache.names(storage) == ["b", "c"]
    assert storage.child("rows", "b").read("000000-000") == b"12345"


def test_asking_during_removal_waits_and_finds_none(storage):
    """Who asks while rows are being removed waits, finds none, and then makes them again."""
    folder = make(storage, "a", ["gone"])
    folder.write_json("about.json", {"files": []})
    answers = []
    asking = threading.Thread(target=lambda: answers.append(image_cache.description(storage, "a", "new")))
    with storage.child("rows").lock() as free:
        assert free
        asking.start()
        time.sleep(0.2)
        assert answers == []
        folder.remove()
    asking.join(120)
    assert answers == [None]
    assert storage.child("rows", "a", "readers").names() == ["new"]
