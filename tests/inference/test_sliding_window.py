"""Sliding windows: equal to the model on one window, and on more to the equation, written down voxel by voxel."""

import itertools
import weakref

import keras
import numpy as np
import pytest
from keras import ops

from kseq.errors import InputError
from kseq.inference import SlidingWindow
from kseq.inference.sliding_window import window_starts

RANDOM = np.random.default_rng(0)


def images(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype("float32")


@pytest.fixture(scope="module")
def model():
    """A model of 8 × 6 windows whose answer depends on the place in the window: a convolution with padding."""
    keras.utils.set_random_seed(0)
    entry = keras.Input((8, 6, 2))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="tanh", bias_initializer="normal")(entry)
    return keras.Model(entry, keras.layers.Conv2D(3, 3, padding="same")(x))


@pytest.fixture(scope="module")
def plain(model):
    """`SlidingWindow` of it, compiled once."""
    return SlidingWindow(model)


@pytest.fixture(scope="module")
def with_centres():
    """A model that reads centres, and heads at other resolutions beside its logits: it answers the centre."""
    entry, centre = keras.Input((4, 6, 1)), keras.Input((2,))
    logits = ops.zeros_like(ops.repeat(entry, 2, axis=-1)) + centre[:, None, None]
    return keras.Model([entry, centre], {"auxiliary_0": keras.layers.AveragePooling2D(2)(entry), "logits": logits})


def seam(windows: np.ndarray) -> np.ndarray:
    """A function whose answer depends on every voxel and on its place in the window, of any rank."""
    answer = 0 * windows
    for axis in range(1, windows.ndim - 1):
        place = np.arange(windows.shape[axis]).reshape(-1, *[1] * (windows.ndim - 1 - axis))
        answer = answer + np.cumsum(windows, axis=axis) * np.cos(place)
    return np.concatenate([answer, windows], axis=-1)


def by_voxels(function, image, window, overlap, weighting, sigma_scale) -> np.ndarray:
    """The equation of the module for one image not below the window: sums of weights times answers, then a division."""
    starts = []
    for size, width in zip(image.shape[:-1], window, strict=True):
        count = int(np.ceil((size - width) / round(width * (1 - overlap)))) + 1
        starts.append([int(k * (size - width) / max(1, count - 1) + 1e-9) for k in range(count)])
    weights = np.ones(window)
    if weighting == "gaussian":
        for place in itertools.product(*map(range, window)):
            z = [(i - (width - 1) / 2) / (sigma_scale * width) for i, width in zip(place, window, strict=True)]
            weights[place] = np.exp(-np.sum(np.square(z)) / 2)
    total, norm = 0.0, np.zeros(image.shape[:-1])
    for start in itertools.product(*starts):
        box = tuple(slice(s, s + width) for s, width in zip(start, window, strict=True))
        answer = function(image[box][None].astype("float64"))[0]
        total = np.zeros((*image.shape[:-1], answer.shape[-1])) if np.isscalar(total) else total
        for place in itertools.product(*map(range, window)):
            voxel = tuple(s + i for s, i in zip(start, place, strict=True))
            total[voxel] += weights[place] * answer[place]
            norm[voxel] += weights[place]
    return total / norm[..., None]


def test_one_window_is_the_model(model):
    batch = images(3, 8, 6, 2)
    expected = model.predict(batch, verbose=0)
    sliding = SlidingWindow(model, batch_size=3)
    assert sliding.window == (8, 6)
    np.testing.assert_array_equal(sliding(batch), expected)
    single = sliding(batch[1])
    assert single.dtype == np.float32
    assert single.shape == (8, 6, 3)
    np.testing.assert_allclose(single, expected[1], atol=1e-6)
    probabilities = SlidingWindow(model, activation="softmax")(batch)
    np.testing.assert_allclose(probabilities, ops.convert_to_numpy(ops.softmax(expected)), atol=1e-6)


