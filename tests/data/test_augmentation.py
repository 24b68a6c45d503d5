import numpy as np
import pytest
from scipy import ndimage

from kseq.data import Batches, RandomAffine
from kseq.errors import InputError

IMAGES = np.random.default_rng(0).random((6, 11, 14, 2)).astype("float32")


def random() -> np.random.Generator:
    return np.random.default_rng(1)


def smooth_image() -> np.ndarray:
    y, x = np.mgrid[:40, :40] / 39
    return np.exp(-((y - 0.4) ** 2 + (x - 0.55) ** 2) * 20)[None, ..., None].astype("float32")


def test_no_range_changes_nothing():
    np.testing.assert_allclose(RandomAffine()(IMAGES, random()), IMAGES, atol=1e-5)


def test_a_mirror_exchanges_left_and_right_of_about_half():
    images = np.repeat(IMAGES[:1], 200, axis=0)
    moved = RandomAffine(mirror=True)(images, random())
    mirrored = np.isclose(moved, images[:, :, ::-1], atol=1e-5).all(axis=(1, 2, 3))
    same = np.isclose(moved, images, atol=1e-5).all(axis=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert 0.35 < mirrored.mean() < 0.65


def test_a_shift_is_one_along_each_axis_within_its_range():
    """The brightest point of an image moves by at most a tenth of its size, in both directions and along both axes."""
    images = np.repeat(smooth_image(), 100, axis=0)
    moved = RandomAffine(translation=0.1)(images, random())
    centres = np.array([ndimage.center_of_mass(image[..., 0]) for image in moved])
    shifts = centres - ndimage.center_of_mass(images[0, ..., 0])
    assert np.abs(shifts).max() < 4.2
    assert (shifts.min(axis=0) < -2.5).all()
    assert (shifts.max(axis=0) > 2.5).all()


def test_a_turn_is_the_turn_of_scipy():
    """The angle that NumPy draws first, about the centre of the image."""
    angle = 30 * random().uniform(-1, 1, (4, 1))[0, 0]
    moved = RandomAffine(degrees=30)(smooth_image(), random())[0, ..., 0]
    candidates = [ndimage.rotate(smooth_image()[0, ..., 0], sign * angle, reshape=False, order=1) for sign in (1, -1)]
    differences = [np.abs(moved - candidate)[4:-4, 4:-4].max() for candidate in candidates]
    assert min(differences) < 1e-3 < max(differences)


def test_the_affine_map_keeps_the_centre_and_scales_by_the_zoom():
    images = np.repeat(smooth_image(), 100, axis=0)
    moved = RandomAffine(zoom=0.2)(images, random())
    areas = moved.sum(axis=(1, 2, 3)) / images[0].sum()
    assert 0.65 < areas.min() < 0.9
    assert 1.15 < areas.max() < 1.6


def test_outside_is_the_fill_value():
    moved = RandomAffine(translation=0.5, fill_value=-7.0)(np.ones((20, 8, 8, 1), "float32"), random())
    assert moved.min() == pytest.approx(-7, abs=1e-5)
    assert moved.max() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["degrees", "zoom", "shear", "translation"])
def test_bad_arguments(name):
    for value in (-1, float("nan")):
        with pytest.raises(InputError, match=f"{name} .*: give 0 or more"):
            RandomAffine(**{name: value})


def test_batches_are_changed_by_seed_epoch_and_place_alone():
    def batches(seed):
        return Batches(IMAGES, np.arange(6), 2, seed=seed, augment=RandomAffine(degrees=40, translation=0.1))

    one, again, other = batches(3), batches(3), batches(4)
    np.testing.assert_array_equal(one[1][0], again[1][0])
    np.testing.assert_array_equal(one[1][0], one[1][0])
    assert not np.array_equal(one[1][0], other[1][0])
    one.set_epoch(1)
    assert not np.array_equal(one[1][0], again[1][0])
    again.set_epoch(1)
    np.testing.assert_array_equal(one[1][0], again[1][0])


def test_batches_without_a_seed_cannot_be_changed():
    with pytest.raises(InputError, match="seed None: augment draws random numbers"):
        Batches(IMAGES, np.arange(6), 2, augment=RandomAffine())
