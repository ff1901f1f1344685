"""A registry to look up, load from and write to; loading executes nothing that it holds."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gan_core.errors import CheckpointError, RegistryError
from pipelines.registry.backend import Backend, backend_of
from pipelines.registry.lookup import CHALLENGER, CHAMPION, Lookup
from pipelines.registry.model_version import ARCHIVED_TAG, DUPLICATE_TAG, KEY_TAG, ModelVersion

if TYPE_CHECKING:  # importing torch takes seconds
    from gan_core.extensions.inference import Inference
    from gan_core.portable import PortableGenerator

__all__ = ["ARCHIVED_TAG", "CHALLENGER", "CHAMPION", "DUPLICATE_TAG", "KEY_TAG", "ModelVersion", "Registry"]
Loaded = TypeVar("Loaded", "PortableGenerator", "Inference")


class Registry(Lookup):
    """The model registry behind a tracking URI: `backend` is what it is kept in.

    A look-up never creates a database; `create` is for those about to register.
    """

    backend: Backend

    def __init__(self, uri: str, create: bool = False) -> None:
        super().__init__(uri, backend_of(uri).open(uri, create))

    def load(self, version: ModelVersion) -> "PortableGenerator":
        """The version's generator: three plain files, sizes capped, digests checked, nothing executed.

        Raises:
            RegistryError: If it was not made here.
            CheckpointError: If a file is missing or damaged, or the weights are not the tagged ones.
        """
        if "generator_sha256" not in version.tags:
            raise RegistryError(
                "not a model of ours", version, "no generator_sha256 tag", "a version registered by gan"
            )
        from gan_core.portable import FILES, load_generator

        with self._files(version, FILES) as folder:
            model = load_generator(folder)
        return _checked(model, "generator_sha256", version)

    def load_inference(self, version: ModelVersion) -> "Inference":
        """The version's generator with its encoder, loaded as the generator alone is.

        Raises:
            RegistryError: If it was registered without an encoder.
            CheckpointError: If a file is missing or damaged, or the weights are not the tagged ones.
        """
        from gan_core.extensions.portable_encoder import WEIGHTS, load_inference
        from gan_core.portable import FILES

        if "encoder_sha256" not in version.tags:
            raise RegistryError(
                "no inference net", version, "registered without an encoder", "a run with extension.name inference"
            )
        with self._files(version, (*FILES, WEIGHTS)) as folder:
            inference = load_inference(folder)
        _checked(inference.model, "generator_sha256", version)
        return _checked(inference, "encoder_sha256", version)

    @contextlib.contextmanager
    def _files(self, version: ModelVersion, names: Sequence[str]) -> Iterator[Path]:
        """These files of a version, in a private folder."""
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o700)
            self.backend.download(version.source, names, Path(folder))
            first = next(Path(folder).rglob(names[0]), None)
            yield first.parent if first else Path(folder)

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        for key, value in tags.items():
            self.backend.set_version_tag(version.name, version.version, key, value)


def _checked(loaded: Loaded, tag: str, version: ModelVersion) -> Loaded:
    """What was loaded, if its weights are the tagged ones."""
    if loaded.sha256 != version.tags[tag]:
        raise CheckpointError("weights differ from the tag", version, loaded.sha256[:12], version.tags[tag][:12])
    return loaded
