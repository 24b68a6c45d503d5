import itertools

import keras
import numpy as np
import pytest
from keras import ops

from kseq.errors import InputError
from kseq.layers import MultiHeadAttention
from tests import conformance
from tests.gradients import gradients
from tests.layers import attention_reference as reference

random = np.random.default_rng(5)
BATCH, QUERIES, KEYS, HEADS = 3, 5, 7, 2
QUERY = random.normal(size=(BATCH, QUERIES, 8)).astype("float32")
KEY = random.normal(size=(BATCH, KEYS, 6)).astype("float32")
VALUE = random.normal(size=(BATCH, KEYS, 4)).astype("float32")
KEY_MASK = np.arange(KEYS) < np.array([[7], [4], [0]])  # whole, padded, nothing at all
ATTENTION_MASK = random.random((BATCH, QUERIES, KEYS)) < 0.7
BIAS = random.normal(size=(HEADS, QUERIES, KEYS)).astype("float32")


def built(*shapes, **arguments) -> MultiHeadAttention:
    layer = MultiHeadAttention(HEADS, **arguments)
    layer.build(*shapes)
    layer.set_weights([0.4 * random.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def array(tensor) -> np.ndarray:
    return ops.convert_to_numpy(tensor)


@pytest.mark.parametrize("arguments", [{}, {"head_dim": 5, "output_dim": 3, "dropout": 0.2}])
def test_conformance(arguments, tmp_path):
    conformance.check_layer(lambda: MultiHeadAttention(HEADS, **arguments), QUERY, tmp_path)


@pytest.mark.parametrize("returns_scores", [False, True])
@pytest.mark.parametrize(("masked", "limited", "causal", "biased"), list(itertools.product([False, True], repeat=4)))
def test_outputs_and_scores_are_the_equation(masked, limited, causal, biased, returns_scores):
    layer = built(QUERY.shape, VALUE.shape, KEY.shape, head_dim=3, output_dim=9)
    may_look = np.ones((BATCH, HEADS, QUERIES, KEYS), bool)
    if masked:
        may_look &= KEY_MASK[:, None, None]
    if limited:
        may_look &= ATTENTION_MASK[:, None]
    if causal:
        may_look &= np.tri(QUERIES, KEYS, dtype=bool)
    bias = np.broadcast_to(BIAS, may_look.shape) if biased else None
    expected, scores = reference.multi_head(layer.get_weights(), HEADS, QUERY, KEY, VALUE, may_look, bias)
    got = layer(
        QUERY,
        VALUE,
        KEY,
        value_mask=KEY_MASK if masked else None,
        attention_mask=ATTENTION_MASK if limited else None,
        attention_bias=BIAS if biased else None,
        use_causal_mask=causal,
        return_attention_scores=returns_scores,
    )
    if returns_scores:
        got, got_scores = got
        np.testing.assert_allclose(array(got_scores), scores, atol=1e-5)
        sums = array(got_scores).sum(axis=-1)
        np.testing.assert_allclose(sums, may_look.any(axis=-1), atol=1e-5)  # 1, or 0 where there is nothing
    np.testing.assert_allclose(array(got), expected, atol=2e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_gradients_are_those_of_the_form_with_scores(causal, masked, biased):
    """Asking for the scores takes the portable form, which the test above compares with the equation."""
    layer = built(QUERY.shape)
    weight = random.normal(size=QUERY.shape).astype("float32")
    bias = random.normal(size=(HEADS, QUERIES, QUERIES)).astype("float32")
    mask = np.arange(QUERIES) < np.array([[5], [2], [0]])

    def value(returns_scores):
        def function(x, bias):
            y = layer(
                x,
                query_mask=ops.convert_to_tensor(mask) if masked else None,
                attention_bias=bias if biased else None,
                use_causal_mask=causal,
                return_attention_scores=returns_scores,
                training=True,
            )
            return ops.sum((y[0] if returns_scores else y) * ops.convert_to_tensor(weight))

        return function

    expected, got = (gradients(value(scores), [QUERY, bias]) for scores in (True, False))
    for a, b in zip(expected, got, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_the_same_as_keras():
    ours = built(QUERY.shape, VALUE.shape, VALUE.shape)
    theirs = keras.layers.MultiHeadAttention(HEADS, key_dim=4)
    theirs.build(QUERY.shape, VALUE.shape)
    theirs.set_weights(
        [new.reshape(old.shape) for new, old in zip(ours.get_weights(), theirs.get_weights(), strict=True)]
    )
    mask = ATTENTION_MASK | np.eye(KEYS, dtype=bool)[:QUERIES]
    expected = theirs(QUERY, VALUE, attention_mask=mask)
    np.testing.assert_allclose(array(ours(QUERY, VALUE, attention_mask=mask)), array(expected), atol=2e-5)


def test_no_output_depends_on_the_future_of_a_causal_attention():
    layer = built(QUERY.shape)
    for t in range(QUERIES):
        (gradient,) = gradients(
            lambda x, t=t: ops.sum(layer(x, use_causal_mask=True, training=True)[:, t] ** 2), [QUERY]
        )
        assert (gradient[:, t + 1 :] == 0).all()
        assert (gradient[:, : t + 1] != 0).any(axis=-1).all()


@pytest.mark.parametrize("padding", [0, 1e4, np.nan])
def test_what_stands_at_a_masked_key_reaches_no_output_and_no_gradient(padding):
    layer = built(QUERY.shape, VALUE.shape, VALUE.shape)
    mask = ops.convert_to_tensor(KEY_MASK)
    weight = random.normal(size=(BATCH, QUERIES, 8)).astype("float32")

    def function(query, value):
        return ops.sum(layer(query, value, value_mask=mask, training=True) * ops.convert_to_tensor(weight))

    clean, dirty = VALUE.copy(), VALUE.copy()
    dirty[~KEY_MASK] = padding
    np.testing.assert_array_equal(
        array(layer(QUERY, dirty, value_mask=mask)), array(layer(QUERY, clean, value_mask=mask))
    )
    for a, b in zip(gradients(function, [QUERY, clean]), gradients(function, [QUERY, dirty]), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()


def test_masks_of_keras_arrive_and_pass():
    layer = built((None, None, 8))
    x = keras.Input((None, 8))
    model = keras.Model(x, layer(keras.layers.Masking()(x)))
    padded = np.concatenate([QUERY, np.zeros((BATCH, 3, 8), "float32")], axis=1)
    whole = model.predict(padded, verbose=0)
    np.testing.assert_allclose(whole[:, :QUERIES], model.predict(QUERY, verbose=0), atol=1e-5)
    assert layer(keras.layers.Masking()(padded))._keras_mask.shape == (BATCH, QUERIES + 3)


@pytest.mark.parametrize("chunk", [1, 2])
def test_cached_steps_equal_the_whole_sequence(chunk):
    layer = built((None, None, 8))
    x = random.normal(size=(BATCH, 6, 8)).astype("float32")
    expected = array(layer(x, use_causal_mask=True))
    cache = layer.make_cache(BATCH, 6)
    for t in range(0, 6, chunk):
        output, cache = layer(x[:, t : t + chunk], cache=cache, cache_update_index=t)
        np.testing.assert_allclose(array(output), expected[:, t : t + chunk], atol=1e-6)


def test_more_tokens_than_a_cache_has_room_for():
    layer = built((None, None, 8))
    with pytest.raises(InputError, match="cache_update_index 3: 5 tokens from there do not fit a cache of 6"):
        layer(QUERY, cache=layer.make_cache(BATCH, 6), cache_update_index=3)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_bias_keeps_its_precision_and_may_be_infinite(policy):
    layer = MultiHeadAttention(1, dtype=policy)
    x = np.zeros((1, 4, 4), "float32")
    layer.build(x.shape)
    bias = np.array([[300, 300.25, 300.5, -1e9], [-np.inf] * 4, [0, -np.inf, 0, 0], [0] * 4], "float32")
    output, scores = layer(x, attention_bias=bias, return_attention_scores=True)
    assert np.isfinite(array(ops.cast(output, "float32"))).all()
    scores = array(ops.cast(scores, "float32"))[0, 0]
    np.testing.assert_allclose(scores[0], reference.softmax(bias[0]), atol=2e-3)
    np.testing.assert_allclose(scores[2], [1 / 3, 0, 1 / 3, 1 / 3], atol=2e-3)


def test_a_projected_memory_equals_the_memory():
    layer = built(QUERY.shape, VALUE.shape, KEY.shape, head_dim=4)
    cache = layer.project(VALUE, KEY)
    for arguments in ({}, {"value_mask": KEY_MASK}):
        expected = layer(QUERY, VALUE, KEY, **arguments)
        output, same = layer(QUERY, cache=cache, **arguments)
        np.testing.assert_allclose(array(output), array(expected), atol=1e-6)
        np.testing.assert_array_equal(array(same), array(cache))
    dirty = np.where(KEY_MASK[:, None, :, None, None], array(cache), np.nan)
    output, _ = layer(QUERY, cache=dirty, value_mask=KEY_MASK)
    np.testing.assert_allclose(array(output), array(expected), atol=1e-6)


def test_the_mask_of_the_query_holds_for_the_value_that_it_stands_for():
    layer = built(QUERY.shape, QUERY.shape, QUERY.shape)
    mask = np.arange(QUERIES) < np.array([[5], [3], [1]])
    expected = layer(QUERY, query_mask=mask)
    np.testing.assert_allclose(array(layer(QUERY, key=QUERY, query_mask=mask)), array(expected), atol=1e-6)


def test_long_sequences_too():
    """At lengths where a backend may cut the sequence into pieces."""
    x = random.normal(size=(1, 2100, 8)).astype("float32")
    layer = MultiHeadAttention(HEADS)
    mask = np.arange(2100)[None] < 1999
    bias = random.normal(size=(1, 1, 2100)).astype("float32")
    for causal in (False, True):
        for more in ({}, {"query_mask": mask, "attention_bias": bias}):
            expected, _ = layer(x, use_causal_mask=causal, return_attention_scores=True, **more)
            np.testing.assert_allclose(array(layer(x, use_causal_mask=causal, **more)), array(expected), atol=1e-5)


def test_softmax_is_computed_in_float32():
    """Logits of several hundred, which a bfloat16 softmax could not tell apart."""
    layer = MultiHeadAttention(1, dtype="mixed_float16")
    x = np.full((1, 3, 4), 60, "float32")
    x[0, 1] = 61
    layer.build(x.shape)
    layer.set_weights([np.eye(4) if w.ndim == 2 else w for w in layer.get_weights()])
    output, scores = layer(x, return_attention_scores=True)
    assert np.isfinite(array(output).astype("float32")).all()
    np.testing.assert_allclose(array(scores).astype("float32")[0, 0], [[0, 1, 0]] * 3, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 0}, "num_heads 0: give 1 or more"),
        ({"head_dim": 0}, "head_dim 0: give 1 or more"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"num_heads": 3}, "num_heads 3: does not divide the query's size of 8; give a divisor of it, or head_dim"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        MultiHeadAttention(**{"num_heads": 2} | arguments)(QUERY)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"attention_mask": np.ones((5, 6), bool)},
            r"attention_mask: shape \(5, 6\) for 5 queries, 7 keys and 2 heads",
        ),
        ({"attention_mask": np.ones((2, 5, 7), bool)}, r"attention_mask: shape \(2, 1, 5, 7\)"),
        ({"attention_mask": np.ones(7, bool)}, r"attention_mask: shape \(7,\)"),
        ({"attention_bias": np.ones((3, 5, 7))}, r"attention_bias: shape \(3, 5, 7\) .* 2 heads"),
        ({"value_mask": np.ones((3, 6), bool)}, r"mask of the keys: shape \(3, 6\); give \(3, 7\)"),
    ],
)
def test_masks_of_a_wrong_shape(arguments, message):
    with pytest.raises(InputError, match=message):
        built(QUERY.shape, VALUE.shape, VALUE.shape)(QUERY, VALUE, **arguments)
