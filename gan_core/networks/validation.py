"""What the nets' settings refuse, each in one line that names the setting."""

from typing import Any

# Each takes a section's name, its settings and which of them to look at; one that is None is not set.


MOST_LAYERS = 100  # a description is read before there are weights: it is not to build for minutes


def check_widths(section: str, settings: Any, *names: str) -> None:
    """Refuse what is no list of layer widths.

    Raises:
        ValueError: If it is empty or endless, or a width is not positive.
    """
    for name, widths in _given(settings, names):
        if len(widths) > MOST_LAYERS:
            raise ValueError(f"{section}.{name} has {len(widths)} layers; use {MOST_LAYERS} or fewer")
        if not widths or min(widths) < 1:
            raise ValueError(
                f"{section}.{name} {list(widths)} is not a list of layer widths; use one or more positive numbers"
            )


def check_one_for_each(of: str, section: str, settings: Any, *names: str) -> None:
    """Refuse a list that has not one entry for each entry of the setting `of`.

    Raises:
        ValueError: If their lengths differ.
    """
    others = getattr(settings, of)
    for name, values in _given(settings, names):
        if len(values) != len(others):
            raise ValueError(f"{section}.{name} {list(values)} are not one for each of {list(others)}")


def check_positive(section: str, settings: Any, *names: str) -> None:
    """Refuse a number that is not positive and finite.

    Raises:
        ValueError: If it is not.
    """
    for name, value in _given(settings, names):
        if not 0 < value < float("inf"):
            raise ValueError(f"{section}.{name} {value} is not positive")


def check_keep(section: str, settings: Any, *names: str) -> None:
    """Refuse a probability to keep that keeps nothing, or is none.

    Raises:
        ValueError: If it is not in (0, 1].
    """
    for name, value in _given(settings, names):
        if not 0 < value <= 1:
            raise ValueError(f"{section}.{name} {value} is not in (0, 1]")


def _given(settings: Any, names: tuple[str, ...]) -> list[tuple[str, Any]]:
    return [(name, value) for name in names if (value := getattr(settings, name)) is not None]
