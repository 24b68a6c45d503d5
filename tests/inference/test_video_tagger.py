import keras
import numpy as np
import pytest
from keras import ops

from kseq import saving
from kseq.errors import InputError
from kseq.inference.video_tagger import OnlineMultiStageTCN, OnlineVideoTagger, online
from kseq.models import CharTagger
from kseq.models.multi_stage_tcn import MultiStageTCN
from kseq.models.video_tagger import FrameNetwork, VideoTagger
from tests.numpy_initializers import numpy_initializers

random = np.random.default_rng(12)
SHAPE = (4, 4, 1)
FRAMES = random.normal(size=(2, 9, *SHAPE)).astype("float32")
FEATURES = random.normal(size=(2, 19, 5)).astype("float32")


@pytest.fixture(autouse=True, scope="module")
def fast_building():
    with numpy_initializers():
        yield


def tagger(**options):
    model = VideoTagger(SHAPE, 3, **{"encoder": FrameNetwork(SHAPE, channels=(8,)), "units": 4} | options)
    model.set_weights([random.normal(size=w.shape, scale=0.5) for w in model.get_weights()])
    return model


def network(**options):
    model = MultiStageTCN(5, 3, **{"layers": 2, "filters": 4} | options)
    model.set_weights([random.normal(size=w.shape, scale=0.5) for w in model.get_weights()])
    return model


def streamed(stepper, inputs):
    """The answers at all frames `(batch, time, …)`, by name."""
    states, answers = stepper.begin(len(inputs)), []
    for t in range(inputs.shape[1]):
        answer, states = stepper.step(inputs[:, t], states)
        answers.append(answer if isinstance(answer, dict) else {"logits": answer})
    return {name: np.stack([ops.convert_to_numpy(a[name]) for a in answers], axis=1) for name in answers[0]}


def check_streamed(stepper, inputs, tolerance=1e-5):
    """All at once, and one video alone."""
    whole = stepper.model.predict(inputs, verbose=0)
    whole = whole if isinstance(whole, dict) else {"logits": whole}
    for rows in (slice(None), slice(1)):
        found = streamed(stepper, inputs[rows])
        assert found.keys() == whole.keys()
        for name, answers in found.items():
            assert answers.dtype == "float32"
            expected = np.asarray(whole[name], "float32")[rows]
            np.testing.assert_allclose(answers, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 2, "remaining_duration": True},
        {"cell": "gru"},
        {"cell": "rnn", "dropout": 0.0},
        {"cell": None},
    ],
    ids=["lstm", "gru", "rnn", "framewise"],
)
def test_streamed_equals_whole(options):
    check_streamed(online(tagger(**options)), FRAMES)


def test_a_tagger_of_features_and_of_the_remaining_duration_alone():
    model = VideoTagger((5,), 0, units=4, remaining_duration=True)
    check_streamed(online(model), FEATURES)


def test_states_of_training_are_left_alone():
    model, plain = tagger(stateful=True, batch_size=2), tagger()
    plain.set_weights(model.get_weights()[: len(plain.get_weights())])
    model(FRAMES)
    before = [ops.convert_to_numpy(v).copy() for v in model.variables]
    found = streamed(online(model), FRAMES)["logits"]
    np.testing.assert_allclose(found, plain.predict(FRAMES, verbose=0), atol=1e-5)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(new))


def test_training_may_go_on_between_frames():
    model = tagger()
    stepper = online(model)
    first, _ = stepper.step(FRAMES[:, 0], stepper.begin(2))
    head = model.get_layer("logits")
    head.kernel.assign(2 * head.kernel)
    again, _ = stepper.step(FRAMES[:, 0], stepper.begin(2))
    bias = ops.convert_to_numpy(head.bias)
    np.testing.assert_allclose(ops.convert_to_numpy(again) - bias, 2 * (ops.convert_to_numpy(first) - bias), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"stages": 3, "deep_supervision": True}, {"stages": 1, "masked": True}])
def test_a_network_of_stages_streamed_equals_whole(options):
    """19 frames are more than the pasts of its layers, and the first are fewer."""
    model = network(**options)
    if "masked" not in options:
        return check_streamed(online(model), FEATURES)
    whole = model.predict([FEATURES, np.ones(FEATURES.shape[:2], bool)], verbose=0)
    np.testing.assert_allclose(streamed(online(model), FEATURES)["logits"], whole, atol=1e-5)


@pytest.mark.parametrize(("make", "inputs"), [(tagger, FRAMES), (network, FEATURES)])
def test_a_loaded_model_in_half_precision(make, inputs, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    saving.save(make(), tmp_path / "model.keras")
    check_streamed(online(saving.load(tmp_path / "model.keras")), inputs[:, :3], tolerance=0.05)


def test_models_that_look_ahead_are_refused():
    with pytest.raises(InputError, match="recurrent_0 is bidirectional, .* bidirectional=False"):
        online(tagger(bidirectional=True))
    with pytest.raises(InputError, match="stage_0_layer_0 is not causal, .* causal=True"):
        online(network(causal=False))


def test_another_model():
    other = CharTagger(11, 3, units=2, depth=1, bidirectional=False)
    with pytest.raises(InputError, match="no tagger of video frames"):
        online(other)
    with pytest.raises(InputError, match="no network of stages"):
        OnlineMultiStageTCN(other)
    with pytest.raises(InputError, match="no tagger of video frames"):
        OnlineVideoTagger(network())


@pytest.mark.parametrize(("make", "inputs"), [(tagger, FRAMES), (network, FEATURES)])
def test_frames_and_states_that_do_not_fit(make, inputs):
    stepper = online(make())
    states = stepper.begin(2)
    for frames in (inputs, inputs[0, 0], inputs[:, 0, :-1]):
        with pytest.raises(InputError, match=r"(frames|features) of shape .*: give \(batch, "):
            stepper.step(frames, states)
    for other in (stepper.begin(1), states[:-1], ()):
        with pytest.raises(InputError, match="states of shapes .*; give what begin gave for so many videos"):
            stepper.step(inputs[:, 0], other)
