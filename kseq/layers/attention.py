"""Multi-head attention: of a sequence to itself or to another, masked, causal, biased, cached."""

import keras
from keras import ops

from kseq.backend.attention import attention
from kseq.errors import InputError
from kseq.layers.dense import Dense
from kseq.layers.initializers import clone


@keras.saving.register_keras_serializable(package="kseq")
class MultiHeadAttention(keras.layers.Layer):
    """MultiHead(Q, K, V) = [head_1; …; head_h] W^O,  head_i = softmax(Q_i K_iᵀ / √d + B) V_i,

    with Q_i = query W_i^Q + b_i^Q, K_i = key W_i^K + b_i^K, V_i = value W_i^V + b_i^V for each head i, d = `head_dim`
    and an optional additive bias B. It computes what `keras.layers.MultiHeadAttention` does, with kernels of the shape
    `(embed_dim, num_heads * head_dim)`, products of rank 2 and the fastest attention of each backend; unlike Keras's it
    can add a bias (as Shaw et al. 2018 and T5 do), keep keys and values for step-by-step decoding, and its heads answer
    0 where there is nothing to look at.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1 and section 3.2.2.

    Args:
        num_heads: h.
        head_dim: d; `None` is the size of the query divided by `num_heads`.
        output_dim: size of the output; `None` is that of the query.
        dropout: share of the attention weights set to zero while training.
        use_bias: whether the four products have a bias b.
        kernel_initializer: of the four kernels.
        bias_initializer: of the four biases.

    Call arguments:
        query: `(batch, queries, dim)`.
        value: `(batch, keys, value_dim)`; `None` is the query: self-attention.
        key: `(batch, keys, key_dim)`; `None` is the value.
        attention_mask: boolean `(queries, keys)`, `(batch, queries, keys)` or `(batch, heads, queries, keys)`, true
            where a query may look.
        attention_bias: B, numbers of the shape `(queries, keys)`, `(heads, queries, keys)` or
            `(batch, heads, queries, keys)`, sizes of 1 allowed.
        use_causal_mask: whether query t may look at keys up to t only.
        return_attention_scores: whether to return `(output, weights)`, the weights softmax(…)
            `(batch, heads, queries, keys)` as they are before dropout.
        cache: keys and values of earlier steps, `(batch, 2, length, heads, head_dim)` as `make_cache` makes it; the
            layer then returns `(output, cache)`.
        cache_update_index: where in the cache the keys and values of this call are written; query t of the call may
            look at all up to `cache_update_index + t`. A tensor must not point behind the cache, which cannot be
            checked. `None` uses the cache as it is.

    Masking: a key is looked at if the masks of key and value (of the query in self-attention) allow it. What stands at
    a masked key, NaN included, reaches no output, and if it is of another sequence no gradient. Masked queries are
    computed like the others, and the output has the mask of the query.

    Output shape: `(batch, queries, output_dim)`.

    Raises:
        InputError: if an argument is out of range, the heads do not divide the query, or a mask or bias has a shape
            that does not fit.
    """

    def __init__(
        self,
        num_heads: int,
        head_dim: int | None = None,
        *,
        output_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        for argument, size in (("num_heads", num_heads), ("head_dim", head_dim), ("output_dim", output_dim)):
            if size is not None and size < 1:
                raise InputError(f"{argument} {size!r}: give 1 or more")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout {dropout!r}: give a share from 0 to below 1")
        self.num_heads, self.head_dim, self.output_dim = num_heads, head_dim, output_dim
        self.dropout, self.use_bias = dropout, use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.supports_masking = True
        self.autocast = False  # a bias in half precision would lose what the float32 softmax can tell apart

    def build(self, query_shape, value_shape=None, key_shape=None):
        value_shape = value_shape or query_shape
        key_shape = key_shape or value_shape
        head_dim = self._head_dim(query_shape[-1])
        inner = self.num_heads * head_dim
        self.query_projection = self._dense(inner, query_shape[-1], "query")
        self.key_projection = self._dense(inner, key_shape[-1], "key")
        self.value_projection = self._dense(inner, value_shape[-1], "value")
        self.output_projection = self._dense(self.output_dim or query_shape[-1], inner, "output")
        self.drop = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy, name="drop")
        self.built = True

    def _dense(self, units: int, inputs: int, name: str) -> Dense:
        dense = Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=clone(self.kernel_initializer),
            bias_initializer=clone(self.bias_initializer),
            dtype=self.dtype_policy,
            name=name,
        )
        dense.build((None, inputs))
        return dense

    def _head_dim(self, query_dim: int) -> int:
        if self.head_dim is not None:
            return self.head_dim
        if query_dim % self.num_heads:
            raise InputError(
                f"num_heads {self.num_heads}: does not divide the query's size of {query_dim}; give a divisor of it, "
                "or head_dim"
            )
        return query_dim // self.num_heads

    def make_cache(self, batch_size: int, length: int):
        """An empty cache for `length` steps of inference: zeros `(batch_size, 2, length, heads, head_dim)`."""
        head_dim = self.query_projection.units // self.num_heads
        return ops.zeros((batch_size, 2, length, self.num_heads, head_dim), self.compute_dtype)

    def project(self, value, key=None):
        """Keys and values of the heads, as a cache `(batch, 2, keys, heads, head_dim)` to be used as it is."""
        key = self._heads(self.key_projection(value if key is None else key))
        return ops.stack([key, self._heads(self.value_projection(value))], axis=1)

    def call(
        self,
        query,
        value=None,
        key=None,
        *,
        mask=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
        attention_mask=None,
        attention_bias=None,
        use_causal_mask=False,
        return_attention_scores=False,
        cache=None,
        cache_update_index=None,
        training=None,
    ):
        if value is None and cache is None and value_mask is None:
            value_mask = mask if query_mask is None else query_mask  # Keras names the mask of a lone argument `mask`
        value = query if value is None else value
        key = value if key is None else key
        key_mask = self._key_mask(key_mask, value_mask, key if cache is None else cache[:, 0])
        if key_mask is not None and cache is None:
            same = key is value  # as it mostly is; then it is masked once
            value = ops.where(key_mask[..., None], value, 0)
            key = value if same else ops.where(key_mask[..., None], key, 0)

        q = self._heads(self.query_projection(query))  # (batch, queries, heads, head_dim)
        if cache is None or cache_update_index is not None:
            k, v = self._heads(self.key_projection(key)), self._heads(self.value_projection(value))
        if cache is not None:
            if cache_update_index is not None:
                self._check_room(cache, q, cache_update_index)
                start = (0, 0, cache_update_index, 0, 0)
                cache = ops.slice_update(cache, start, ops.cast(ops.stack([k, v], axis=1), cache.dtype))
            k, v = ops.cast(cache[:, 0], q.dtype), ops.cast(cache[:, 1], q.dtype)
            if key_mask is not None:
                k, v = (ops.where(key_mask[..., None, None], x, 0) for x in (k, v))

        drop = (lambda weights: self.drop(weights, training=training)) if self.dropout and training else None
        outputs, weights = attention(
            q,
            k,
            v,
            mask=self._mask(q, k, key_mask, attention_mask, cache_update_index),
            bias=self._per_head("attention_bias", attention_bias, q, k),
            causal=use_causal_mask and cache_update_index is None,
            drop=drop,
            return_weights=return_attention_scores,
            training=training,
        )
        outputs = ops.reshape(outputs, (-1, ops.shape(outputs)[1], self.value_projection.units))
        outputs = self.output_projection(outputs)  # (batch, queries, output_dim)
        more = [x for x in (weights if return_attention_scores else None, cache) if x is not None]
        return (outputs, *more) if more else outputs

    def _check_room(self, cache, q, index):
        """A tensor as the index is trusted: whether it fits is known only when it is computed."""
        length, queries = cache.shape[2], q.shape[1]
        if isinstance(index, int) and None not in (length, queries) and not 0 <= index <= length - queries:
            raise InputError(
                f"cache_update_index {index}: {queries} tokens from there do not fit a cache of {length}; give an "
                f"index from 0 to {length - queries}, or make_cache a longer one"
            )

    def _heads(self, x):
        # With two unknown sizes tf2onnx writes a wrong graph, so the batch is -1.
        return ops.reshape(x, (-1, ops.shape(x)[1], self.num_heads, x.shape[-1] // self.num_heads))

    def _key_mask(self, key_mask, value_mask, key):
        """Which keys may be looked at, `(batch, keys)` or `None` for all."""
        masks = [ops.cast(mask, "bool") for mask in (key_mask, value_mask) if mask is not None]
        for mask in masks:
            if len(mask.shape) != 2 or any(map(_differ, mask.shape, key.shape)):
                raise InputError(f"mask of the keys: shape {tuple(mask.shape)}; give {(*key.shape[:2],)}")
        return ops.logical_and(*masks) if len(masks) == 2 else next(iter(masks), None)

    def _mask(self, q, k, key_mask, attention_mask, cache_update_index):
        """All that says where a query may look, but for plain causality: `(batch, heads, queries, keys)` or `None`."""
        masks = []
        if key_mask is not None:
            masks.append(key_mask[:, None, None, :])
        if attention_mask is not None:
            if len(attention_mask.shape) == 3:
                attention_mask = attention_mask[:, None]  # (batch, 1, queries, keys)
            masks.append(self._per_head("attention_mask", attention_mask, q, k))
        if cache_update_index is not None:
            queries, keys = ops.arange(ops.shape(q)[1]), ops.arange(ops.shape(k)[1])
            masks.append((keys[None] <= queries[:, None] + cache_update_index)[None, None])
        if not masks:
            return None
        mask, *others = (ops.cast(mask, "bool") for mask in masks)
        for other in others:
            mask = ops.logical_and(mask, other)
        return mask

    def _per_head(self, argument: str, x, q, k):
        """`x`, of two to four axes, as `(batch, heads, queries, keys)`, sizes of 1 allowed."""
        if x is None:
            return None
        x = ops.convert_to_tensor(x)
        full = (q.shape[0], self.num_heads, q.shape[1], k.shape[1])
        if not 2 <= len(x.shape) <= 4 or any(
            size != 1 and _differ(size, wanted) for size, wanted in zip(x.shape[::-1], full[::-1], strict=False)
        ):
            raise InputError(
                f"{argument}: shape {tuple(x.shape)} for {full[2]} queries, {full[3]} keys and {self.num_heads} heads; "
                f"give {full[2:]} or {('batch', *full[1:])}, where any size may be 1"
            )
        for _ in range(4 - len(x.shape)):
            x = x[None]
        return x

    def compute_output_spec(
        self, query, value=None, key=None, *, return_attention_scores=False, cache=None, **arguments
    ):
        outputs = keras.KerasTensor(self.compute_output_shape(query.shape), dtype=self.compute_dtype)
        more = []
        if return_attention_scores:
            keys = (query if value is None else value).shape[1] if cache is None else cache.shape[2]
            more.append(
                keras.KerasTensor((query.shape[0], self.num_heads, query.shape[1], keys), dtype=self.compute_dtype)
            )
        if cache is not None:
            more.append(keras.KerasTensor(cache.shape, dtype=cache.dtype))
        return (outputs, *more) if more else outputs

    def compute_output_shape(self, query_shape, value_shape=None, key_shape=None):
        return (*query_shape[:-1], self.output_dim or query_shape[-1])

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "output_dim": self.output_dim,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


def _differ(size: int | None, other: int | None) -> bool:
    return size is not None and other is not None and size != other
