"""Attention as a NumPy loop over batch, heads and queries, in float64."""

import numpy as np


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention(query, key, value, may_look, bias=None):
    """Outputs `(batch, queries, heads, d)` and weights; `may_look` is boolean `(batch, heads, queries, keys)`."""
    batch, queries, heads, d = query.shape
    keys = key.shape[1]
    outputs, weights = np.zeros((batch, queries, heads, value.shape[-1])), np.zeros((batch, heads, queries, keys))
    for b, h, t in np.ndindex(batch, heads, queries):
        seen = np.flatnonzero(may_look[b, h, t])
        if not len(seen):
            continue
        logits = key[b, seen, h] @ query[b, t, h] / np.sqrt(d)
        if bias is not None:
            logits = logits + bias[b, h, t, seen]
        weights[b, h, t, seen] = softmax(logits)
        outputs[b, t, h] = weights[b, h, t, seen] @ value[b, seen, h]
    return outputs, weights


def multi_head(weights, num_heads, query, key, value, may_look, bias=None):
    """Multi-head attention with the weights of `kseq.layers.MultiHeadAttention` in its order."""
    Wq, bq, Wk, bk, Wv, bv, Wo, bo = weights

    def heads(x):
        return x.reshape(*x.shape[:2], num_heads, -1)

    outputs, scores = attention(heads(query @ Wq + bq), heads(key @ Wk + bk), heads(value @ Wv + bv), may_look, bias)
    return outputs.reshape(*outputs.shape[:2], -1) @ Wo + bo, scores
