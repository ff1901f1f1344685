"""What the nets' settings refuse, each in one line that names the setting."""

from collections.abc import Sequence


def check_widths(name: str, widths: Sequence[int]) -> None:
    """Refuse what is no list of layer widths.

    Raises:
        ValueError: If it is empty, or a width is not positive.
    """
    if not widths or min(widths) < 1:
        raise ValueError(f"{name} {list(widths)} is not a list of layer widths; use one or more positive numbers")


def check_one_for_each(name: str, values: Sequence[object], others: Sequence[object]) -> None:
    """Refuse a list that has not one entry for each of another.

    Raises:
        ValueError: If their lengths differ.
    """
    if len(values) != len(others):
        raise ValueError(f"{name} {list(values)} are not one for each of {list(others)}")


def check_positive(name: str, value: float) -> None:
    """Refuse a number that is not positive and finite.

    Raises:
        ValueError: If it is not.
    """
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} {value} is not positive")


def check_keep(name: str, value: float) -> None:
    """Refuse a probability to keep that keeps nothing, or is none.

    Raises:
        ValueError: If it is not in (0, 1].
    """
    if not 0 < value <= 1:
        raise ValueError(f"{name} {value} is not in (0, 1]")
