"""Streams: functions of (seed, purpose, index), equal to Philox worked out by hand, and never overlapping."""

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gan_core.randomness import stream

keys = st.tuples(st.integers(0, 2**63), st.text(max_size=12), st.integers(0, 2**63))


def philox_4x64(key: tuple[int, int], counter: list[int]) -> list[int]:
    """Ten rounds of Philox-4x64 (Salmon et al. 2011), in Python's integers."""
    word = 2**64 - 1
    (k0, k1), (a, b, c, d) = key, counter
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (right >> 64) ^ b ^ k0, right & word, (left >> 64) ^ d ^ k1, left & word
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & word, (k1 + 0xBB67AE8584CAA73B) & word
    return [a, b, c, d]


@given(keys)
def test_stream_is_philox_of_seed_purpose_and_index(key):
    """A stream is Philox keyed by seed and purpose with the index in its counter, as worked out by hand."""
    seed, purpose, index = key
    digest = hashlib.sha256(f"{purpose}/{seed}".encode()).digest()
    words = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
    # numpy counts up before each block of four words, so the first block's counter is 1.
    expected = philox_4x64(words, [1, 0, index, 0]) + philox_4x64(words, [2, 0, index, 0])
    assert stream(seed, purpose, index).bit_generator.random_raw(8).tolist() == expected


@given(keys, keys)
def test_streams_are_equal_iff_their_keys_are(one, other):
    """Two streams are equal if and only if seed, purpose and index are."""
    first, again, second = (stream(*key).random(4) for key in (one, one, other))
    assert np.array_equal(first, again)
    assert np.array_equal(first, second) == (one == other)


def test_each_part_of_the_key_changes_the_stream():
    """Any one of seed, purpose and index alone changes the stream."""
    variants = [(0, "noise", 0), (1, "noise", 0), (0, "noises", 0), (0, "noise", 1), (0, "", 0), (10, "noise", 0)]
    assert len({stream(*variant).random() for variant in variants}) == len(variants)


def test_stream_meets_the_next_after_2_to_128_blocks():
    """A stream reaches the next index's only after 2^128 blocks, so streams never overlap in use."""
    advanced = stream(3, "noise", 5)
    advanced.bit_generator.advance(2**128)
    assert np.array_equal(advanced.random(100), stream(3, "noise", 6).random(100))
    assert not np.array_equal(stream(3, "noise", 5).random(100), stream(3, "noise", 6).random(100))


def test_streams_do_not_depend_on_earlier_streams():
    """A stream does not depend on which others were opened or used before."""
    forward = [stream(0, "steps", index).random() for index in range(5)]
    used = stream(0, "steps", 4)
    used.random(1000)
    assert [stream(0, "steps", index).random() for index in reversed(range(5))] == forward[::-1]
