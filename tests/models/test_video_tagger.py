import keras
import numpy as np
import pytest
from keras import ops

from kseq import saving
from kseq.errors import InputError
from kseq.layers import GRU, LSTM, Dense
from kseq.models import ViT, copy_encoder
from kseq.models.video_tagger import VARIANTS, FrameNetwork, VideoTagger
from kseq.training.truncated import CarryState, Windows
from tests import conformance
from tests.numpy_initializers import numpy_initializers

SHAPE = (4, 4, 1)
FRAMES = np.random.default_rng(9).normal(size=(2, 6, *SHAPE)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 0]], bool)

CONFIGURATIONS = {
    "default": {},
    "bidirectional gru": {"cell": "gru", "bidirectional": True, "remat": 2},
    "framewise": {"cell": None},
}


@pytest.fixture(autouse=True, scope="module")
def fast_building():
    with numpy_initializers():
        yield


def network():
    return FrameNetwork(SHAPE, channels=(8,))


def tagger(**options):
    """A small one with random weights, biases too."""
    options = {"encoder": network(), "units": 4, "dropout": 0.0} | options
    model, random = VideoTagger(SHAPE, 3, **options), np.random.default_rng(10)
    model.set_weights([random.normal(size=w.shape, scale=0.5) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("arguments", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_conformance(arguments, tmp_path):
    conformance.check_model(
        lambda: VideoTagger(SHAPE, 3, encoder=network(), **{"units": 4} | arguments), FRAMES, tmp_path
    )


@pytest.mark.parametrize(("cell", "layer"), [("lstm", LSTM), ("gru", GRU)])
def test_it_is_the_encoder_frame_by_frame_and_a_plain_recurrence(cell, layer):
    encoder = network()
    model = tagger(encoder=encoder, cell=cell, depth=2, remaining_duration=True)
    h = np.stack([encoder.predict(FRAMES[:, t], verbose=0) for t in range(6)], axis=1)
    for level in range(2):
        plain = layer(4, return_sequences=True)
        plain.build(h.shape)
        plain.set_weights(model.get_layer(f"recurrent_{level}").get_weights())
        h = ops.convert_to_numpy(plain(h))
    outputs = model.predict(FRAMES, verbose=0)
    assert outputs.keys() == {"logits", "remaining_duration"}
    for name, answer in outputs.items():
        kernel, bias = model.get_layer(name).get_weights()
        np.testing.assert_allclose(answer, h @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"cell": None}], ids=["online", "both", "framewise"])
def test_which_answers_a_changed_frame_changes(options):
    model, changed = tagger(**options), FRAMES.copy()
    changed[:, 3] += 2
    change = np.abs(model.predict(changed, verbose=0) - model.predict(FRAMES, verbose=0)).max(axis=(0, 2))
    before, at, behind = change[:3], change[3], change[4:]
    assert at > 1e-3
    assert (before > 1e-6).all() if "bidirectional" in options else (before == 0).all()
    assert (behind == 0).all() if "cell" in options else (behind > 1e-6).all()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_cannot_change_an_answer(bidirectional):
    plain = tagger(bidirectional=bidirectional)
    model = tagger(bidirectional=bidirectional, masked=True)
    model.set_weights(plain.get_weights())
    cut = plain.predict(FRAMES[MASK].reshape(2, 4, *SHAPE), verbose=0).reshape(-1, 3)
    for hostile in (0, 1e5, np.nan):
        frames = np.where(MASK[..., None, None, None], FRAMES, hostile).astype("float32")
        np.testing.assert_allclose(model.predict([frames, MASK], verbose=0)[MASK], cut, atol=1e-5)


def test_training_does_not_see_padding():
    model, found = tagger(bidirectional=True, masked=True), []
    model.compile(keras.optimizers.SGD(0.5), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    start = model.get_weights()
    for hostile in (0, np.nan):
        model.set_weights(start)
        frames = np.where(MASK[..., None, None, None], FRAMES, hostile).astype("float32")
        model.fit([frames, MASK], np.ones((2, 6)), sample_weight=MASK.astype("float32"), verbose=0)
        found.append(model.get_weights())
    for before, after, other in zip(start, *found, strict=True):
        assert np.abs(after - before).max() > 1e-6
        np.testing.assert_allclose(after, other, atol=1e-6)


@pytest.mark.parametrize("train_encoder", [True, False])
def test_a_frozen_encoder_stays_as_it_is(train_encoder):
    frames = keras.Input(SHAPE)
    x = keras.layers.BatchNormalization()(keras.layers.Flatten(data_format="channels_last")(frames))
    encoder = keras.Model(frames, Dense(8)(keras.layers.Dropout(0.5)(x)), name="f")
    model = tagger(encoder=encoder, train_encoder=train_encoder)
    ours = {id(v) for v in model.trainable_variables} & {id(v) for v in encoder.variables}
    assert len(ours) == (4 if train_encoder else 0)
    before, others = encoder.get_weights(), model.get_layer("logits").get_weights()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(FRAMES, np.ones((2, 6)), verbose=0)
    kept = [np.array_equal(old, new) for old, new in zip(before, encoder.get_weights(), strict=True)]
    assert all(kept) if not train_encoder else not any(kept[:4])
    assert not np.array_equal(others[0], model.get_layer("logits").get_weights()[0])


def test_in_two_steps():
    """What a framewise tagger learned is frozen; a tagger of its features then has the layers of the whole one."""
    encoder = network()
    framewise = tagger(encoder=encoder, cell=None)
    begin = encoder.get_weights()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    framewise.compile(keras.optimizers.SGD(0.5), loss)
    framewise.fit(FRAMES, np.tile(np.arange(6) % 3, (2, 1)), verbose=0)
    learned = encoder.get_weights()
    assert all(np.abs(new - old).max() > 1e-6 for new, old in zip(learned, begin, strict=True))
    whole = VideoTagger(SHAPE, 3, encoder=encoder, train_encoder=False, units=4, dropout=0.0)
    before = whole.get_layer("recurrent_0").get_weights()[0]
    whole.compile(keras.optimizers.SGD(0.5), loss)
    whole.fit(FRAMES, np.tile(np.arange(6) % 3, (2, 1)), verbose=0)
    assert np.abs(whole.get_layer("recurrent_0").get_weights()[0] - before).max() > 1e-6
    for one, other in zip(encoder.get_weights(), learned, strict=True):
        np.testing.assert_array_equal(one, other)
    features = keras.Model(whole.input, whole.get_layer("encoder").output).predict(FRAMES, verbose=0)
    assert features.shape == (2, 6, 8)
    above = VideoTagger((8,), 3, units=4, dropout=0.0)
    assert copy_encoder(above, whole, ["recurrent_0", "logits"]) == ["recurrent_0", "logits"]
    np.testing.assert_allclose(whole.predict(FRAMES, verbose=0), above.predict(features, verbose=0), atol=1e-6)


def test_pre_training_without_classes():
    before = tagger(encoder=(encoder := network()))
    model = VideoTagger(SHAPE, 0, encoder=encoder, units=4, remaining_duration=True)
    assert model.output.keys() == {"remaining_duration"}
    model.compile("sgd", {"remaining_duration": "huber"})
    kernel = encoder.get_weights()[0]
    model.fit(FRAMES, {"remaining_duration": np.tile(np.arange(6.0)[::-1, None], (2, 1, 1))}, verbose=0)
    assert not np.array_equal(kernel, encoder.get_weights()[0])
    assert copy_encoder(model, before) == ["encoder", "recurrent_0"]


def test_windows_with_the_state_carried_equal_the_whole():
    model, whole = tagger(stateful=True, batch_size=2), tagger()
    whole.set_weights(model.get_weights()[: len(whole.get_weights())])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    targets = np.random.default_rng(11).integers(0, 3, (2, 6))
    windows = Windows(FRAMES, targets, 2, 3)
    model.compile(keras.optimizers.SGD(0.0), loss)
    history = model.fit(windows, shuffle=False, callbacks=[CarryState(windows)], verbose=0)
    expected = float(loss(targets, whole.predict(FRAMES, verbose=0)))
    np.testing.assert_allclose(history.history["loss"], expected, atol=1e-5)
    cut = float(loss(targets[:, 3:], whole.predict(FRAMES[:, 3:], verbose=0)))
    assert abs(2 * expected - float(loss(targets[:, :3], whole.predict(FRAMES[:, :3], verbose=0))) - cut) > 1e-3


def test_a_vision_transformer_reads_frames_and_is_saved(tmp_path):
    vit = ViT(SHAPE, 0, patch_size=2, embed_dim=8, depth=1, num_heads=2)
    model = VideoTagger(SHAPE, 3, encoder=vit, units=4)
    features = keras.Model(model.input, model.get_layer("encoder").output).predict(FRAMES, verbose=0)
    np.testing.assert_allclose(features[:, 2], vit.predict(FRAMES[:, 2], verbose=0), atol=1e-5)
    saving.save(model, tmp_path / "model.keras")
    again = saving.load(tmp_path / "model.keras")
    assert again.to_json() == model.to_json()
    for got, expected in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("shape", [(9, 1), (8, 12, 2), (4, 6, 4, 1)])
def test_the_small_network_reads_signals_images_and_volumes(shape):
    model = FrameNetwork(shape, channels=(8, 16))
    assert model.predict(np.ones((2, *shape)), verbose=0).shape == (2, 16)
    with pytest.raises(InputError, match="at least 16 × 16 pixels for 5 levels"):
        FrameNetwork(shape, channels=(8,) * 5)
    with pytest.raises(InputError, match=r"input_shape \(None, .*: give"):
        FrameNetwork((None, *shape[1:]))


def test_the_default_network_and_parameters():
    variant = VARIANTS["video_tagger"]
    model = variant.model(**variant.arguments)
    assert model.count_params() == variant.parameters
    assert model.output_shape == (None, None, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes 0: give 1 or more, or 0 with remaining_duration"),
        ({"num_classes": -1, "remaining_duration": True}, "num_classes -1"),
        ({"cell": "conv"}, "cell 'conv': choose one of rnn, gru, lstm, or None"),
        ({"units": 0}, "units 0: give 1 or more"),
        ({"dropout": 1.0}, r"dropout 1\.0"),
        ({"bidirectional": True, "stateful": True, "batch_size": 2}, "the way back begins at the end"),
        ({"bidirectional": True, "cell": None}, "the way back begins at the end"),
        ({"stateful": True, "cell": None, "batch_size": 2}, "has no state"),
        ({"stateful": True}, "batch_size None"),
        ({"input_shape": (4, 0, 1)}, r"input_shape \(4, 0, 1\): give \(height, width, channels\)"),
        ({"input_shape": (None, 16, 1)}, r"input_shape \(None, 16, 1\): give"),
        ({"input_shape": 16}, "input_shape 16: give"),
        ({"train_encoder": False}, "train_encoder False with encoder None"),
        ({"input_shape": (16,), "remat": 2}, "remat 2: a tagger of features has no encoder"),
        ({"input_shape": (4, 4, 1)}, "at least 8 × 8 pixels for 4 levels"),
        ({"encoder": "resnet"}, "encoder 'resnet': give a keras.Model"),
        ({"encoder": FrameNetwork((8, 8, 3), channels=(8,))}, r"encoder frame_network reads \(8, 8, 3\)"),
        ({"encoder": keras.layers.Conv2D(2, 1)}, r"gives \(None, 16, 16, 2\)"),
        ({"encoder": FrameNetwork((16, 16, 1), normalization="batch"), "remat": 2}, "would change twice"),
        ({"remat": -1}, "remat -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        VideoTagger(**{"input_shape": (16, 16, 1), "num_classes": 3} | arguments)
