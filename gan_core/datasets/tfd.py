"""The Toronto Face Database: 48x48 faces in one MATLAB file, with five folds."""

from pathlib import Path

import numpy as np

from gan_core.datasets.examples import Dataset, Examples, check_images
from gan_core.datasets.places import find_folder
from gan_core.errors import DataError, first_line

FILE = "TFD_48x48.mat"
FOLDS = 5
SIDE = 48  # pixels
# What the values of a fold mean, and the split each becomes: the original trained on the unlabelled
# faces, and chose sigma on the whole valid set. Its labelled train set is unused there: the gate's.
FOLD_VALUES = {"train": 0, "validation": 2, "gate": 1, "test": 3}
EXPRESSIONS = 7  # labels 1 to 7; -1 is none


def load_tfd(root: str, fold: int) -> Dataset:
    """TFD by one of its folds, 0 to 4: train on the unlabelled, sigma on valid, gate on train, test on test.

    The file is not freely distributed. It holds `images` (N, 48, 48) of bytes, `folds` (N, 5) of
    0 unlabelled, 1 train, 2 valid, 3 test, and `labs_ex`, N expressions.

    Raises:
        DataError: If the file is missing or not such a file, or a split of the fold is empty.
    """
    folder = find_folder(Path(root).expanduser(), ("",), lambda folder: (folder / FILE).is_file(), "TFD")
    if folder is None:
        where = Path(root).expanduser() / FILE
        raise DataError("TFD is missing", where, "no such file", f"{FILE} under data.root: --set data.root=PATH")
    path = folder / FILE
    content = _read(path)
    images, folds, labels = content["images"], content["folds"], content["labs_ex"].reshape(-1)
    _check(images, folds, labels, path)
    parts = {}
    for split, value in FOLD_VALUES.items():
        chosen = np.flatnonzero(folds[:, fold] == value)
        if not len(chosen):
            raise DataError("empty split", path, f"fold {fold} has no {value}, for {split}", "each of 0, 1, 2 and 3")
        pixels = images[chosen].reshape(len(chosen), SIDE * SIDE).astype(np.float32)
        pixels /= np.float32(255)
        check_images(pixels, f"{path}, {split}")
        parts[split] = Examples(pixels, labels[chosen].astype(np.int64))
    return Dataset("tfd", (SIDE, SIDE), parts["train"], parts["validation"], parts["gate"], parts["test"])


def _read(path: Path) -> dict[str, np.ndarray]:
    from scipy.io import loadmat  # only this data set needs it

    names = ["images", "folds", "labs_ex"]
    try:
        content = loadmat(path, variable_names=names)
    except Exception as error:  # of many types; a file that is cut can end anywhere
        reason = first_line(error)
        raise DataError("unreadable file", path, reason, "a MATLAB file up to version 7") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise DataError("variables are missing", path, ", ".join(missing), f"a file with {', '.join(names)}")
    return {name: content[name] for name in names}


def _check(images: np.ndarray, folds: np.ndarray, labels: np.ndarray, path: Path) -> None:
    count = len(images)
    wanted = {"images": (count, SIDE, SIDE), "folds": (count, FOLDS), "labs_ex": (count,)}
    for (name, shape), array in zip(wanted.items(), (images, folds, labels), strict=True):
        if array.shape != shape or array.dtype.kind not in "iuf" or (name == "images" and array.dtype != np.uint8):
            kind = "bytes" if name == "images" else "numbers"
            given = f"{name} is {array.dtype} of shape {list(array.shape)}"
            raise DataError("wrong shape", path, given, f"{kind} of shape {list(shape)}")
    if not np.isin(folds, list(FOLD_VALUES.values())).all():
        other = folds[~np.isin(folds, list(FOLD_VALUES.values()))][0]
        raise DataError("fold value out of range", path, str(other), "0 unlabelled, 1 train, 2 valid or 3 test")
    known = np.isin(labels, [-1, *range(1, EXPRESSIONS + 1)])
    if not known.all():
        raise DataError("label out of range", path, str(labels[~known][0]), f"1 to {EXPRESSIONS}, or -1 for none")
