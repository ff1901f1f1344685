"""Images as rows of pixels, as all else here has them, and as planes of one channel each, as convolutions do."""

from jaxtyping import Float
from torch import Tensor

from gan_core.errors import ConfigurationError

PlaneShape = tuple[int, int, int]  # channels, height, width


def plane_shape(image_shape: tuple[int, ...]) -> PlaneShape:
    """(channels, height, width) of images of (height, width) or (height, width, channels).

    Raises:
        ConfigurationError: If they are neither: a row of pixels has no neighbours to convolve.
    """
    if len(image_shape) not in (2, 3):
        raise ConfigurationError(
            "not images",
            "a convolutional net",
            f"a shape of {list(image_shape)}",
            "[height, width] or [height, width, 3]",
        )
    height, width, channels = (*image_shape, 1)[:3]
    return channels, height, width


def to_planes(rows: Float[Tensor, "batch pixels"], shape: PlaneShape) -> Float[Tensor, "batch channels height width"]:
    """A row's pixels lie by height, width and channel; planes by channel, height and width.

    They are laid out anew, since a view of them would give gradients in another order than their weights'.
    """
    channels, height, width = shape
    return rows.unflatten(-1, (height, width, channels)).movedim(-1, -3).contiguous()


def to_rows(planes: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch pixels"]:
    """The inverse of `to_planes`."""
    return planes.movedim(-3, -1).flatten(-3)
