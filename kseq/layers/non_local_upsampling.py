"""Non-local upsampling: a fine map asks a coarse one what stands where it is."""

from collections.abc import Sequence
from math import prod

import keras
import numpy as np
from keras import ops

from kseq.backend.attention import attention
from kseq.errors import InputError
from kseq.layers.dense import Dense
from kseq.layers.feed_forward import FeedForward
from kseq.layers.initializers import clone
from kseq.layers.layer_normalization import LayerNormalization
from kseq.layers.patch_expanding import PatchExpanding
from kseq.layers.window_attention import check_window, fitting_window, from_windows, per_known_axis, to_windows


@keras.saving.register_keras_serializable(package="kseq")
class NonLocalUpsampling(keras.layers.Layer):
    """A coarse map x on the grid of a skip map s, which is twice as fine (NLU).

        y = PatchExpanding(x) + softmax(Q Kᵀ / √d + B) V W^O,  z = y + FFN(LN(y))
        Q = s W^Q,  (K, V) = LN(x) W^KV

    for each head, in windows: the 2w × … × 2w queries of a window of s look at the w × … × w keys of the window of x
    that covers the same place. Both maps are filled up with zeros behind their ends to whole windows, and these take
    part as keys, as in W-MSA. B is read from a table by the offset i − 2 j ∈ [−2 (w − 1), 2 w − 1] between query i and
    key j along each axis, in places of s: key j covers the places 2 j and 2 j + 1.

    The reference reads another B, which `legacy` reproduces: it takes the offset ⌊i / 2⌋ − j', where j' is not the
    place of key j but half that of the 2^r j-th query. Its window also has the size of the fine map where that is
    smaller than w, not that of the coarse one.

    Source: Themyr et al. 2023 (arXiv 2212.07890); themyrl/glam, `CrossAttentionBlock` in
    mmseg/models/utils/swin_unet_v2_gtv8_cross_attention_utils.py. s is not normalised there either.

    Args:
        num_heads: heads of the attention; must divide the channels of x.
        window_size: w along each axis; an integer for the same along all. Axes of x that are shorter have one window.
        mlp_ratio: size of the hidden layer of FFN, in units of the channels of s.
        qkv_bias: whether Q, K and V have biases.
        dropout: share of values set to zero while training, behind W^O and in FFN.
        attention_dropout: share of attention weights set to zero while training.
        drop_path: stochastic depth of the attention and of FFN.
        epsilon: of the layer normalisations.
        legacy: whether to use the reference's B and windows, for its checkpoints.
        kernel_initializer: of all kernels.

    Call arguments:
        x: `(batch, *space, dim)`, with known sizes.
        skip: s, `(batch, *fine, skip_dim)` with twice the places of x along each axis.

    Output shape: that of s.

    Raises:
        InputError: if an argument is out of range, the heads do not divide `dim`, or the maps do not fit together.
    """

    def __init__(
        self,
        num_heads: int,
        window_size: int | Sequence[int] = 7,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        epsilon: float = 1e-5,
        legacy: bool = False,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_window(window_size)
        if num_heads < 1:
            raise InputError(f"num_heads {num_heads!r}: give 1 or more")
        if mlp_ratio <= 0:
            raise InputError(f"mlp_ratio {mlp_ratio!r}: give a positive number")
        shares = {"dropout": dropout, "attention_dropout": attention_dropout, "drop_path": drop_path}
        for argument, share in shares.items():
            if not 0 <= share < 1:
                raise InputError(f"{argument} {share!r}: give a share from 0 to below 1")
        self.num_heads, self.mlp_ratio, self.qkv_bias, self.epsilon = num_heads, mlp_ratio, qkv_bias, epsilon
        self.window_size = window_size if isinstance(window_size, int) else tuple(window_size)
        self.dropout, self.attention_dropout, self.drop_path = dropout, attention_dropout, drop_path
        self.legacy = legacy
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, x_shape, skip_shape):
        self._check(x_shape, skip_shape)
        dim, skip_dim = x_shape[-1], skip_shape[-1]
        self.expanding = PatchExpanding(
            2,
            output_dim=skip_dim,
            epsilon=self.epsilon,
            kernel_initializer=clone(self.kernel_initializer),
            dtype=self.dtype_policy,
            name="expanding",
        )
        self.expanding.build(x_shape)
        self.key_value_norm = self._norm(dim, "key_value_norm")
        self.query_projection = self._dense(dim, skip_dim, "query", self.qkv_bias)
        self.key_value_projection = self._dense(2 * dim, dim, "key_value", self.qkv_bias)
        self.output_projection = self._dense(skip_dim, dim, "output", True)
        self.feed_forward_norm = self._norm(skip_dim, "feed_forward_norm")
        self.feed_forward = FeedForward(
            int(skip_dim * self.mlp_ratio),
            dropout=self.dropout,
            kernel_initializer=clone(self.kernel_initializer),
            dtype=self.dtype_policy,
            name="feed_forward",
        )
        self.feed_forward.build(skip_shape)
        self.window = fitting_window(self.window_size, x_shape)
        if self.legacy:
            least = 2 * min(x_shape[1:-1])
            self.window = tuple(min(size, least) for size in per_known_axis("window_size", self.window_size, x_shape))
        self.index, rows = upsampling_index(self.window, self.legacy)
        self.table = self.add_weight(
            shape=(rows, self.num_heads),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="relative_position_bias",
            autocast=False,  # in half precision it would lose what the float32 softmax can tell apart
        )
        self.weights_drop = self._drop(self.attention_dropout, "weights_drop")
        self.drop = self._drop(self.dropout, "drop")
        one_a_sample = (None,) + (1,) * (len(x_shape) - 1)
        self.attention_path = self._drop(self.drop_path, "attention_path", one_a_sample)
        self.feed_forward_path = self._drop(self.drop_path, "feed_forward_path", one_a_sample)
        self.built = True

    def _dense(self, units: int, inputs: int, name: str, use_bias: bool) -> Dense:
        dense = Dense(
            units,
            use_bias=use_bias,
            kernel_initializer=clone(self.kernel_initializer),
            dtype=self.dtype_policy,
            name=name,
        )
        dense.build((None, inputs))
        return dense

    def _norm(self, size: int, name: str) -> LayerNormalization:
        norm = LayerNormalization(epsilon=self.epsilon, dtype=self.dtype_policy, name=name)
        norm.build((None, size))
        return norm

    def _drop(self, share: float, name: str, noise_shape=None) -> keras.layers.Dropout:
        return keras.layers.Dropout(share, noise_shape, dtype=self.dtype_policy, name=name)

    def call(self, x, skip, training=None):
        y = self._attend(self.key_value_norm(x), skip, training)
        y = self.attention_path(y, training=training) if self.drop_path else y
        y = self.expanding(x) + y
        z = self.feed_forward(self.feed_forward_norm(y), training=training)
        return y + (self.feed_forward_path(z, training=training) if self.drop_path else z)

    def _attend(self, x, skip, training):
        dim, twice = x.shape[-1], [2 * size for size in self.window]
        q = self.query_projection(to_windows(skip, twice))
        k, v = ops.split(self.key_value_projection(to_windows(x, self.window)), 2, axis=-1)
        q, k, v = (ops.reshape(t, (-1, t.shape[1], self.num_heads, dim // self.num_heads)) for t in (q, k, v))
        bias = ops.reshape(ops.take(self.table, self.index.reshape(-1), axis=0), (*self.index.shape, self.num_heads))
        bias = ops.transpose(bias, (2, 0, 1))[None]  # (1, heads, queries, keys)
        drop = (lambda w: self.weights_drop(w, training=training)) if self.attention_dropout and training else None
        y, _ = attention(q, k, v, bias=bias, drop=drop, training=training)  # (batch · windows, queries, heads, d)
        y = self.output_projection(ops.reshape(y, (-1, y.shape[1], dim)))
        y = self.drop(y, training=training) if self.dropout else y
        return from_windows(y, twice, skip.shape[1:-1])  # (batch, *fine, skip_dim)

    def compute_output_shape(self, x_shape, skip_shape):
        return skip_shape

    def _check(self, x_shape, skip_shape):
        per_known_axis("window_size", self.window_size, x_shape)  # or an error
        fine = tuple(2 * size for size in x_shape[1:-1])
        if tuple(skip_shape[1:-1]) != fine:
            raise InputError(
                f"skip of shape {tuple(skip_shape)}: is not twice as fine as x of shape {tuple(x_shape)}; give one of "
                f"{fine} places"
            )
        if x_shape[-1] % self.num_heads:
            raise InputError(
                f"num_heads {self.num_heads}: does not divide the {x_shape[-1]} channels of x; give a divisor of them"
            )

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "window_size": self.window_size,
            "mlp_ratio": self.mlp_ratio,
            "qkv_bias": self.qkv_bias,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "drop_path": self.drop_path,
            "epsilon": self.epsilon,
            "legacy": self.legacy,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def upsampling_index(window: Sequence[int], legacy: bool = False) -> tuple[np.ndarray, int]:
    """For each query and key of a window `(queries, keys)` the row of the table of B, and how many rows there are."""
    rank, w = len(window), np.reshape(window, (-1, 1, 1))
    queries = np.indices([2 * size for size in window]).reshape(rank, -1, 1)
    if legacy:
        queries, sizes = queries // 2, [2 * size - 1 for size in window]
        offsets = queries - queries[:, :: 2**rank].reshape(rank, 1, -1) + w - 1  # from 0 along each axis
    else:
        keys, sizes = np.indices(window).reshape(rank, 1, -1), [4 * size - 2 for size in window]
        offsets = queries - 2 * keys + 2 * (w - 1)
    return np.ravel_multi_index(tuple(offsets), sizes).astype("int32"), prod(sizes)
