import keras
import numpy as np
import pytest
from keras import ops

from kseq.errors import InputError
from kseq.layers import TransformerDecoderBlock, TransformerEncoderBlock
from tests import conformance
from tests.gradients import gradients
from tests.layers import attention_reference as reference

random = np.random.default_rng(6)
X = random.normal(size=(3, 5, 8)).astype("float32")
MEMORY = random.normal(size=(3, 7, 6)).astype("float32")
MASK = np.arange(5) < np.array([[5], [3], [0]])
MEMORY_MASK = np.arange(7) < np.array([[7], [2], [0]])
BLOCKS = {"encoder": TransformerEncoderBlock, "decoder": TransformerDecoderBlock}


def array(tensor) -> np.ndarray:
    return ops.convert_to_numpy(tensor)


def built(block, *shapes):
    block.build(*shapes)
    block.set_weights([0.4 * random.normal(size=w.shape) for w in block.get_weights()])
    return block


@pytest.mark.parametrize("kind", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"norm_first": False, "activation": "relu", "dropout": 0.1, "attention_dropout": 0.1, "use_bias": False},
        {"drop_path": 0.3, "remat": True},
    ],
)
def test_conformance(kind, arguments, tmp_path):
    conformance.check_layer(lambda: kind(2, 12, **arguments), X, tmp_path)


@pytest.mark.parametrize("norm_first", [True, False])
def test_conformance_with_a_memory(norm_first, tmp_path):
    def model():
        x, memory = keras.Input((5, 8)), keras.Input((7, 6))
        return keras.Model([x, memory], TransformerDecoderBlock(2, 12, norm_first=norm_first)(x, memory))

    original = model()
    original.save(tmp_path / "decoder.keras")
    again = keras.saving.load_model(tmp_path / "decoder.keras")
    np.testing.assert_array_equal(*(m.predict([X, MEMORY], verbose=0) for m in (original, again)))
    before = original.get_weights()
    original.compile(keras.optimizers.SGD(1.0), "mean_squared_error")
    original.fit([X, MEMORY], X[::-1].copy(), verbose=0)
    changed = [not np.array_equal(a, b) for a, b in zip(before, original.get_weights(), strict=True)]
    assert all(changed)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_is_its_equations(kind, norm_first):
    """With the layer normalisation γ (x − μ) / √(σ² + ε) + β of the lecture."""
    block = BLOCKS[kind](2, 12, norm_first=norm_first, activation="relu", epsilon=1e-3)
    built(block, *([X.shape] if kind == "encoder" else [X.shape, MEMORY.shape]))

    def norm(x, name):
        gamma, beta = block.norms[name].get_weights()
        mean = x.mean(axis=-1, keepdims=True)
        variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
        return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta

    def residual(x, name, branch):
        return x + branch(norm(x, name)) if norm_first else norm(x + branch(x), name)

    def attend(name, may_look, memory=None):
        def branch(x):
            keys = x if memory is None else memory
            weights = getattr(block, name).get_weights()
            return reference.multi_head(weights, 2, x, keys, keys, may_look)[0]

        return branch

    def feed_forward(x):
        W1, b1, W2, b2 = block.feed_forward.get_weights()
        return np.maximum(x @ W1 + b1, 0) @ W2 + b2

    may_look = np.broadcast_to(MASK[:, None, None], (3, 2, 5, 5))
    if kind == "encoder":
        y = residual(X, "attention", attend("attention", may_look))
        got = block(X, inputs_mask=MASK)
    else:
        y = residual(X, "attention", attend("attention", may_look & np.tri(5, dtype=bool)))
        across = np.broadcast_to(MEMORY_MASK[:, None, None], (3, 2, 5, 7))
        y = residual(y, "cross_attention", attend("cross_attention", across, MEMORY))
        got = block(X, MEMORY, inputs_mask=MASK, memory_mask=MEMORY_MASK)
    y = residual(y, "feed_forward", feed_forward)
    np.testing.assert_allclose(array(got), y, atol=1e-4)


