import numpy as np
import pytest
from scipy import ndimage

from kseq.data import Batches, SegmentationAugmentation
from kseq.data.segmentation_augmentation import _spline
from kseq.errors import InputError

ALL = {"degrees": 25, "zoom": 0.2, "shear": 0.1, "translation": 0.1, "elastic": 1.5}
VALUES = {"gamma": 0.3, "contrast": 0.3, "brightness": 0.1, "noise": 0.1}


def random(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def blobs(*space: int, samples: int = 6) -> np.ndarray:
    noise = random(0).normal(size=(samples, *space))
    return (ndimage.gaussian_filter(noise, (0, *[3] * len(space))) > 0.01).astype("uint8")


@pytest.mark.parametrize("space", [(40, 48), (20, 24, 28)])
def test_images_and_labels_stay_together(space):
    """An image that is its own mask is above 1/2 where the moved mask is 1, but for a few pixels at corners of it."""
    labels = blobs(*space)
    change = SegmentationAugmentation(tuple(range(len(space))), **ALL)
    images, moved = change(labels[..., None].astype("float32"), labels, random())
    assert images.shape == (*labels.shape, 1)
    assert moved.dtype == labels.dtype
    disagree = ((images[..., 0] > 0.5) != (moved == 1)).mean()
    assert disagree < 0.02
    assert (moved != labels).mean() > 0.1
    assert ((images[..., 0] > 0.5) != (labels == 1)).mean() > 0.1


def test_no_label_appears_and_outside_is_filled():
    labels = random(0).choice(np.array([1, 3, 7], "uint8"), (8, 24, 24))
    images = np.ones((*labels.shape, 2), "float32")
    change = SegmentationAugmentation(**ALL | {"translation": 0.4}, fill_value=-2.0, fill_label=255)
    images, moved = change(images, labels, random())
    assert set(np.unique(moved)) == {1, 3, 7, 255}
    assert images.min() == pytest.approx(-2)
    assert images.max() == pytest.approx(1, abs=1e-5)
    assert np.isclose(images[..., 0], 1, atol=1e-4)[moved == 255].mean() < 0.01


@pytest.mark.parametrize("space", [(9, 14), (5, 6, 7)])
def test_no_range_changes_nothing(space):
    labels, images = blobs(*space), random().random((6, *space, 2)).astype("float32")
    for change in (SegmentationAugmentation(), SegmentationAugmentation(**ALL, **VALUES, probability=0.0)):
        new, moved = change(images, labels, random())
        np.testing.assert_allclose(new, images, atol=1e-5)
        np.testing.assert_array_equal(moved, labels)


def test_seeds_repeat_and_the_arrays_given_stay():
    labels = blobs(16, 16)
    images = labels[..., None].astype("float32")
    change = SegmentationAugmentation((0, 1), **ALL, **VALUES)
    first, again, other = (change(images, labels, random(seed)) for seed in (1, 1, 2))
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, three)
    np.testing.assert_array_equal(images[..., 0], labels)
    np.testing.assert_array_equal(labels, blobs(16, 16))


@pytest.mark.parametrize("turned", [False, True])
def test_mirrors_are_exact_and_half_of_the_images(turned):
    """By slices, and through the interpolation when another change is on (here by next to nothing)."""
    labels = np.repeat(blobs(12, 15, samples=1), 200, axis=0)
    images = np.repeat(random().random((1, 12, 15, 1)).astype("float32"), 200, axis=0)
    new, moved = SegmentationAugmentation((1,), degrees=1e-7 * turned)(images, labels, random())
    mirrored = (moved == labels[:, :, ::-1]).all(axis=(1, 2))
    assert 0.35 < mirrored.mean() < 0.65
    assert ((moved == labels).all(axis=(1, 2)) ^ mirrored).all()
    np.testing.assert_allclose(new[mirrored], images[mirrored][:, :, ::-1], atol=1e-4)
    np.testing.assert_allclose(new[~mirrored], images[~mirrored], atol=1e-4)


