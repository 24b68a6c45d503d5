"""Every form of attention against the portable one, which `tests/layers/test_attention.py` compares with a loop."""

import keras
import numpy as np
import pytest
from keras import ops

from kseq.backend import attention as forms
from tests.gradients import gradients

random = np.random.default_rng(9)
BATCH, HEADS, QUERIES, KEYS, SIZE = 2, 3, 7, 9, 4
Q, K, V, G = (
    random.normal(size=(BATCH, length, HEADS, SIZE)).astype("float32") for length in (QUERIES, KEYS, KEYS, QUERIES)
)
MASKS = {
    "none": None,
    "keys": np.arange(KEYS) < np.array([9, 0])[:, None, None, None],
    "pairs": random.random((BATCH, 1, QUERIES, KEYS)) < 0.6,
    "pairs of all heads": random.random((1, HEADS, QUERIES, KEYS)) < 0.6,
}
BIASES = {"all": (1, HEADS, QUERIES, KEYS), "keys": (BATCH, 1, 1, KEYS), "own": (BATCH, HEADS, 7, 9)}
own_gradients = pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch runs its own kernel")


def check(form, mask, causal, bias=None):
    mask = None if mask is None else ops.convert_to_tensor(mask)
    arrays = [Q, K, V] + ([] if bias is None else [bias])

    def plain(*tensors):
        return forms.plain_attention(*tensors[:3], mask=mask, causal=causal, bias=None if bias is None else tensors[3])

    expected = ops.convert_to_numpy(plain(*arrays)[0])
    more = {"training": True} | ({} if bias is None else {"bias": bias})
    got = ops.convert_to_numpy(form(*map(ops.convert_to_tensor, (Q, K, V)), mask=mask, causal=causal, **more))
    np.testing.assert_allclose(got, expected, atol=1e-6)

    def value(run):
        return lambda *tensors: ops.sum(run(*tensors) * ops.convert_to_tensor(G))

    def run(*tensors):
        more = {"training": True} | ({} if bias is None else {"bias": tensors[3]})
        return form(*tensors[:3], mask=mask, causal=causal, **more)

    for a, b in zip(gradients(value(lambda *t: plain(*t)[0]), arrays), gradients(value(run), arrays), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


@own_gradients
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("bias", [None, BIASES["all"]], ids=["none", "all"])
def test_own_gradient(mask, causal, bias):
    check(forms.derived_attention, mask, causal, None if bias is None else random.normal(size=bias).astype("float32"))


@own_gradients
@pytest.mark.parametrize("shape", BIASES.values(), ids=BIASES)
def test_the_gradient_of_a_bias_is_summed_where_it_was_repeated(shape):
    check(forms.derived_attention, None, False, random.normal(size=shape).astype("float32"))


@own_gradients
@pytest.mark.parametrize("size", [2, 3, 256])  # chunks that fill the queries, that do not, and one
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_chunks(mask, causal, size, monkeypatch):
    monkeypatch.setattr(forms, "CHUNK", size)
    check(forms.chunked_attention, mask, causal)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the kernel of PyTorch")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_fused_kernel(mask, causal):
    def form(query, key, value, *, mask, causal, training):
        return forms._fused_attention(query, key, value, mask, causal)

    check(form, mask, causal)


@own_gradients
@pytest.mark.parametrize("length", [14, None])
def test_chunks_run_in_a_model_of_any_batch(length, monkeypatch):
    """Where the number of tokens is known chunks are taken, where it is not the weights are kept."""
    from kseq.layers import MultiHeadAttention

    monkeypatch.setattr(forms, "LARGE", 1)
    monkeypatch.setattr(forms, "CHUNK", 3)
    x = random.normal(size=(4, 14, 6)).astype("float32")
    inputs = keras.Input((length, 6))
    model = keras.Model(inputs, MultiHeadAttention(2)(inputs, use_causal_mask=True))
    model.compile(keras.optimizers.SGD(0.1), "mean_squared_error")
    before = model.predict(x, verbose=0)
    losses = [model.fit(x, x[::-1].copy(), verbose=0).history["loss"][0] for _ in range(5)]
    assert losses[-1] < losses[0]
    monkeypatch.setattr(forms, "LARGE", 2**30)
    again = keras.Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    assert not np.allclose(before, model.predict(x, verbose=0), atol=1e-4)
    np.testing.assert_allclose(model.predict(x, verbose=0), again.predict(x, verbose=0), atol=1e-6)