@pytest.mark.parametrize("weighting", ["gaussian", "constant"])
@pytest.mark.parametrize(
    ("size", "window", "overlap"),
    [((23,), (6,), 0.5), ((19, 11), (8, 6), 0.5), ((8, 13), (8, 5), 0.8), ((7, 9, 8), (4, 3, 5), 0.25)],
)
def test_it_is_the_equation(size, window, overlap, weighting):
    image = images(*size, 2)
    for sigma_scale in (0.125, 0.4) if weighting == "gaussian" else (0.125,):
        options = {"overlap": overlap, "weighting": weighting, "sigma_scale": sigma_scale}
        got = SlidingWindow(seam, window, batch_size=3, **options)(image)
        expected = by_voxels(seam, image, window, **options)
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_a_keras_model_on_a_large_image_is_the_equation(model, plain):
    image = images(21, 10, 2)
    expected = by_voxels(lambda x: model.predict(x, verbose=0), image, (8, 6), 0.5, "gaussian", 0.125)
    np.testing.assert_allclose(plain(image), expected, atol=1e-5)


@pytest.mark.parametrize("window", [(1,), (5,), (4, 7), (3, 2, 4)])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
def test_every_voxel_is_covered_once_in_all(window, overlap):
    """A local function comes out as on the whole image, whatever the size, and a constant as itself."""
    for extra in (-2, -1, 0, 1, 3, 8):
        size = [max(1, width + extra + i) for i, width in enumerate(window)]
        batch = images(2, *size, 1)
        got = SlidingWindow(lambda x: np.concatenate([x**3, 0 * x + 5], axis=-1), window, overlap=overlap)(batch)
        assert got.shape == (2, *size, 2)
        np.testing.assert_allclose(got[..., :1], batch**3, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got[..., 1], 5, rtol=1e-6)


def test_starts_overlap_enough_and_are_as_few_as_can_be():
    for size, window, overlap in itertools.product(range(1, 40), range(1, 12), (0, 0.25, 0.5, 0.75, 0.99)):
        if size < window:
            continue
        starts = window_starts(size, window, overlap)
        step = max(1, round(window * (1 - overlap)))
        assert (starts[0], starts[-1]) == (0, size - window)
        gaps = np.diff(starts)
        assert (gaps <= step).all()
        assert (gaps > 0).all()
        assert gaps.max(initial=0) - gaps.min(initial=step) <= 1
        assert (len(starts) - 2) * step < size - window or len(starts) == 1


def test_narrow_gaussians_leave_no_hole():
    got = SlidingWindow(lambda x: x, (64,), sigma_scale=0.001, overlap=0)(np.ones((1, 300, 1), "float32"))
    np.testing.assert_allclose(got, 1, rtol=1e-6)


def test_small_images_are_padded_with_zeros_on_both_sides():
    seen = []
    batch = images(1, 3, 9, 1)
    got = SlidingWindow(lambda x: (seen.append(x), x)[1], (8, 9), batch_size=1)(batch)
    np.testing.assert_array_equal(seen[0], np.pad(batch, [(0, 0), (2, 3), (0, 0), (0, 0)]))
    np.testing.assert_array_equal(got, batch)


def test_mirrored_is_the_mean_of_flipped_calls(model, plain):
    image = images(1, 8, 12, 2)  # windows at 0, 3 and 6: the mirror image has them at the same places
    flips = [(), (1,), (2,), (1, 2)]
    expected = np.mean([np.flip(plain(np.flip(image, axes)), axes) for axes in flips], axis=0)
    got = SlidingWindow(model, mirror_axes=(0, 1))(image)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert np.abs(got - plain(image)).max() > 1e-3
    width_alone = np.mean([np.flip(plain(np.flip(image, axes)), axes) for axes in [(), (2,)]], axis=0)
    np.testing.assert_allclose(SlidingWindow(model, mirror_axes=[1])(image), width_alone, atol=1e-6)


