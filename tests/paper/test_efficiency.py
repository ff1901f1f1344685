"""The table of the efficiency study: means over seeds, and differences paired by seed."""

from tests.paper.efficiency import VARIANTS, table


def rows(variant, scores):
    return [
        {"variant": variant, "seed": seed, "images": 100, "log_likelihood": score} for seed, score in enumerate(scores)
    ]


def test_variant_is_shown_by_paired_differences():
    """A variant is shown by its difference from the constant schedule, paired by seed."""
    _, other, *_ = VARIANTS
    lines = table(rows("constant", [0.0, 10.0, 20.0]) + rows(other, [1.0, 12.0, 23.0])).splitlines()
    assert lines[0].split() == ["images", "seen", "by", "D", "100"]
    assert lines[1].split() == ["constant", "10.0", "±", "5.8"]  # std 10 / sqrt 3
    assert lines[2].removeprefix(other).split() == ["+2.0", "±", "0.6"]  # differences 1, 2, 3


def test_unpaired_seeds_are_left_out():
    """Seeds that one of the two schedules lacks are left out of the difference."""
    _, other, *_ = VARIANTS
    line = table(rows("constant", [0.0, 10.0, 20.0]) + rows(other, [1.0, 13.0])).splitlines()[2]
    assert line.removeprefix(other).split() == ["+2.0", "±", "1.0"]
