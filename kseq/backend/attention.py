"""Scaled dot-product attention in the form that each backend computes fastest, and the portable form."""

import keras
from keras import ops

from kseq.backend.scan import with_gradient

LOWEST = -1e30  # the logit of a masked key: finite, so that a row without a valid key is no NaN
# Queries computed together where there are many weights. On JAX that is faster too, on TensorFlow it is for memory.
CHUNK, LARGE = (128, 2**20) if keras.backend.backend() == "jax" else (256, 2**24)


def attention(
    query, key, value, *, mask=None, bias=None, causal=False, drop=None, return_weights=False, training=False
):
    """softmax(Q Kᵀ / √d + B) V for each head, and the weights, softmax(…).

    The softmax is computed in float32. A query that may look at nothing has weights and output 0.

    PyTorch runs its fused kernel. TensorFlow and JAX run a gradient of our own, which keeps the weights P, and needs
    of the softmax only D = rowsum(G ∘ O): ∂L/∂logits = P ∘ (G Vᵀ − D). Where P would be large it is computed again, a
    few queries at a time (the backward pass of Dao et al. 2022, arXiv 2205.14135, without its tiles of keys).

    Args:
        query: `(batch, queries, heads, d)`.
        key: `(batch, keys, heads, d)`.
        value: `(batch, keys, heads, value_dim)`.
        mask: boolean, broadcastable to `(batch, heads, queries, keys)`, true where a query may look.
        bias: B, broadcastable to the same.
        causal: whether query t may look at keys up to t only.
        drop: a function that drops some of the weights, or `None`.
        return_weights: whether the weights are wanted.
        training: whether a gradient is to be expected.

    Returns:
        `(batch, queries, heads, value_dim)`, and `(batch, heads, queries, keys)` or `None`.
    """
    if drop is not None or return_weights:
        return plain_attention(query, key, value, mask=mask, bias=bias, causal=causal, drop=drop)
    if keras.backend.backend() == "torch":
        if bias is not None:  # which the fused kernel takes as a mask, slower than the plain form
            return plain_attention(query, key, value, mask=mask, bias=bias, causal=causal)[0], None
        return _fused_attention(query, key, value, mask, causal), None
    # At inference TensorFlow frees the weights layer by layer, and tf2onnx cannot convert the loop.
    if bias is None and (training or keras.backend.backend() == "jax") and _is_large(query, key):
        return chunked_attention(query, key, value, mask=mask, causal=causal, training=training), None
    return derived_attention(query, key, value, mask=mask, bias=bias, causal=causal, training=training), None


def plain_attention(query, key, value, *, mask=None, bias=None, causal=False, drop=None):
    """The portable form of `attention`; it always has the weights."""
    query, key, value = _heads_first(query * query.shape[-1] ** -0.5), _heads_first(key), _heads_first(value)
    weights, mask = _weights(query, key, mask, bias, causal)
    if mask is not None:
        weights = weights * ops.cast(ops.any(mask, axis=-1, keepdims=True), weights.dtype)
    weights = ops.cast(weights, value.dtype)
    return _heads_first(ops.matmul(weights if drop is None else drop(weights), value)), weights


def derived_attention(query, key, value, *, mask=None, bias=None, causal=False, training=True):
    """`attention` with its own gradient, for TensorFlow and JAX."""
    scale = query.shape[-1] ** -0.5

    def forward(query, key, value, bias, mask):
        query, key, value = _heads_first(query * scale), _heads_first(key), _heads_first(value)
        weights, allowed = _weights(query, key, mask, bias, causal)
        weights = ops.cast(weights, value.dtype)
        outputs = _seen(ops.matmul(weights, value), allowed)
        return _heads_first(outputs), (query, key, value, bias, allowed, weights, outputs)

    def backward(kept, gradient):
        query, key, value, bias, allowed, weights, outputs = kept
        gradient = _seen(_heads_first(_only(gradient)), allowed)
        of_value = _transposed_times(weights, gradient)
        of_logits = _of_logits(weights, _times_transposed(gradient, value), gradient * outputs)
        of_bias = None if bias is None else ops.cast(_sum_to(of_logits, bias.shape), bias.dtype)
        of_query = ops.matmul(of_logits, key) * scale
        of_key = _transposed_times(of_logits, query)
        return _heads_first(of_query), _heads_first(of_key), _heads_first(of_value), of_bias, None

    derived = with_gradient(lambda *tensors: forward(*tensors)[0], forward, backward, training=training)
    return derived(query, key, value, bias, mask)