def test_an_encoder_without_positions_is_permutation_equivariant():
    blocks = [built(TransformerEncoderBlock(2, 12), X.shape) for _ in range(2)]
    order = random.permutation(5)

    def encode(x):
        return array(blocks[1](blocks[0](x)))

    np.testing.assert_allclose(encode(X[:, order]), encode(X)[:, order], atol=1e-5)


@pytest.mark.parametrize("norm_first", [True, False])
def test_no_output_of_a_decoder_depends_on_the_future(norm_first):
    blocks = [built(TransformerDecoderBlock(2, 12, norm_first=norm_first), X.shape) for _ in range(2)]
    for t in range(5):
        (gradient,) = gradients(lambda x, t=t: ops.sum(blocks[1](blocks[0](x))[:, t] ** 2), [X])
        assert (gradient[:, t + 1 :] == 0).all()
        assert (gradient[:, t] != 0).any()


@pytest.mark.parametrize("kind", BLOCKS.values(), ids=BLOCKS)
def test_padding_cannot_change_valid_outputs(kind):
    x = keras.Input((None, 8))
    y = kind(2, 12)(keras.layers.Masking()(x))
    model = keras.Model(x, kind(2, 12)(y))
    padded = np.pad(X, ((0, 0), (0, 3), (0, 0)))
    conformance.check_padding(model, padded, length=5)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("chunk", [1, 2])
def test_cached_decoding_equals_the_whole_sequence(norm_first, chunk):
    x = random.normal(size=(3, 6, 8)).astype("float32")
    blocks = [TransformerDecoderBlock(2, 12, norm_first=norm_first) for _ in range(2)]
    expected = x
    for block in blocks:
        block.build(x.shape, MEMORY.shape)
        expected = block(expected, MEMORY, memory_mask=MEMORY_MASK)
    caches = [block.make_cache(3, 6) for block in blocks]
    memories = [block.project(MEMORY) for block in blocks]
    for t in range(0, 6, chunk):
        y = x[:, t : t + chunk]
        for level, block in enumerate(blocks):
            y, caches[level] = block(
                y,
                cache=caches[level],
                cache_update_index=t,
                memory_cache=memories[level],
                memory_mask=MEMORY_MASK,
            )
        np.testing.assert_allclose(array(y), array(expected)[:, t : t + chunk], atol=2e-6)  # 1e-6 a block


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_decoder_returns_where_it_looks(norm_first):
    block = built(TransformerDecoderBlock(2, 12, norm_first=norm_first), X.shape, MEMORY.shape)
    expected = array(block(X, MEMORY, memory_mask=MEMORY_MASK))
    outputs, weights = map(array, block(X, MEMORY, memory_mask=MEMORY_MASK, return_attention_scores=True))
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    assert weights.shape == (3, 2, 5, 7)
    assert (weights[np.broadcast_to(~MEMORY_MASK[:, None, None], weights.shape)] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=-1)[:2], 1, atol=1e-5)

    cache, memory = block.make_cache(3, 5), block.project(MEMORY)
    arguments = {"cache_update_index": 0, "memory_cache": memory, "memory_mask": MEMORY_MASK}
    step, again, cache = block(X, cache=cache, **arguments, return_attention_scores=True)
    np.testing.assert_allclose(array(step), expected, atol=1e-5)
    np.testing.assert_allclose(array(again), weights, atol=1e-5)
    assert cache.shape == (3, 2, 5, 2, 4)

    alone = built(TransformerDecoderBlock(2, 12, norm_first=norm_first), X.shape)
    _, weights = alone(X, return_attention_scores=True)
    assert (np.triu(array(weights), 1) == 0).all()

    x, symbolic = keras.Input((5, 8)), keras.Input((7, 6))
    _, weights = TransformerDecoderBlock(2, 12)(x, symbolic, return_attention_scores=True)
    assert weights.shape == (None, 2, 5, 7)


