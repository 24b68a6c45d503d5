import keras
import numpy as np
import pytest
from keras import ops

from kseq.errors import InputError
from kseq.models.conv_lstm_classifier import ConvLSTMClassifier
from kseq.models.conv_lstm_forecaster import VARIANTS, ConvLSTMForecaster, patches
from tests import conformance

VIDEOS = (
    np.random.default_rng(2).normal(size=(2, 3, 4, 6, 2)).astype("float32")
)  # (batch, time, height, width, channels)
SMALL = {"filters": (3, 2), "kernel_size": 3, "patch_size": 2}


def randomized(model):
    random = np.random.default_rng(3)
    for weight in model.trainable_weights:
        weight.assign(random.normal(size=weight.shape, scale=0.5))
    return model


def test_conformance_of_the_forecaster(tmp_path):
    conformance.check_model(lambda: ConvLSTMForecaster(VIDEOS.shape[1:], horizon=2, **SMALL), VIDEOS, tmp_path)


def test_conformance_of_the_classifier(tmp_path):
    more = {"per_frame": True, "peepholes": "channel", "dropout": 0.1}
    conformance.check_model(lambda: ConvLSTMClassifier(VIDEOS.shape[1:], 3, **SMALL, **more), VIDEOS, tmp_path)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch counts without allocating")
@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_are_those_of_table_1(name):
    variant = VARIANTS[name]
    with keras.device("meta"):
        model = variant.model(**variant.arguments)
        assert model.count_params() == variant.parameters
        per_place = variant.model(**variant.arguments | {"peepholes": True})
    assert per_place.output_shape == (None, 10, 64, 64, 1)
    # 512 filters in all, each with three peepholes at 16 × 16 places in place of one
    assert per_place.count_params() == variant.parameters + 3 * 512 * (16 * 16 - 1)


def test_patches_keep_their_places():
    entry = keras.Input(VIDEOS.shape[1:])
    cut = keras.Model(entry, patches(entry, 2)).predict(VIDEOS, verbose=0)
    for y, x in np.ndindex(2, 3):
        expected = VIDEOS[:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(2, 3, 8)
        np.testing.assert_array_equal(cut[:, :, y, x], expected)


def test_states_are_copied_and_all_hidden_states_read():
    """The forecaster layer by layer, each from the states of the encoder's layer of its level."""
    model = randomized(ConvLSTMForecaster(VIDEOS.shape[1:], horizon=4, **SMALL))
    x = VIDEOS.reshape(2, 3, 2, 2, 3, 2, 2).transpose(0, 1, 2, 4, 3, 5, 6).reshape(2, 3, 2, 3, 8)
    x, *first = model.get_layer("encoder_0")(x)
    _, *second = model.get_layer("encoder_1")(x)
    lower = model.get_layer("forecaster_0")(first)
    upper = model.get_layer("forecaster_1")(lower, initial_state=second)
    logits = model.get_layer("patch_logits")(ops.concatenate([lower, upper], axis=-1))
    logits = ops.convert_to_numpy(logits).reshape(2, 4, 2, 3, 2, 2, 2).transpose(0, 1, 2, 4, 3, 5, 6)
    np.testing.assert_allclose(model.predict(VIDEOS, verbose=0), logits.reshape(2, 4, 4, 6, 2), atol=1e-5)


def test_a_longer_forecast_begins_as_a_shorter_one():
    one, other = (ConvLSTMForecaster((None, *VIDEOS.shape[2:]), horizon=h, **SMALL) for h in (1, 3))
    other.set_weights(randomized(one).get_weights())
    np.testing.assert_allclose(*(m.predict(VIDEOS, verbose=0)[:, :1] for m in (one, other)), atol=1e-6)
    assert other.predict(VIDEOS[:1, :1], verbose=0).shape == (1, 3, 4, 6, 2)


def test_a_frame_is_classified_by_those_before_it():
    shape = (None, *VIDEOS.shape[2:])
    frames = randomized(ConvLSTMClassifier(shape, 3, **SMALL, per_frame=True))
    clip = ConvLSTMClassifier(shape, 3, **SMALL)
    clip.set_weights(frames.get_weights())
    each = frames.predict(VIDEOS, verbose=0)
    for t in range(3):
        np.testing.assert_allclose(clip.predict(VIDEOS[:, : t + 1], verbose=0), each[:, t], atol=1e-6)


@pytest.mark.parametrize("per_frame", [False, True])
def test_padding_changes_no_answer(per_frame, tmp_path):
    model = randomized(ConvLSTMClassifier(VIDEOS.shape[1:], 3, **SMALL, masked=True, per_frame=per_frame))
    mask = np.array([[True, True, False], [True, True, True]])
    expected = model.predict([VIDEOS, mask], verbose=0)
    padded = np.where(mask[..., None, None, None], VIDEOS, np.nan).astype("float32")
    np.testing.assert_allclose(model.predict([padded, mask], verbose=0), expected, atol=1e-6)
    plain = ConvLSTMClassifier((None, *VIDEOS.shape[2:]), 3, **SMALL, per_frame=per_frame)
    plain.set_weights(model.get_weights())
    short = plain.predict(VIDEOS[:1, :2], verbose=0)
    np.testing.assert_allclose(short, expected[:1, :2] if per_frame else expected[:1], atol=1e-6)
    assert [entry.name for entry in model.inputs] == ["frames", "mask"]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict([VIDEOS, mask], verbose=0), expected)