def chunked_attention(query, key, value, *, mask=None, causal=False, training=True):
    """`attention` by `CHUNK` queries at a time: memory grows with the tokens, not with their square.

    The number of queries must be known.
    """
    scale, queries, size = query.shape[-1] ** -0.5, query.shape[1], min(CHUNK, query.shape[1])
    count = -(-queries // size)
    per_query = mask is not None and mask.shape[2] != 1

    def split(x):
        """`(batch, heads, queries, …)` as `(count, batch, heads, size, …)`, filled up with zeros."""
        x = ops.pad(x, [(0, 0), (0, 0), (0, count * size - queries), (0, 0)])
        shape = ops.shape(x)
        return ops.transpose(ops.reshape(x, (*shape[:2], count, size, shape[-1])), (2, 0, 1, 3, 4))

    def join(x):
        """The inverse of `split`, heads last: `(batch, queries, heads, …)`."""
        _, batch, heads, _, last = ops.shape(x)
        return ops.reshape(ops.transpose(x, (1, 0, 3, 2, 4)), (batch, count * size, heads, last))[:, :queries]

    def weights_of(i, query, key, masks, log_sums=None):
        """Weights of chunk i, and the logarithms of their sums, by which they are normalised."""
        allowed = masks[i] if per_query else masks
        logits = _full(_times_transposed(query[i], key))
        if causal:
            past = ops.arange(ops.shape(key)[2])[None] <= i * size + ops.arange(size)[:, None]
            allowed = past if allowed is None else ops.logical_and(allowed, past)
        if allowed is not None:
            logits = ops.where(allowed, logits, LOWEST)
        if log_sums is None:
            highest = ops.max(logits, axis=-1, keepdims=True)
            exponentials = ops.exp(logits - highest)
            sums = ops.sum(exponentials, axis=-1, keepdims=True)
            return exponentials / sums, highest + ops.log(sums), allowed
        return ops.exp(logits - log_sums[i]), None, allowed

    def forward(query, key, value, mask):
        query, key, value = split(_heads_first(query * scale)), _heads_first(key), _heads_first(value)
        masks = split(mask) if per_query else mask

        def body(i, state):
            outputs, log_sums = state
            weights, sums, allowed = weights_of(i, query, key, masks)
            chunk = _seen(ops.matmul(ops.cast(weights, value.dtype), value), allowed)
            return _set(outputs, i, chunk), _set(log_sums, i, sums)

        rows = ops.shape(query)[:-1]
        state = ops.zeros((*rows, value.shape[-1]), value.dtype), ops.zeros((*rows, 1), _full(value).dtype)
        outputs, log_sums = _repeat(count, body, state)
        return join(outputs), (query, key, value, masks, outputs, log_sums)

    def backward(kept, gradient):
        query, key, value, masks, outputs, log_sums = kept
        gradient = split(_heads_first(_only(gradient)))

        def body(i, state):
            of_queries, of_key, of_value = state
            weights, _, allowed = weights_of(i, query, key, masks, log_sums)
            weights, g = ops.cast(weights, value.dtype), _seen(gradient[i], allowed)
            of_logits = _of_logits(weights, _times_transposed(g, value), g * outputs[i])
            return (
                _set(of_queries, i, ops.matmul(of_logits, key) * scale),
                of_key + _transposed_times(of_logits, query[i]),
                of_value + _transposed_times(weights, g),
            )

        state = ops.zeros_like(query), ops.zeros_like(key), ops.zeros_like(value)
        of_queries, of_key, of_value = _repeat(count, body, state)
        return join(of_queries), _heads_first(of_key), _heads_first(of_value), None

    derived = with_gradient(lambda *tensors: forward(*tensors)[0], forward, backward, training=training)
    return derived(query, key, value, mask)


def _fused_attention(query, key, value, mask, causal):
    import torch

    query, key, value = _heads_first(query), _heads_first(key), _heads_first(value)
    if mask is None:
        outputs = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return _heads_first(outputs)
    allowed = _allowed(mask, causal, query, key)
    added = torch.where(allowed, 0.0, torch.finfo(query.dtype).min).to(query.dtype)
    outputs = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=added)
    return _heads_first(_seen(outputs, allowed))


