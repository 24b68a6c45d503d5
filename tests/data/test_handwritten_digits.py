import hashlib
from importlib import resources

import numpy as np

from kseq import data


def test_the_split_is_balanced_and_no_image_is_there_twice():
    digits = data.handwritten_digits()
    splits = (digits.train, digits.validation, digits.test)
    assert digits.class_names == tuple("0123456789")
    for (inputs, targets), each in zip(splits, (350, 50, 100), strict=True):
        assert inputs.shape == (10 * each, 28, 28, 1)
        assert inputs.dtype == np.uint8
        assert targets.dtype == np.int32
        np.testing.assert_array_equal(np.bincount(targets), 10 * [each])
        assert len(set(targets[:50])) == 10  # shuffled: the first rows are a fair sample
    everything = np.concatenate([inputs for inputs, _ in splits])
    assert len({image.tobytes() for image in everything}) == 5_000
    assert everything.min() == 0
    assert everything.max() == 255


def test_the_split_never_changes():
    digits = data.handwritten_digits()
    content = b"".join(array.tobytes() for split in (digits.train, digits.validation, digits.test) for array in split)
    assert hashlib.sha256(content).hexdigest()[:16] == "2ee551fe467cd477"


def test_the_targets_belong_to_the_images():
    """The mean training image of a digit is nearest to its own test images: 80 % of them, chance is 10 %."""
    digits = data.handwritten_digits()
    (inputs, targets), (test, expected) = digits.train, digits.test
    means = np.stack([inputs[targets == digit].mean(axis=0) for digit in range(10)])
    distances = ((test[:, None].astype("float32") - means) ** 2).sum(axis=(2, 3, 4))
    assert np.mean(distances.argmin(axis=1) == expected) > 0.75


def test_the_file_is_small_and_its_licence_is_beside_it():
    files = resources.files("kseq.data").joinpath("files")
    assert len(files.joinpath("handwritten_digits.xz").read_bytes()) < 1_000_000
    licence = files.joinpath("handwritten_digits.LICENSE").read_text()
    for words in ("Yann LeCun, Corinna Cortes and Christopher J. C. Burges", "Share Alike 3.0", "Sebastian Raschka"):
        assert words in licence