@pytest.mark.parametrize("kind", BLOCKS)
def test_remat_changes_no_output_and_no_gradient(kind):
    plain, remat = (BLOCKS[kind](2, 12, remat=remat) for remat in (False, True))
    arrays = [X] if kind == "encoder" else [X, MEMORY]
    built(plain, *(a.shape for a in arrays))
    remat.build(*(a.shape for a in arrays))
    remat.set_weights(plain.get_weights())
    more = {"inputs_mask": ops.convert_to_tensor(MASK)}
    if kind == "decoder":
        more["memory_mask"] = ops.convert_to_tensor(MEMORY_MASK)
    bias = random.normal(size=(2, 5, 5)).astype("float32")

    def value(block):
        return lambda bias, *a: ops.sum(block(*a, attention_bias=bias, training=True, **more) ** 2)

    values = [gradients(value(block), [bias, *arrays]) for block in (plain, remat)]
    assert all(np.abs(gradient).max() > 0.01 for gradient in values[0])
    for a, b in zip(*values, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    steps = []
    for block in (plain, remat):
        inputs = [keras.Input(a.shape[1:]) for a in arrays]
        model = keras.Model(inputs, block(*inputs))
        model.compile(keras.optimizers.SGD(0.1), "mean_squared_error")
        model.fit(arrays if len(arrays) > 1 else X, X[::-1].copy(), verbose=0)
        steps.append(model.get_weights())
    for a, b in zip(*steps, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_remat_keeps_the_gradient_of_a_projected_memory():
    found = []
    for remat in (False, True):
        block = TransformerDecoderBlock(2, 12, remat=remat)
        block.build(X.shape, MEMORY.shape)
        block.set_weights([0.4 * np.random.default_rng(1).normal(size=w.shape) for w in block.get_weights()])
        cache = array(block.project(MEMORY))

        def value(x, cache, block=block):
            return ops.sum(block(x, memory_cache=cache, training=True) ** 2)

        found.append(gradients(value, [X, cache]))
    for plain, again in zip(*found, strict=True):
        assert np.abs(plain).max() > 0.01
        np.testing.assert_allclose(again, plain, rtol=1e-4, atol=1e-4)


def test_stochastic_depth_leaves_branches_out_for_whole_samples():
    block = built(TransformerEncoderBlock(2, 12, drop_path=0.5), X.shape)
    x = np.repeat(X[:1], 200, axis=0)
    attended, whole = (array(y) for y in (block.attention(block.norms["attention"](x)), block(x)))
    outputs = array(block(x, training=True))
    kinds = {sample.round(3).tobytes() for sample in outputs}
    assert len(kinds) == 4  # neither branch, either, both
    untouched = np.isclose(outputs, x, atol=1e-6).all(axis=(1, 2)).mean()
    assert 0.1 < untouched < 0.4  # a quarter
    assert not np.isclose(outputs, whole, atol=1e-3).all(axis=(1, 2)).any()  # what remains is scaled by 1 / (1 − 0.5)
    scaled = x + 2 * attended
    assert np.isclose(outputs, scaled, atol=1e-4).all(axis=(1, 2)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 0}, "num_heads 0"),
        ({"hidden_dim": 0}, "hidden_dim 0"),
        ({"num_heads": 3}, "num_heads 3: does not divide"),
        ({"drop_path": 1.0}, "drop_path 1.0"),
        ({"remat": True, "dropout": 0.1}, "remat True with dropout 0.1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        TransformerEncoderBlock(**{"num_heads": 2, "hidden_dim": 12} | arguments)(X)


def test_caches_and_memories_that_do_not_fit():
    alone, pair = (built(TransformerDecoderBlock(2, 12), *s) for s in ([X.shape], [X.shape, MEMORY.shape]))
    with pytest.raises(InputError, match="only one is given"):
        alone(X, cache=alone.make_cache(3, 5))
    with pytest.raises(InputError, match="has none, because it was built without"):
        alone(X, MEMORY)
    with pytest.raises(InputError, match="has an attention to a memory"):
        pair(X)
