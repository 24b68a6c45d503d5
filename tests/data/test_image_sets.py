import gzip
import hashlib
import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from kseq import data
from kseq.errors import KseqError
from tests.conftest import tensorflow_only


def numbered(count: int, shape: tuple[int, ...]) -> np.ndarray:
    """`count` uint8 images, each with its number in its first four bytes."""
    images = np.zeros((count, int(np.prod(shape))), "uint8")
    images[:, :4] = np.arange(count, dtype="<u4")[:, None].view("uint8")
    return images.reshape(count, *shape)


def numbers(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)[:, :4].copy().view("<u4")[:, 0]


def test_small_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    digits = data.small_digits()
    splits = (digits.train, digits.validation, digits.test)
    assert [inputs.shape for inputs, _ in splits] == [(n, 8, 8, 1) for n in (1_257, 180, 360)]
    found = {image.tobytes(): target for split in splits for image, target in zip(*split, strict=True)}
    assert len(found) == 1_797  # no image is there twice
    source = load_digits()
    for image, target in zip(source.images, source.target, strict=True):
        assert found[np.array([round(255 * value / 16) for value in image.flat], "uint8").tobytes()] == target
    for inputs, targets in splits:
        assert inputs.dtype == np.uint8
        assert targets.dtype == np.int32
        np.testing.assert_allclose(np.bincount(targets) / len(targets), 0.1, atol=0.01)


def test_the_split_of_small_digits_never_changes():
    digits = data.small_digits()
    content = b"".join(array.tobytes() for split in (digits.train, digits.validation, digits.test) for array in split)
    assert hashlib.sha256(content).hexdigest()[:16] == "e33359de91459839"


@tensorflow_only
def test_fashion_mnist_from_the_files_that_keras_keeps(tmp_path):
    """In a process of its own, because Keras asks for its folder when it loads."""
    folder = tmp_path / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    for name, count in (("train", 60_000), ("t10k", 10_000)):
        labels = (np.arange(count) % 10).astype("uint8")
        for file, header, array in (
            ("labels-idx1", 8, labels),
            ("images-idx3", 16, numbered(count, (28, 28))),
        ):
            content = bytes(header) + array.tobytes()
            (folder / f"{name}-{file}-ubyte.gz").write_bytes(gzip.compress(content, compresslevel=1))
    script = textwrap.dedent("""
        import json, kseq
        from tests.data.test_image_sets import numbers
        clothes = kseq.data.fashion_mnist()
        splits = (clothes.train, clothes.validation, clothes.test)
        shapes = [[*x.shape, x.dtype.name, y.dtype.name] for x, y in splits]
        agree = [bool((numbers(x) % 10 == y).all()) for x, y in splits]
        json.dump([shapes, agree, [numbers(x).tolist() for x, _ in splits], clothes.class_names], open(OUTPUT, "w"))
    """).replace("OUTPUT", repr(str(tmp_path / "seen.json")))
    environment = os.environ | {"KERAS_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shapes, agree, (train, validation, test), names = json.loads((tmp_path / "seen.json").read_text())
    assert shapes == [[n, 28, 28, 1, "uint8", "int32"] for n in (55_000, 5_000, 10_000)]
    assert all(agree)
    assert sorted(train + validation) == list(range(60_000))
    assert test == list(range(10_000))
    assert (len(names), names[0], names[9]) == (10, "T-shirt/top", "Ankle boot")


@pytest.mark.parametrize("channels_first", [False, True])
def test_cifar10(monkeypatch, channels_first):
    def load_data():
        images = [numbered(count, (32, 32, 3)) for count in (50_000, 10_000)]
        targets = [np.arange(len(part))[:, None] % 10 for part in images]
        return tuple((np.moveaxis(x, -1, 1) if channels_first else x, y) for x, y in zip(images, targets, strict=True))

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", load_data)
    things = data.cifar10()
    for (inputs, targets), each in zip((things.train, things.validation, things.test), (4500, 500, 1000), strict=True):
        assert inputs.shape == (10 * each, 32, 32, 3)
        np.testing.assert_array_equal(np.bincount(targets), 10 * [each])
    held_out = set(numbers(things.validation[0]))
    assert held_out.isdisjoint(numbers(things.train[0]))
    assert held_out == set(numbers(data.cifar10().validation[0]))
    assert (things.class_names[0], things.class_names[9]) == ("airplane", "truck")


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_a_download_that_fails_says_what_to_do(monkeypatch, name):
    def load_data():
        raise Exception("URL fetch failure on https://…: None -- no route\nto host")

    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", load_data)
    message = f"{name}: Keras cannot download or read it .*no route.*; connect to the internet, or copy"
    with pytest.raises(KseqError, match=message) as caught:
        getattr(data, name)()
    assert "\n" not in str(caught.value)
