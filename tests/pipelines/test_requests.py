"""A request for samples is three fields in their ranges, and its answer is what the generator draws."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gan_core.errors import ConfigurationError
from pipelines.serving.requests import SampleRequest, answer_request, parse_request
from tests.pipelines.conftest import principal_generator


@pytest.fixture(scope="module")
def model(digits):
    return principal_generator(digits, 8)


@given(st.integers(1, 50), st.integers(0, 2**63 - 1), st.sampled_from(["npy", "png", "json"]))
def test_request_in_range_is_read_as_written(count, seed, kind):
    """A request whose fields are in range is read as it was written."""
    body = json.dumps({"count": count, "seed": seed, "format": kind}).encode()
    assert parse_request(body, 50) == SampleRequest(count, seed, kind)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"format": "npy"}', b'{"seed": 0}'])
def test_what_is_left_out_has_the_commands_defaults(body):
    assert parse_request(body, 64) == SampleRequest(64, 0, "npy")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"count": 51}', "count (POST /samples): 51; expected a whole number from 1 to 50"),
        (b'{"count": 0}', "count (POST /samples): 0; expected"),
        (b'{"count": 2.0}', "count (POST /samples): 2.0; expected"),
        (b'{"count": true}', "count (POST /samples): true; expected"),
        (b'{"count": "1; drop"}', 'count (POST /samples): "1; drop"; expected'),
        (b'{"count": 1, "seed": -1}', "seed (POST /samples): -1; expected a whole number from 0"),
        (b'{"count": 1, "seed": 9223372036854775808}', "seed (POST /samples): 9223372036854775808; expected"),
        (b'{"count": 1, "seed": NaN}', "seed (POST /samples): NaN; expected"),
        (b'{"count": 1, "format": "pickle"}', 'format (POST /samples): "pickle"; expected npy, png or json'),
        (b'{"count": 1, "format": ["npy"]}', 'format (POST /samples): ["npy"]; expected'),
        (b'{"cuont": 1}', "unknown field (POST /samples): 'cuont'; expected count, seed, format, condition; did you mean count?"),
        (b'{"count": 1, "count": 2}', "not JSON (POST /samples): a field is given twice"),
        (b"[1]", "not an object (POST /samples): list"),
        (b"\xff\x00", "not JSON (POST /samples)"),
        (b"[" * 100_000, "not JSON (POST /samples)"),
    ],
)  # fmt: skip
def test_other_requests_are_refused_in_one_line(body, words):
    """Anything else is refused in one line that says what is expected."""
    with pytest.raises(ConfigurationError) as error:
        parse_request(body, 50)
    assert str(error.value).startswith(words)
    assert len(str(error.value)) < 400


@given(st.binary(max_size=64) | st.from_type(dict).map(repr).map(str.encode))
def test_no_body_is_an_accident(body):
    try:
        request = parse_request(body, 50)
    except ConfigurationError:
        return
    assert 1 <= request.count <= 64


def test_every_form_holds_the_generators_own_draws(model):
    images = model.draw(9, 5)
    assert np.array_equal(np.load(io.BytesIO(answer_request(model, SampleRequest(9, 5, "npy")))), images)
    described = json.loads(answer_request(model, SampleRequest(9, 5, "json")))
    assert np.array_equal(np.array(described["images"], np.float32), images)
    assert (described["count"], described["seed"], described["generator_sha256"]) == (9, 5, model.sha256)
    picture = np.asarray(Image.open(io.BytesIO(answer_request(model, SampleRequest(9, 5, "png")))))
    scale, gap = 56 // 8, 2  # a grid of 3 x 3 images, 2 pixels apart before it is enlarged
    first = np.rint(np.clip(images[0], 0, 1) * 255).astype(np.uint8).repeat(scale, 0).repeat(scale, 1)
    assert picture.shape == ((3 * 10 + 2) * scale,) * 2
    assert np.array_equal(picture[gap * scale : 10 * scale, gap * scale : 10 * scale], first)