def test_a_turn_is_the_turn_of_scipy_and_goes_by_millimetres():
    y, x = np.mgrid[:41, :41] / 40
    image = np.exp(-((y - 0.4) ** 2 + (x - 0.55) ** 2) * 30).astype("float32")
    change = SegmentationAugmentation(degrees=30)
    new = change(image[None, ..., None], np.zeros((1, 41, 41), "uint8"), random())[0][0, ..., 0]
    generator = random()
    generator.random((1, 0)), generator.random(1)
    angle = 30 * generator.uniform(-1, 1, (3, 1))[0, 0]
    candidates = [ndimage.rotate(image, sign * angle, reshape=False, order=1, mode="grid-constant") for sign in (1, -1)]
    differences = [np.abs(new - candidate)[4:-4, 4:-4].max() for candidate in candidates]
    assert min(differences) < 1e-5 < 0.1 < max(differences)
    # With every second row left out, rows are twice as far apart; then the turn is the same but for the interpolation.
    half = SegmentationAugmentation(degrees=30, spacing=(2.0, 1.0))
    coarse = half(image[None, ::2, :, None], np.zeros((1, 21, 41), "uint8"), random())[0][0, ..., 0]
    assert np.abs(coarse - new[::2])[2:-2, 4:-4].max() < 0.02


def test_the_bend_is_the_cubic_spline_of_scipy():
    """Of one control point, through the basis element of SciPy."""
    from scipy.interpolate import BSpline

    matrix = _spline(50, 4)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    knots = np.arange(-3, 8)
    for control in range(7):
        expected = BSpline(knots, np.eye(7)[control], 3)(np.linspace(0, 4, 50))
        np.testing.assert_allclose(matrix[:, control], expected, atol=1e-12)


def test_values_change_in_the_image_alone_and_within_their_ranges():
    labels = blobs(16, 16, samples=50)
    images = random().random((50, 16, 16, 1)).astype("float32")
    for name, largest in VALUES.items():
        new, moved = SegmentationAugmentation(**{name: largest})(images, labels, random())
        np.testing.assert_array_equal(moved, labels)
        assert new.dtype == "float32"
        change = (new - images).reshape(50, -1)
        if name == "brightness":
            assert change.std(axis=1).max() < 1e-6
            assert 0.08 < np.abs(change).max() <= 0.1 + 1e-6
        elif name == "noise":
            assert 0.08 < change.std(axis=1).max() < 0.12
            assert change.std(axis=1).min() < 0.02
        elif name == "contrast":
            factor = new.std(axis=(1, 2, 3)) / images.std(axis=(1, 2, 3))
            assert 0.7 <= factor.min() < 0.75 < 1.25 < factor.max() <= 1.3 + 1e-5
            np.testing.assert_allclose(new.mean(axis=(1, 2)), images.mean(axis=(1, 2)), atol=1e-5)
        else:
            np.testing.assert_allclose(new.max(axis=(1, 2)), images.max(axis=(1, 2)), rtol=1e-5)
            ranks = [array.reshape(50, -1).argsort(axis=1, kind="stable") for array in (new, images)]
            assert (ranks[0] == ranks[1]).mean() > 0.99


def test_batches_change_pairs():
    labels = blobs(16, 16)
    images = labels[..., None].astype("float32")
    batches = Batches(images, labels, 4, seed=3, augment=SegmentationAugmentation((0,), **ALL))
    inputs, targets = batches[0]
    assert ((inputs[..., 0] > 0.5) != (targets == 1)).mean() < 0.04
    np.testing.assert_array_equal(batches[0][1], targets)
    batches.set_epoch(1)
    assert not np.array_equal(batches[0][1], targets)


def test_bad_arguments():
    for name in ("degrees", "zoom", "elastic", "noise"):
        with pytest.raises(InputError, match=f"{name} .*: give 0 or more"):
            SegmentationAugmentation(**{name: float("nan")})
    with pytest.raises(InputError, match="zoom 1.0: give a number below 1"):
        SegmentationAugmentation(zoom=1.0)
    for options in ({"probability": 2}, {"elastic_cells": 0}):
        with pytest.raises(InputError, match=next(iter(options))):
            SegmentationAugmentation(**options)
    labels = np.zeros((2, 8, 8), "uint8")
    with pytest.raises(InputError, match="give floats"):
        SegmentationAugmentation()(np.zeros((2, 8, 8, 1), "uint8"), labels, random())
    with pytest.raises(InputError, match="flip_axes .*: the space has the axes 0 to 1"):
        SegmentationAugmentation((2,))(np.zeros((2, 8, 8, 1), "float32"), labels, random())