@pytest.mark.parametrize("space", [(6,), (2, 4, 2)])
def test_signals_and_volumes(space):
    x = np.random.default_rng(4).normal(size=(2, 2, *space, 1)).astype("float32")
    assert ConvLSTMForecaster(x.shape[1:], horizon=3, **SMALL).predict(x, verbose=0).shape == (2, 3, *space, 1)
    assert ConvLSTMClassifier(x.shape[1:], 5, **SMALL).predict(x, verbose=0).shape == (2, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (3, 5, 6, 1)}, r"does not divide frames of \(5, 6\); give frames of \(4, 6\) or \(6, 6\)"),
        ({"input_shape": (3, 4)}, r"input_shape \(3, 4\): give \(time, \*space, channels\)"),
        ({"input_shape": (3, None, 6, 1)}, "only time may be None"),
        ({"input_shape": (0, 4, 6, 1)}, r"input_shape \(0, 4, 6, 1\)"),
        ({"input_shape": (3, 4, 6, 0)}, "1 or more each"),
        ({"filters": ()}, r"filters \(\): give 1 or more"),
        ({"filters": (4, 0)}, r"filters \(4, 0\)"),
        ({"filters": 64}, "filters 64: give 1 or more for each layer"),
        ({"input_shape": 64}, r"input_shape 64: give \(time"),
        ({"kernel_size": 0}, "kernel_size 0"),
        ({"patch_size": 0}, "patch_size 0"),
        ({"peepholes": None}, "peepholes None"),
    ],
)
def test_bad_arguments(arguments, message):
    arguments = {"input_shape": (3, 4, 6, 1)} | SMALL | arguments
    for build in (ConvLSTMForecaster, lambda shape, **more: ConvLSTMClassifier(shape, 2, **more)):
        with pytest.raises(InputError, match=message):
            build(arguments["input_shape"], **{key: arguments[key] for key in arguments if key != "input_shape"})


def test_bad_heads():
    with pytest.raises(InputError, match="horizon 0"):
        ConvLSTMForecaster((3, 4, 6, 1), horizon=0, **SMALL)
    with pytest.raises(InputError, match="num_classes 0"):
        ConvLSTMClassifier((3, 4, 6, 1), 0, **SMALL)
    with pytest.raises(InputError, match="dropout 1"):
        ConvLSTMClassifier((3, 4, 6, 1), 2, dropout=1, **SMALL)
