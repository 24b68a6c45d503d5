"""Scaled dot-product attention."""

from keras import ops

LOWEST = -1e30  # the logit of a masked key: finite, so that a row without a valid key is no NaN


def attention(query, key, value, *, mask=None, bias=None, causal=False, drop=None, return_weights=False):
    """softmax(Q Kᵀ / √d + B) V for each head, and the weights, softmax(…).

    The softmax is computed in float32. A query that may look at nothing has weights and output 0.

    Args:
        query: `(batch, queries, heads, d)`.
        key: `(batch, keys, heads, d)`.
        value: `(batch, keys, heads, value_dim)`.
        mask: boolean, broadcastable to `(batch, heads, queries, keys)`, true where a query may look.
        bias: B, broadcastable to the same.
        causal: whether query t may look at keys up to t only.
        drop: a function that drops some of the weights, or `None`.
        return_weights: whether the weights are wanted.

    Returns:
        `(batch, queries, heads, value_dim)`, and `(batch, heads, queries, keys)` or `None`.
    """
    outputs, weights = plain_attention(query, key, value, mask=mask, bias=bias, causal=causal, drop=drop)
    return outputs, weights if return_weights else None


def plain_attention(query, key, value, *, mask=None, bias=None, causal=False, drop=None):
    """The portable form of `attention`, which always has the weights."""
    query = ops.transpose(query * query.shape[-1] ** -0.5, (0, 2, 1, 3))  # (batch, heads, queries, d)
    key = ops.transpose(key, (0, 2, 3, 1))  # (batch, heads, d, keys)
    value = ops.transpose(value, (0, 2, 1, 3))  # (batch, heads, keys, value_dim)
    logits = ops.cast(ops.matmul(query, key), "float32")
    if bias is not None:
        logits = logits + ops.cast(bias, "float32")
    if causal:
        queries, keys = ops.arange(ops.shape(logits)[2]), ops.arange(ops.shape(logits)[3])
        past = keys[None] <= queries[:, None]
        mask = past if mask is None else ops.logical_and(mask, past)
    if mask is not None:
        logits = ops.where(mask, logits, LOWEST)
    weights = ops.softmax(logits)
    if mask is not None:
        weights = weights * ops.cast(ops.any(mask, axis=-1, keepdims=True), "float32")
    weights = ops.cast(weights, value.dtype)
    outputs = ops.matmul(weights if drop is None else drop(weights), value)
    return ops.transpose(outputs, (0, 2, 1, 3)), weights
