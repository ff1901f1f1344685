"""Fashion-MNIST: 70,000 articles of clothing of 28x28 pixels, verified by MD5."""

from gan_core.datasets.examples import Dataset
from gan_core.datasets.idx import IdxFiles, load_idx

# The authors publish MD5s of the gzipped files. These are of the same files unzipped, as several
# independent projects state them; a gzipped file is verified by what is in it.
FASHION_MNIST = IdxFiles(
    "fashion_mnist",
    "FashionMNIST",
    "md5",
    {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
)


def load_fashion_mnist(root: str, download: bool) -> Dataset:
    """Fashion-MNIST, split as MNIST.

    Raises:
        DataError: If a file is missing (and cannot be downloaded), damaged or not the published one.
    """
    return load_idx(FASHION_MNIST, root, download)
