"""MNIST: 70,000 handwritten digits of 28x28 pixels, verified by the SHA-256 of the published files."""

from gan_core.datasets.examples import Dataset
from gan_core.datasets.idx import IdxFiles, load_idx

MNIST = IdxFiles(
    "mnist",
    "MNIST",
    "sha256",
    {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)


def load_mnist(root: str, download: bool) -> Dataset:
    """MNIST, split as the original: 50,000 to train, of the next 10,000 the first 1,000 choose sigma.

    Raises:
        DataError: If a file is missing (and cannot be downloaded), damaged or not the published one.
    """
    return load_idx(MNIST, root, download)
