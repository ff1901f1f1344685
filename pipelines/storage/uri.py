"""Folders by their address: a disk or an object store, opened, joined, and their refusals in our words."""

import contextlib
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs

from gan_core.errors import CheckpointError, ConfigurationError, first_line

CREDENTIALS = re.compile(r"://[^/?#]*@|[?&](access_key|secret_key|session_token)=")


def checked_address(place: str | Path) -> str:
    """A URI as it is, or a path made absolute.

    Raises:
        ConfigurationError: If a URI has credentials in it: they would be kept in every record.
    """
    text = str(place)
    if "://" not in text:
        return str(Path(text).expanduser().absolute())
    if CREDENTIALS.search(text):
        raise ConfigurationError(
            "credentials in an address", "--storage", re.sub(r"://.*", "://***", text),
            "them in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), or a role of the machine",
        )  # fmt: skip
    return text


def local_folder(address: str) -> Path | None:
    """The local folder at an address, if it is one."""
    if "://" not in address:
        return Path(address)
    return Path(address.removeprefix("file://")) if address.startswith("file://") else None


def make_private(folder: Path) -> None:
    """Make a folder that holds data, and those above it that are missing: the first of them is its owner's alone.

    In one that was made to be shared (its setgid bit is set) it is as the umask says. What is there is left as it is.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        first = place == missing[-1] and not place.parent.stat().st_mode & stat.S_ISGID
        place.mkdir(mode=0o700 if first else 0o777, exist_ok=True)


def joined(address: str, *parts: str) -> str:
    """The address of a folder inside; what a URI says after its path (`?endpoint_override=...`) stays at its end."""
    folder, mark, options = address.partition("?") if local_folder(address) is None else (address, "", "")
    return "/".join([folder.rstrip("/"), *parts]) + mark + options


def without_options(address: str) -> str:
    """The address alone, for those who have their own way of being told where a store is."""
    return address.partition("?")[0] if local_folder(address) is None else address


def open_place(address: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The filesystem of an address, and the folder's path on it.

    Raises:
        CheckpointError: If there is no such kind of place, or a store does not say where its bucket is.
    """
    try:
        if (local := local_folder(address)) is not None:
            return pyarrow.fs.LocalFileSystem(), str(local)
        filesystem, root = pyarrow.fs.FileSystem.from_uri(address)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "unusable storage", address, _reason(error), "a path, or a URI such as s3://bucket/folder"
        ) from error
    if not root.strip("/"):
        raise CheckpointError("unusable storage", address, "no bucket and no folder", "s3://bucket/folder")
    return filesystem, root


def check_bucket(address: str) -> None:
    """Ask an object store for the bucket of an address.

    Raises:
        CheckpointError: If the store does not answer, refuses, or has no such bucket.
    """
    filesystem, root = open_place(address)
    bucket = root.split("/", 1)[0]
    with answering(address):
        if filesystem.type_name == "s3" and filesystem.get_file_info(bucket).type == pyarrow.fs.FileType.NotFound:
            raise CheckpointError("no such bucket", address, bucket, "one that exists, and may be read and written")


@contextlib.contextmanager
def answering(address: str) -> Iterator[None]:
    """What an object store refuses, in one line. That a file is not there is not a refusal."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "storage refused", address, _reason(error), "a store that answers and grants reading and writing"
        ) from error


def _reason(error: Exception) -> str:
    """An error's first line, without the number that a store gives each request."""
    return re.sub(r" \(Request ID: [^)]*\)", "", first_line(error))
