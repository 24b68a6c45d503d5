import keras
import numpy as np
import pytest
from keras import ops

from kseq import saving
from kseq.errors import InputError
from kseq.layers import Dense
from kseq.layers.frame_encoder import FrameEncoder
from kseq.layers.mask_steps import MaskSteps
from kseq.layers.temporal_convolution import DilatedResidualLayer
from tests import conformance
from tests.gradients import gradients

X = np.random.default_rng(2).normal(size=(3, 9, 4)).astype("float32")
MASKS = np.array([[1] * 9, [1, 1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 1, 1, 1, 1]], bool)
FRAMES = np.random.default_rng(3).normal(size=(2, 5, 4, 4, 1)).astype("float32")


def array(tensor) -> np.ndarray:
    return ops.convert_to_numpy(tensor)


def made(layer, shape=X.shape):
    """The layer, built, with random weights, biases too."""
    random = np.random.default_rng(4)
    layer.build(shape)
    layer.set_weights([random.normal(size=w.shape, scale=0.5) for w in layer.get_weights()])
    return layer


def encoder(*more):
    """A small network from a frame to a vector of 3."""
    frames = keras.Input((4, 4, 1))
    x = keras.layers.Flatten(data_format="channels_last")(frames)
    for layer in more:
        x = layer(x)
    return keras.Model(frames, Dense(3, "tanh", name="vector")(x), name="f")


def by_hand(layer, x):
    """The equation for one sequence `(time, filters)`."""
    kernel, bias, pointwise, pointwise_bias = (w.astype("float64") for w in layer.get_weights())
    size, y = len(kernel), []
    for t in range(len(x)):
        total = bias
        for k in range(size):
            at = t + (k - (size - 1 if layer.causal else size // 2)) * layer.dilation
            if 0 <= at < len(x):
                total = total + x[at] @ kernel[k]
        y.append(x[t] + np.maximum(total, 0) @ pointwise + pointwise_bias)
    return np.stack(y)


SETTINGS = [(1, 3, False), (2, 3, True), (4, 3, False), (3, 2, True), (5, 3, True)]


@pytest.mark.parametrize(("dilation", "kernel_size", "causal"), SETTINGS[:2])
def test_conformance(dilation, kernel_size, causal, tmp_path):
    conformance.check_layer(lambda: DilatedResidualLayer(dilation, causal=causal, dropout=0.2), X, tmp_path)


@pytest.mark.parametrize(("dilation", "kernel_size", "causal"), SETTINGS)
def test_it_is_the_equation_whatever_stands_at_masked_steps(dilation, kernel_size, causal):
    layer = made(DilatedResidualLayer(dilation, kernel_size=kernel_size, causal=causal))
    zeroed = np.where(MASKS[..., None], X, 0)
    expected = np.stack([by_hand(layer, x) for x in zeroed])[MASKS]
    for hostile in (0, 1e6, np.nan):
        x = np.where(MASKS[..., None], X, hostile).astype("float32")
        np.testing.assert_allclose(array(layer(x, mask=MASKS))[MASKS], expected, atol=1e-5)
    valid = ops.convert_to_tensor(MASKS[..., None])
    (gradient,) = gradients(lambda x: ops.sum(ops.where(valid, layer(x, mask=valid[..., 0]), 0) ** 2), [x])
    assert np.isfinite(gradient).all()
    assert (gradient[~MASKS] == 0).all()


@pytest.mark.parametrize(("dilation", "kernel_size"), [(1, 3), (4, 3), (3, 2), (2, 1)])
def test_piece_by_piece_is_the_whole(dilation, kernel_size):
    layer = made(DilatedResidualLayer(dilation, kernel_size=kernel_size, causal=True))
    past, pieces = layer.make_past(3), []
    for start, end in ((0, 1), (1, 2), (2, 6), (6, 9)):
        piece, past = layer(X[:, start:end], past=past)
        pieces.append(array(piece))
    assert past.shape == (3, dilation * (kernel_size - 1), 4)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), array(layer(X)), atol=1e-5)


