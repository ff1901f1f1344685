"""TFD: five folds of one MATLAB file, and what is wrong with a file that is not it."""

import numpy as np
import pytest
from scipy.io import savemat

from gan_core.datasets import DataSettings, load
from gan_core.datasets.tfd import load_tfd
from gan_core.errors import DataError

COUNT = 40
RANDOM = np.random.default_rng(0)
CONTENT = {
    "images": RANDOM.integers(0, 256, (COUNT, 48, 48), dtype=np.uint8),
    "folds": np.stack([RANDOM.permutation(np.arange(COUNT) % 4) for _ in range(5)], axis=1).astype(np.uint8),
    "labs_ex": RANDOM.choice([-1, 1, 2, 3, 4, 5, 6, 7], (COUNT, 1)).astype(np.int16),
    "labs_id": np.arange(COUNT)[:, None],
}


def write(folder, **changes):
    content = {name: array for name, array in {**CONTENT, **changes}.items() if array is not None}
    savemat(folder / "TFD_48x48.mat", content)
    return str(folder)


@pytest.mark.parametrize("fold", range(5))
def test_fold_parts_become_train_gate_and_validation(tmp_path, fold):
    """A fold's unlabelled images train, its valid part chooses sigma, and its train part is the gate's."""
    dataset = load(DataSettings("tfd", write(tmp_path), fold=fold))
    assert (dataset.name, dataset.shape) == ("tfd", (48, 48))
    for split, value in (("train", 0), ("gate", 1), ("validation", 2), ("test", 3)):
        chosen = CONTENT["folds"][:, fold] == value
        examples = dataset.splits()[split]
        assert np.array_equal(examples.images, CONTENT["images"][chosen].reshape(-1, 2304) / np.float32(255))
        assert examples.labels.tolist() == CONTENT["labs_ex"][chosen, 0].tolist()


def test_folds_are_different_data_and_their_digests_say_so(tmp_path):
    root = write(tmp_path)
    assert len({load_tfd(root, fold).digest for fold in range(5)}) == 5


def test_labels_may_be_a_row_or_a_column(tmp_path):
    """Labels in a row and labels in a column give the same data set."""
    expected = load_tfd(write(tmp_path), 0).digest
    assert load_tfd(write(tmp_path, labs_ex=CONTENT["labs_ex"].T), 0).digest == expected


folds, images, labels = CONTENT["folds"], CONTENT["images"], CONTENT["labs_ex"]
BAD_CONTENT = {
    "no images": ({"images": None}, "variables are missing .*: images; expected a file with images, folds, labs_ex"),
    "no folds": ({"folds": None, "labs_ex": None}, "variables are missing .*: folds, labs_ex"),
    "small images": ({"images": images[:, :24, :24]}, r"wrong shape .*: images is uint8 of shape \[40, 24, 24\]; expected bytes"),
    "float images": ({"images": images / 255}, "wrong shape .*: images is float64"),
    "four folds": ({"folds": folds[:, :4]}, r"wrong shape .*: folds is uint8 of shape \[40, 4\]; expected numbers of shape \[40, 5\]"),
    "too few labels": ({"labs_ex": labels[1:]}, r"wrong shape .*: labs_ex is int16 of shape \[39\]"),
    "text": ({"labs_ex": np.array(["a"] * COUNT)}, "wrong shape .*: labs_ex is <U1"),
    "fold value": ({"folds": folds + 1}, "fold value out of range .*: 4; expected 0 unlabelled"),
    "label 0": ({"labs_ex": labels * 0}, "label out of range .*: 0; expected 1 to 7, or -1"),
    "label 8": ({"labs_ex": labels * 0 + 8}, "label out of range .*: 8"),
    "empty split": ({"folds": np.where(folds == 2, 1, folds)}, "empty split .*: fold 3 has no 2, for validation"),
    "constant": ({"images": images * 0}, "all images are constant .*TFD_48x48.mat, train"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_CONTENT)
def test_bad_content_is_refused_by_name(tmp_path, fault):
    changes, message = BAD_CONTENT[fault]
    with pytest.raises(DataError, match=message) as raised:
        load_tfd(write(tmp_path, **changes), 3)
    assert raised.value.exit_code == 3


def test_missing_or_foreign_file_is_refused_by_name(tmp_path):
    """A missing, cut or other file is refused by name."""
    path = tmp_path / "TFD_48x48.mat"
    with pytest.raises(DataError, match=r"TFD is missing \(.*TFD_48x48.mat\): no such file; .*--set data.root=PATH"):
        load_tfd(str(tmp_path), 0)
    write(tmp_path)
    whole = path.read_bytes()
    for content in (b"", b"no MATLAB file at all", whole[:100], whole[:200], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"TFD_48x48.mat"):
            load_tfd(str(tmp_path), 0)
