"""What D and G minimise, by name: a file for each pair of losses, and one line here.

May import nothing of the core. What enters are D's logits; what leaves are losses.
"""

from typing import TYPE_CHECKING, Literal

from gan_core.objectives import hinge, least_squares, value_function
from gan_core.objectives.base import Objective

__all__ = ["OBJECTIVES", "Objective", "ObjectiveName"]

OBJECTIVES: dict[str, Objective] = {
    **value_function.OBJECTIVES,
    "hinge": hinge.OBJECTIVE,
    "least_squares": least_squares.OBJECTIVE,
}

if TYPE_CHECKING:
    ObjectiveName = str
else:
    ObjectiveName = Literal[tuple(OBJECTIVES)]
