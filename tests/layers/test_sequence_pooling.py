import keras
import numpy as np
import pytest
from keras import ops

from kseq.errors import InputError
from kseq.layers import SequencePooling
from kseq.layers.sequence_pooling import MODES
from tests import conformance
from tests.gradients import gradients

random = np.random.default_rng(4)
H = random.normal(size=(4, 6, 4)).astype("float32") - 2  # below 0, so that a zero would win a maximum
MASKS = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]], bool)


def array(tensor) -> np.ndarray:
    return ops.convert_to_numpy(tensor)


def expected(layer, h):
    """The pooling of the valid states `(steps, dim)` of one row."""
    if not len(h):
        return np.zeros(12 if layer.mode == "concat" else 4)
    last = np.concatenate([h[-1, :2], h[0, 2:]]) if layer.bidirectional else h[-1]
    if layer.mode == "attention":
        u_w, W, b = (w.astype("float64") for w in layer.get_weights())
        scores = np.exp(np.tanh(h @ W + b) @ u_w[:, 0])
        return scores / scores.sum() @ h
    found = {"last": last, "max": h.max(axis=0), "mean": h.mean(axis=0)}
    return np.concatenate(list(found.values())) if layer.mode == "concat" else found[layer.mode]


@pytest.mark.parametrize("mode", MODES)
def test_conformance(mode, tmp_path):
    conformance.check_layer(lambda: SequencePooling(mode, bidirectional=mode == "last"), H, tmp_path)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_it_is_the_equation_over_valid_steps_whatever_stands_at_the_others(mode, bidirectional):
    layer = SequencePooling(mode, attention_dim=3, bidirectional=bidirectional)
    layer.build(H.shape)
    layer.set_weights([random.normal(size=w.shape) for w in layer.get_weights()])
    wanted = np.stack([expected(layer, h[mask]) for h, mask in zip(H, MASKS, strict=True)])
    for hostile in (1e6, np.nan, -np.inf):
        h = np.where(MASKS[..., None], H, hostile).astype("float32")
        np.testing.assert_allclose(array(layer(h, mask=MASKS)), wanted, atol=1e-5)
    (gradient,) = gradients(lambda h: ops.sum(layer(h, mask=ops.convert_to_tensor(MASKS)) ** 2), [H])
    assert np.isfinite(gradient).all()
    assert (gradient[~MASKS] == 0).all()


def test_without_a_mask_all_steps_are_valid():
    for mode in MODES:
        layer = SequencePooling(mode)
        np.testing.assert_allclose(array(layer(H)), array(layer(H, mask=np.ones_like(MASKS))), atol=1e-6)


def test_the_weights_are_those_of_the_sum():
    layer = SequencePooling("attention")
    pooled, weights = layer(H, mask=MASKS, return_attention_scores=True)
    pooled, weights = array(pooled), array(weights)
    assert (weights[~MASKS] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), [1, 1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(np.einsum("bt,btd->bd", weights, H), pooled, atol=1e-5)


def test_a_mean_in_half_precision_does_not_overflow():
    layer = SequencePooling("mean", dtype="mixed_float16")
    assert array(layer(np.full((1, 100, 2), 1000.0, "float16"))).tolist() == [[1000, 1000]]


def test_the_mask_ends_here():
    x = keras.Input((None, 4))
    model = keras.Model(x, SequencePooling("mean")(keras.layers.Masking()(x)))
    assert keras.src.backend.get_keras_mask(model(H)) is None
    padded = np.pad(H, ((0, 0), (0, 2), (0, 0)))
    conformance.check_padding(model, padded, length=6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "sum"}, "mode 'sum': choose one of last, mean"),
        ({"attention_dim": 0}, "attention_dim 0: give 1 or more"),
        ({"mode": "last", "bidirectional": True}, "bidirectional True: 3 features"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        SequencePooling(**arguments)(H[..., :3])


def test_only_attention_has_weights():
    with pytest.raises(InputError, match="mode 'max' has no weights"):
        SequencePooling("max")(H, return_attention_scores=True)
