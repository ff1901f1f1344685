"""A request for samples over HTTP: read strictly, bounded, and answered with the bits of `gan sample`."""

import difflib
import io
import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from gan_core.conditions.classes import class_condition
from gan_core.errors import ConfigurationError
from gan_core.portable import PortableGenerator
from pipelines.reporting import figures

Format = Literal["npy", "png", "json"]
MEDIA = {"npy": "application/octet-stream", "png": "image/png", "json": "application/json"}
MAX_BODY = 4096  # bytes: a request is four short fields
WHERE = "POST /samples"


@dataclass(frozen=True)
class SampleRequest:
    """How many samples, of which seed, in which form, of which class."""

    count: int = 64
    seed: int = 0
    format: Format = "npy"
    condition: int | None = None  # of a conditional model: the class; none: as frequent as in the training data


def parse_request(body: bytes, max_samples: int) -> SampleRequest:
    """The request in a body of JSON; what it leaves out has the defaults of `gan sample`.

    Raises:
        ConfigurationError: If it is anything else than count, seed, format and condition, each in its range.
    """
    try:
        document = json.loads(body or b"{}", object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError("not JSON", WHERE, str(error)[:200], '{"count": 64, "seed": 0}') from error
    if not isinstance(document, dict):
        raise ConfigurationError("not an object", WHERE, type(document).__name__, '{"count": 64, "seed": 0}')
    known = ("count", "seed", "format", "condition")
    for key in document:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ConfigurationError(
                "unknown field",
                WHERE,
                repr(key)[:80],
                ", ".join(known) + (f"; did you mean {near[0]}?" if near else ""),
            )
    request = SampleRequest(**document)
    if not _whole(request.count) or not 1 <= request.count <= max_samples:
        raise ConfigurationError("count", WHERE, _shown(request.count), f"a whole number from 1 to {max_samples}")
    if not _whole(request.seed) or not 0 <= request.seed < 2**63:
        raise ConfigurationError("seed", WHERE, _shown(request.seed), "a whole number from 0 to 2^63 - 1")
    if request.format not in get_args(Format):
        raise ConfigurationError("format", WHERE, _shown(request.format), "npy, png or json")
    if request.condition is not None and not _whole(request.condition):
        raise ConfigurationError("condition", WHERE, _shown(request.condition), "a class, as a whole number")
    return request


def answer_request(model: PortableGenerator, request: SampleRequest) -> bytes:
    """The samples, in the form asked for.

    Raises:
        ConfigurationError: If the model has no such class, or none at all.
    """
    asked, given = request.condition, None
    if asked is not None:
        given = class_condition(model.conditions, asked, request.count)
    images = model.draw(request.count, request.seed, condition=given)
    if request.format == "npy":
        buffer = io.BytesIO()
        np.save(buffer, images)
        return buffer.getvalue()
    if request.format == "png":
        return figures.png(figures.sample_grid(images, model.pixels))
    described = {"count": request.count, "seed": request.seed, **({} if asked is None else {"condition": asked})}
    return json.dumps({**described, "images": images.tolist(), "generator_sha256": model.sha256}).encode()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's fields, if none is there twice."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field is given twice")
    return fields


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return json.dumps(value)[:80]