def test_a_layer_that_looks_ahead_has_no_past():
    layer = made(DilatedResidualLayer())
    with pytest.raises(InputError, match="causal=True"):
        layer(X, past=layer.make_past(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dilation": 0}, "dilation 0: give 1 or more"),
        ({"kernel_size": 0}, "kernel_size 0: give 1 or more"),
        ({"kernel_size": 4}, "kernel_size 4: has no middle"),
        ({"dropout": 1.0}, r"dropout 1\.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        DilatedResidualLayer(**arguments)


def test_frame_encoder_conformance(tmp_path):
    conformance.check_layer(lambda: FrameEncoder(encoder()), FRAMES, tmp_path)


def test_every_frame_is_encoded_alike_and_time_may_be_unknown():
    network = encoder()
    expected = np.stack([array(network(FRAMES[:, t])) for t in range(5)], axis=1)
    np.testing.assert_allclose(array(FrameEncoder(network)(FRAMES)), expected, atol=1e-6)
    frames = keras.Input((None, 4, 4, 1))
    model = keras.Model(frames, FrameEncoder(network)(frames))
    assert model.output_shape == (None, None, 3)
    for time in (5, 2):
        np.testing.assert_allclose(model.predict(FRAMES[:, :time], verbose=0), expected[:, :time], atol=1e-6)


def test_computing_again_changes_no_gradient():
    """In parts of 4, 4 and 2 frames, and in more parts than there are frames."""
    weights = []
    for parts in (0, 3, 20):
        frames = keras.Input((None, 4, 4, 1))
        keras.utils.set_random_seed(1)
        model = keras.Model(frames, FrameEncoder(encoder(), remat=parts)(frames))
        start = model.get_weights()
        model.compile(keras.optimizers.SGD(0.5), "mean_squared_error")
        model.fit(FRAMES, np.ones((2, 5, 3)), verbose=0)
        weights.append(model.get_weights())
    for before, expected, *found in zip(start, *weights, strict=True):
        assert np.abs(expected - before).max() > 1e-3
        for got in found:
            np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="it does not tell what it keeps for the gradient")
def test_computing_again_keeps_less():
    kept = []
    for parts in (0, 4):
        layer = FrameEncoder(encoder(*(Dense(64, "tanh", name=f"wide_{level}") for level in range(4))), remat=parts)
        layer.build(FRAMES.shape)
        kept.append(KEPT[keras.backend.backend()](layer, np.repeat(FRAMES, 200, axis=1)))
    assert kept[1] < 0.6 * kept[0]


def kept_by_torch(layer, frames) -> int:
    """Bytes that a step keeps for the gradient."""
    import torch

    sizes = {}  # by address, as a tensor may be saved twice
    keep = lambda tensor: sizes.update({tensor.data_ptr(): tensor.nbytes}) or tensor  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = layer(frames, training=True)
    assert outputs.requires_grad
    return sum(sizes.values())


def held_by_jax(layer, frames) -> int:
    """Bytes that a step needs beside its arguments and results."""
    import jax

    def loss(weights, frames):
        with keras.StatelessScope(zip(layer.trainable_variables, weights, strict=True)):
            return ops.sum(layer(frames, training=True) ** 2)

    weights = [variable.value for variable in layer.trainable_variables]
    return jax.jit(jax.grad(loss)).lower(weights, frames).compile().memory_analysis().temp_size_in_bytes


KEPT = {"torch": kept_by_torch, "jax": held_by_jax}


def test_what_computing_again_would_do_twice_is_refused():
    for layer in (keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)):
        with pytest.raises(InputError, match=f"remat 2: {layer.name} of f"):
            FrameEncoder(encoder(layer), remat=2).build(FRAMES.shape)
    frozen = keras.layers.BatchNormalization(trainable=False)
    FrameEncoder(encoder(frozen), remat=2).build(FRAMES.shape)
    thawed = FrameEncoder(encoder(keras.layers.Dropout(0.5)), remat=2, trainable=False)
    thawed(FRAMES, training=True)
    thawed.trainable = True
    thawed(FRAMES)
    with pytest.raises(InputError, match="would change twice"):
        thawed(FRAMES, training=True)


def test_a_frozen_encoder_is_the_same_in_training_and_comes_back_frozen(tmp_path):
    network = encoder(keras.layers.BatchNormalization(), keras.layers.Dropout(0.5))
    frames = keras.Input((None, 4, 4, 1))
    model = keras.Model(frames, FrameEncoder(network, trainable=False, name="encoder")(frames))
    assert not model.trainable_variables
    assert model.non_trainable_variables
    np.testing.assert_array_equal(array(model(FRAMES, training=True)), array(model(FRAMES)))
    saving.save(model, tmp_path / "model.keras")
    again = saving.load(tmp_path / "model.keras")
    assert not again.trainable_variables
    again.get_layer("encoder").trainable = True
    assert len(again.trainable_variables) == 4
    assert np.abs(array(again(FRAMES, training=True)) - array(again(FRAMES))).max() > 1e-3


def test_an_encoder_must_give_a_vector():
    with pytest.raises(InputError, match=r"gives \(None, 4, 4, 2\) for frames of shape \(4, 4, 1\)"):
        FrameEncoder(keras.layers.Conv2D(2, 1)).build(FRAMES.shape)
    with pytest.raises(InputError, match="remat -1"):
        FrameEncoder(encoder(), remat=-1)


def test_mask_steps_conformance(tmp_path):
    conformance.check_layer(MaskSteps, FRAMES, tmp_path)


def test_masked_steps_are_zero_and_the_mask_goes_on():
    frames, mask = keras.Input((None, 4, 1)), keras.Input((None,), dtype="bool")
    steps = MaskSteps()([frames, mask])
    assert steps.shape == (None, None, 4, 1)
    x = np.where(MASKS[..., None], X, np.nan).astype("float32")
    found = keras.Model([frames, mask], steps).predict([x[..., None], MASKS], verbose=0)
    np.testing.assert_array_equal(found[..., 0], np.where(MASKS[..., None], X, 0))
    layer = MaskSteps()
    outputs = layer([x, MASKS])
    np.testing.assert_array_equal(array(keras.src.backend.get_keras_mask(outputs)), MASKS)
    np.testing.assert_array_equal(array(layer(x, mask=MASKS)), array(outputs))
    np.testing.assert_array_equal(array(layer(X)), X)
    for mask in (MASKS[:, :1], MASKS.T, MASKS[..., None]):
        with pytest.raises(InputError, match=r"mask of shape .*: give \(batch, time\), here \(3, 9\)"):
            layer([X, mask])
