"""The suite's own seeds: what a test draws depends on its name alone."""

import random

import numpy as np
import pytest
import torch

from tests.conftest import seed


def draws() -> tuple[float, float, float]:
    return random.random(), np.random.random(), torch.rand(1).item()


@pytest.fixture(scope="module")
def shared() -> tuple[float, float, float]:
    return draws()


def test_a_test_draws_from_the_seed_of_its_name(request, shared):
    mine = draws()
    seed(request.node.nodeid)
    assert draws() == mine
    seed(request.node.nodeid + "-another")
    assert all(other != one for other, one in zip(draws(), mine, strict=True))


def test_shared_fixture_draws_from_its_own_seed(shared):
    """What tests share draws from the seed of its own name, whichever test asks first."""
    seed("tests/test_seeds.py::shared")
    assert draws() == shared


def test_a_name_has_the_same_seed_in_every_process(monkeypatch):
    """Python's own hash of a text has not."""
    monkeypatch.setattr("tests.conftest.SEED", "")
    seed("a name")
    assert random.getrandbits(32) == 1123979490
