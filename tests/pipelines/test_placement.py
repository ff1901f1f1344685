"""Where trials are placed: no placement group is removed while Ray is still creating it."""

import time

import pytest
from ray.air import ResourceRequest
from ray.util import placement_group_table

from pipelines.search.placement import PatientPlacement

WANTED = ResourceRequest([{"CPU": 1}])


@pytest.fixture
def placement(ray_cluster, monkeypatch):
    """Patient placement, and each removed group with the state it was in."""
    removed = {}

    def remove(group):
        removed[group] = placement_group_table(group)["state"]
        return real(group)

    from ray.air.execution.resources import placement_group as ours

    real = ours.remove_placement_group
    monkeypatch.setattr(ours, "remove_placement_group", remove)
    monkeypatch.setattr("pipelines.search.placement.remove_placement_group", remove)
    made = PatientPlacement(update_interval_s=0)
    yield made, removed
    made.clear()


def ready(made):
    """The resources of the next group that is created."""
    while not made.has_resources_ready(WANTED):
        time.sleep(0.01)
    return made.acquire_resources(WANTED)


def test_unwanted_placement_group_serves_the_next_trial(placement):
    """A placement group that nobody wants any more serves the next trial, and none is removed too early."""
    made, removed = placement
    for _ in range(3):  # of one CPU each, on two
        made.request_resources(WANTED)
    held = [ready(made), ready(made)]
    made.cancel_resource_request(WANTED)
    made.request_resources(WANTED)
    made.free_resources(held.pop())
    held.append(ready(made))
    assert len(removed) == 1
    for one in held:
        made.free_resources(one)
    assert list(removed.values()) == ["CREATED"] * 3


def test_groups_are_removed_only_when_they_have_been_created(placement):
    """ray-project/ray#64693: one that is not can take its CPUs with it."""
    made, removed = placement
    for _ in range(4):  # of one CPU each, on two
        made.request_resources(WANTED)
    held = [ready(made), ready(made)]
    for _ in range(2):
        made.cancel_resource_request(WANTED)
    assert not removed
    for one in held:
        made.free_resources(one)
    made.clear()
    assert list(removed.values()) == ["CREATED"] * 4


def test_late_unwanted_placement_group_is_removed(placement):
    """A group that is created too late is removed, once it is created, when nobody wants it."""
    made, removed = placement
    for _ in range(2):
        made.request_resources(WANTED)
    held = ready(made)
    made.cancel_resource_request(WANTED)
    while not removed:
        made.update_state()
        time.sleep(0.01)
    assert list(removed.values()) == ["CREATED"]
    assert not made.has_resources_ready(WANTED)
    made.free_resources(held)
