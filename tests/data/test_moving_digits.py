import keras
import numpy as np
import pytest

from kseq.data import handwritten_digits
from kseq.data.moving_digits import DigitMovement, moving_digits
from kseq.errors import InputError

IMAGES = handwritten_digits().train[0][:50, ..., 0]


def drawn(movement: DigitMovement, samples: int, seed: int) -> tuple[np.ndarray, ...]:
    """What the generator draws, in its order: start, angle, speed."""
    random = np.random.default_rng(seed)
    start = random.uniform(0, movement.size - 28, (samples, movement.digits, 2))
    angle = random.uniform(0, 2 * np.pi, (samples, movement.digits))
    return start, angle, random.uniform(*movement.speed, (samples, movement.digits))


def test_digits_are_reflected_by_the_edges_without_loss():
    movement = DigitMovement(IMAGES, frames=(30, 30), size=40, digits=3)
    paths = movement.paths(20, np.random.default_rng(1))
    start, angle, speed = drawn(movement, 20, 1)
    bounces = 0
    for sample, digit in np.ndindex(20, 3):
        x = start[sample, digit].copy()
        v = speed[sample, digit] * np.array([np.sin(angle[sample, digit]), np.cos(angle[sample, digit])])
        for point in paths[sample, digit]:
            np.testing.assert_allclose(point, x, atol=1e-9)
            x += v
            for axis in range(2):
                while not 0 <= x[axis] <= 12:
                    x[axis] = -x[axis] if x[axis] < 0 else 2 * 12 - x[axis]
                    v[axis] = -v[axis]
                    bounces += 1
    assert bounces > 500


def test_speeds_and_directions_are_those_of_the_paper():
    paths = DigitMovement(IMAGES, size=10**9).paths(2_000, np.random.default_rng(2))
    steps = np.diff(paths, axis=2)  # so far from the edges that none is reflected
    speeds = np.linalg.norm(steps, axis=-1)
    assert speeds.min() >= 3 - 1e-9
    assert speeds.max() < 5
    assert abs(speeds[..., 0].mean() - 4) < 0.05
    np.testing.assert_allclose(speeds, speeds[..., :1].repeat(19, axis=2), atol=1e-6)  # does not change on the way
    quarter = (np.arctan2(steps[..., 0, 0], steps[..., 0, 1]) // (np.pi / 2)).astype(int) + 2
    assert np.abs(np.bincount(quarter.ravel(), minlength=4) / 4_000 - 0.25).max() < 0.03


def test_a_frame_shows_every_digit_whole_and_the_larger_ink_where_they_overlap():
    movement = DigitMovement(IMAGES, frames=(6, 5), size=48)
    sequences = movement.draw(8, np.random.default_rng(3))
    random = np.random.default_rng(3)
    paths = movement.paths(8, random)
    chosen = IMAGES[random.integers(0, 50, (8, 2))]
    expected = np.zeros((8, 11, 48, 48), "uint8")
    overlaps = 0
    for sample, frame in np.ndindex(8, 11):
        layers = np.zeros((2, 48, 48), "uint8")
        for digit in range(2):
            top, left = np.floor(paths[sample, digit, frame]).astype(int)
            layers[digit, top : top + 28, left : left + 28] = chosen[sample, digit]
        expected[sample, frame] = layers.max(axis=0)
        overlaps += (layers.min(axis=0) > 0).any()
    assert overlaps > 20
    np.testing.assert_array_equal(sequences[..., 0], expected.astype("float32") / np.float32(255))


def test_the_protocol_and_its_arguments():
    digits = moving_digits((40, 3, 5), batch_size=16)
    assert isinstance(digits.train, keras.utils.PyDataset)
    assert [len(digits.train[i][0]) for i in range(len(digits.train))] == [16, 16, 8]
    for (inputs, targets), samples in ((digits.train[0], 16), (digits.validation, 3), (digits.test, 5)):
        assert inputs.shape == targets.shape == (samples, 10, 64, 64, 1)
        assert inputs.dtype == targets.dtype == np.float32
        assert inputs.min() == 0
        assert 0.9 < inputs.max() <= 1
    inputs, targets = moving_digits((1, 1, 1), frames=(4, 2), size=80, digits=3, speed=(0, 0)).test
    assert inputs.shape == (1, 4, 80, 80, 1)
    np.testing.assert_array_equal(inputs[:, :2], targets)


def test_every_epoch_has_other_sequences_which_the_seed_decides():
    one, same, other = (moving_digits((8, 2, 2), batch_size=4, seed=seed) for seed in (1, 1, 2))
    first = [array.copy() for array in one.train[1]]
    assert (one.train[0][0] != first[0]).any()
    one.train.set_epoch(1)
    assert (one.train[1][0] != first[0]).any()
    keras.utils.set_random_seed(5)
    one.train.set_epoch(0)
    for again in (one.train[1], same.train[1]):
        for array, expected in zip(again, first, strict=True):
            np.testing.assert_array_equal(array, expected)
    assert (other.train[1][0] != first[0]).any()
    for part in ("validation", "test"):  # stay as they are
        for array, expected in zip(getattr(other, part), getattr(one, part), strict=True):
            np.testing.assert_array_equal(array, expected)
    assert (one.validation[0] != one.test[0]).any()


def test_training_validation_and_test_show_different_images():
    source = handwritten_digits()
    known = [{image.tobytes() for image in images} for images, _ in (source.train, source.validation, source.test)]
    digits = moving_digits((50, 50, 50), batch_size=50, frames=(1, 1), size=29, digits=1)
    for part, (inputs, _) in enumerate((digits.train[0], digits.validation, digits.test)):
        frames = np.rint(255 * inputs[:, 0, ..., 0]).astype("uint8")
        corners = [(0, 0), (0, 1), (1, 0), (1, 1)]
        for frame in frames:
            windows = {frame[top : top + 28, left : left + 28].tobytes() for top, left in corners}
            assert [bool(windows & images) for images in known] == [i == part for i in range(3)]


def test_fit_takes_them():
    frame, target = keras.Input((2, 32, 32, 1)), keras.layers.Conv3D(1, 1, activation="sigmoid")
    model = keras.Model(frame, target(frame))
    model.compile("sgd", "binary_crossentropy")
    digits = moving_digits((4, 2, 2), batch_size=2, frames=(2, 2), size=32)
    history = model.fit(digits.train, validation_data=digits.validation, shuffle=False, verbose=0).history
    assert 0 < history["val_loss"][0] < 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": (1, 1, 0)}, "count \\(1, 1, 0\\): give three"),
        ({"frames": (10, 0)}, "frames \\(10, 0\\): give two"),
        ({"size": 28}, "size 28: digits of 28 pixels cannot move; give 29"),
        ({"digits": 0}, "digits 0"),
        ({"speed": (5, 3)}, "speed \\(5, 3\\): give the slowest"),
        ({"speed": (3, float("nan"))}, "speed"),
        ({"batch_size": 0}, "batch_size 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        moving_digits(**arguments)