def _is_large(query, key) -> bool:
    (batch, queries, heads, _), keys = query.shape, key.shape[1]
    if not (isinstance(queries, int) and isinstance(keys, int)):  # None, or a symbol when JAX exports
        return False
    return queries >= 4 * CHUNK and (batch if isinstance(batch, int) else 1) * heads * queries * keys >= LARGE


def _weights(query, key, mask, bias, causal):
    """softmax(Q Kᵀ + B) of scaled queries, heads first, in float32, and where a query may look, or `None`."""
    logits = _full(_times_transposed(query, key))
    if bias is not None:
        logits = logits + ops.maximum(_full(bias), LOWEST)  # a row of −∞ alone would be NaN
    allowed = _allowed(mask, causal, query, key)
    return ops.softmax(logits if allowed is None else ops.where(allowed, logits, LOWEST)), allowed


def _allowed(mask, causal, query, key):
    if not causal:
        return mask
    past = ops.arange(ops.shape(key)[2])[None] <= ops.arange(ops.shape(query)[2])[:, None]
    return past if mask is None else ops.logical_and(mask, past)


def _full(x):
    """`x` in float32, or as it is in float64."""
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))


def _seen(outputs, allowed):
    """`outputs`, 0 for queries that may look at nothing."""
    if allowed is None:
        return outputs
    return outputs * ops.cast(ops.any(allowed, axis=-1, keepdims=True), outputs.dtype)


def _of_logits(weights, of_weights, gradient_times_outputs):
    """P ∘ (G Vᵀ − D) with D = rowsum(G ∘ O), computed in float32."""
    D = ops.sum(_full(gradient_times_outputs), axis=-1, keepdims=True)
    of_logits = _full(weights) * (_full(of_weights) - D)
    return ops.cast(of_logits, weights.dtype)


def _sum_to(x, shape):
    """`x` summed over the axes along which a tensor of `shape` was repeated."""
    axes = [axis for axis, size in enumerate(shape) if size == 1 and x.shape[axis] != 1]
    return ops.sum(x, axes, keepdims=True) if axes else x


def _repeat(count, body, state):
    """`ops.fori_loop(0, count, body, state)`, of which TensorFlow must not begin one turn before the last has ended."""
    if keras.backend.backend() != "tensorflow":
        return ops.fori_loop(0, count, body, state)
    import tensorflow as tf

    def turn(i, *state):
        return i + 1, *body(i, state)

    _, *state = tf.while_loop(
        lambda i, *_: i < count, turn, (0, *state), parallel_iterations=1, maximum_iterations=count
    )
    return state


def _set(x, i, row):
    return ops.slice_update(x, (i,) + (0,) * len(row.shape), row[None])


def _heads_first(x):
    return ops.transpose(x, (0, 2, 1, 3))


def _times_transposed(a, b):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.matmul(a, b, transpose_b=True)
    return ops.matmul(a, ops.swapaxes(b, -1, -2))


def _transposed_times(a, b):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.matmul(a, b, transpose_a=True)
    return ops.matmul(ops.swapaxes(a, -1, -2), b)


def _only(gradients):
    return gradients[0] if isinstance(gradients, (tuple, list)) else gradients