def test_centres_reach_a_model_that_asks_for_them(with_centres):
    sliding = SlidingWindow(with_centres, pass_centre=True, overlap=0, batch_size=3, mirror_axes=(1,))
    got = sliding(images(2, 12, 12, 1))
    for row, column in itertools.product(range(12), range(12)):  # without overlap each voxel has one window
        np.testing.assert_allclose(got[:, row, column], [[row // 4 * 4 + 2, column // 6 * 6 + 3]] * 2, rtol=1e-6)
    small = sliding(images(1, 1, 6, 1))  # padded by 1 before and 2 behind
    np.testing.assert_allclose(small, np.broadcast_to([1, 3], (1, 1, 6, 2)), rtol=1e-6)


def test_windows_come_in_batches_of_one_size_and_none_is_kept():
    arrays, sizes, alive = [], [], []

    def watch(x):
        answer = np.repeat(x, 2, axis=-1)
        arrays.extend(map(weakref.ref, (x, answer)))
        sizes.append(x.shape)
        alive.append(sum(array() is not None for array in arrays))
        return answer

    # 2 images of 5 × 3 windows: 30 windows, in batches of 7
    got = SlidingWindow(watch, (4, 4), batch_size=7)(images(2, 12, 8, 1))
    assert sizes == [(7, 4, 4, 1)] * 5
    assert max(alive) <= 2
    assert got.shape == (2, 12, 8, 2)


def test_training_goes_on_between_calls():
    entry = keras.Input((4, 1))
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Model(entry, dense(entry))
    sliding, signal = SlidingWindow(model), images(1, 9, 1)
    np.testing.assert_allclose(sliding(signal), signal, atol=1e-6)
    dense.kernel.assign([[3.0]])
    np.testing.assert_allclose(sliding(signal), 3 * signal, atol=1e-5)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(wrong):
    batch = images(2, 3, 4, 1)
    batch[0, 1, 2:] = wrong
    with pytest.raises(InputError, match="images: 2 of 24 values are NaN or infinite; replace them"):
        SlidingWindow(lambda x: x, (2, 2))(batch)


def test_progress(capsys):
    SlidingWindow(lambda x: x, (2,), progress=True)(images(1, 9, 1))
    shown = capsys.readouterr().out
    assert "windows" in shown
    assert "100%" in shown
    SlidingWindow(lambda x: x, (2,))(images(1, 9, 1))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": (8, 8)}, r"window \(8, 8\): the model reads \(8, 6\); give that"),
        ({"window": (8,)}, r"window \(8,\): the model reads \(8, 6\)"),
        ({"overlap": 1}, r"overlap 1: give a share of the window from 0, below 1"),
        ({"overlap": -0.1}, "overlap -0.1: give"),
        ({"overlap": float("nan")}, "overlap nan: give"),
        ({"weighting": "linear"}, "weighting 'linear': choose one of gaussian, constant"),
        ({"sigma_scale": 0}, "sigma_scale 0: give"),
        ({"mirror_axes": (2,)}, r"mirror_axes \(2,\): give axes from 0 to 1, each once"),
        ({"mirror_axes": (0, 0)}, r"mirror_axes \(0, 0\): give"),
        ({"batch_size": 0}, "batch_size 0: give 1 or more"),
        ({"activation": "relu"}, "activation 'relu': give None"),
        ({"pass_centre": True}, "pass_centre True: the model has 1 inputs"),
    ],
)
def test_bad_arguments(model, arguments, message):
    with pytest.raises(InputError, match=message):
        SlidingWindow(model, **arguments)


def test_bad_images_and_models(model, with_centres):
    for shape in ((8, 6), (1, 8, 6, 3), (1, 1, 8, 6, 2), (0, 8, 6, 2), (1, 0, 6, 2)):
        with pytest.raises(InputError, match=r"images: shape .*; give \(batch, height, width, 2\), or one image"):
            SlidingWindow(model)(np.zeros(shape))
    with pytest.raises(InputError, match="window None: the model does not say"):
        SlidingWindow(lambda x: x)
    with pytest.raises(InputError, match=r"window \(0, 3\): give 1 to 3 sizes"):
        SlidingWindow(lambda x: x, (0, 3))
    with pytest.raises(InputError, match="pass_centre False: the model has 2 inputs"):
        SlidingWindow(with_centres)
    for wrong in (lambda x: x[:, ::2], lambda x: x[..., 0], lambda x: x.mean(axis=(1, 2))):
        with pytest.raises(InputError, match=r"model: answers .* to windows \(4, 4, 4, 1\); give one whose logits"):
            SlidingWindow(wrong, (4, 4))(images(1, 5, 5, 1))
