"""Multi-head attention within the windows of a map, shifted or not, with global tokens or without."""

from collections.abc import Sequence
from math import prod

import keras
import numpy as np
from keras import ops

from kseq.errors import InputError
from kseq.layers.convolution import per_axis
from kseq.layers.dense import Dense
from kseq.layers.initializers import clone

LOWEST = -1e30  # the logit of a pair that is masked: its weight is 0 exactly, and no sum is infinite


@keras.saving.register_keras_serializable(package="kseq")
class WindowAttention(keras.layers.Layer):
    """W-MSA and SW-MSA: every token looks at the tokens of its window,

        z = [head_1; …; head_h] W^O + b^O,   head_i = softmax(Q_i K_iᵀ / √d + B_i) V_i,   [Q; K; V] = x W + b

    with d = dim / h and B_i(p, q) = T_i(p − q), a learned number for each head and each offset of two positions of a
    window: for a window of w_1 × … × w_r the table T has Π (2 w_a − 1) rows, the offset along the last axis changing
    fastest. The cost grows with the number of windows, that is linearly with the map.

    With `shift_size` s the map is rolled by −s before it is cut into windows and back afterwards, so that the windows
    lie across the borders of those without a shift. Where a window then holds both ends of the map, a token looks at
    those of its own end only.

    A map that the windows do not fill is filled up with zeros behind its end (as timm and the Swin backbones for
    detection and segmentation do). The zeros take part as keys and values, which are the biases of these; checkpoints
    are trained so. There are none if the sizes are multiples of the window.

    With `global_tokens` g, each window has g tokens of its own in front, z_k = [g_k; x_k], which share W and W^O: they
    look at all of their window and are looked at by all of it, without bias or mask.

    Source: Liu et al. 2021 (arXiv 2103.14030), section 3.2 and equation 4; global tokens: Themyr et al. 2023 (arXiv
    2212.07890), W-MSA. Reference implementations: microsoft/Swin-Transformer; timm, `swin_transformer.py`;
    themyrl/glam, `swin_transformer_gtv8.py`. They mask with −100; here masked weights are 0 exactly.

    Args:
        window_size: w, of each axis, or one number for all.
        num_heads: h; must divide `dim`.
        shift_size: s, of each axis, or one number for all; below the window.
        global_tokens: g, tokens of each window besides those of the map.
        qkv_bias: whether there is a b.
        relative_position_bias: whether there is a B.
        attention_dropout: share of the attention weights set to zero while training.
        legacy: whether the map is rolled before it is filled up, with the mask for the other order, as in timm. Then
            tokens of both ends of a map that the windows do not fill look at each other.
        kernel_initializer: of W and W^O.
        bias_initializer: of b and b^O.

    Call arguments:
        inputs: a map `(batch, *space, dim)` with one to three axes of space, of known sizes.
        tokens: with `global_tokens`, `(batch, windows, g, dim)`, the windows in row-major order.

    Output shape: that of `inputs`; with `global_tokens` a tuple of that and the shape of `tokens`.

    Raises:
        InputError: if an argument is out of range or does not fit the map.
    """

    def __init__(
        self,
        window_size: int | Sequence[int],
        num_heads: int,
        *,
        shift_size: int | Sequence[int] = 0,
        global_tokens: int = 0,
        qkv_bias: bool = True,
        relative_position_bias: bool = True,
        attention_dropout: float = 0.0,
        legacy: bool = False,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_window(window_size)
        if num_heads < 1:
            raise InputError(f"num_heads {num_heads!r}: give 1 or more")
        if global_tokens < 0:
            raise InputError(f"global_tokens {global_tokens!r}: give 0 or more")
        if not 0 <= attention_dropout < 1:
            raise InputError(f"attention_dropout {attention_dropout!r}: give a share from 0 to below 1")
        self.window_size = window_size if isinstance(window_size, int) else tuple(window_size)
        self.shift_size = shift_size if isinstance(shift_size, int) else tuple(shift_size)
        self.num_heads, self.global_tokens, self.qkv_bias = num_heads, global_tokens, qkv_bias
        self.relative_position_bias, self.attention_dropout = relative_position_bias, attention_dropout
        self.legacy = legacy
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, inputs_shape, tokens_shape=None):
        self.window = per_known_axis("window_size", self.window_size, inputs_shape)
        self.shift = per_known_axis("shift_size", self.shift_size, inputs_shape)
        if any(not 0 <= s < w for s, w in zip(self.shift, self.window, strict=True)):
            raise InputError(f"shift_size {self.shift_size!r}: give 0 or more, and less than the window {self.window}")
        *space, dim = inputs_shape[1:]
        if dim % self.num_heads:
            raise InputError(f"num_heads {self.num_heads}: does not divide the {dim} channels; give a divisor of them")
        self.grid = window_grid(space, self.window)
        expected = (prod(self.grid), self.global_tokens, dim)
        if self.global_tokens and (tokens_shape is None or tuple(tokens_shape[1:]) != expected):
            raise InputError(
                f"tokens of shape {None if tokens_shape is None else tuple(tokens_shape)}: global_tokens "
                f"{self.global_tokens} and a map of {tuple(space)} need (batch, {', '.join(map(str, expected))})"
            )
        self.qkv = self._dense(3 * dim, dim, self.qkv_bias, "qkv")
        self.output_projection = self._dense(dim, dim, True, "output")
        if self.relative_position_bias:
            self.table = self.add_weight(
                shape=(prod(2 * w - 1 for w in self.window), self.num_heads),
                initializer=keras.initializers.TruncatedNormal(stddev=0.02),
                name="relative_position_bias",
                autocast=False,  # in half precision it would lose what the float32 softmax can tell apart
            )
            self.index = relative_position_index(self.window)
        self.mask = shift_mask(self.grid, self.window, self.shift)
        self.drop = keras.layers.Dropout(self.attention_dropout, dtype=self.dtype_policy, name="drop")
        self.built = True

    def _dense(self, units: int, inputs: int, use_bias: bool, name: str) -> Dense:
        dense = Dense(
            units,
            use_bias=use_bias,
            kernel_initializer=clone(self.kernel_initializer),
            bias_initializer=clone(self.bias_initializer),
            dtype=self.dtype_policy,
            name=name,
        )
        dense.build((None, inputs))
        return dense

    def call(self, inputs, tokens=None, training=None):
        *space, dim = inputs.shape[1:]
        axes = tuple(range(1, len(space) + 1))
        x = inputs if self.legacy else fill_windows(inputs, self.window)
        rolled = x.shape[1:-1]
        if any(self.shift):
            x = ops.roll(x, tuple(-s for s in self.shift), axes)
        x = to_windows(x, self.window)  # (batch · windows, tokens, dim)
        if self.global_tokens:
            x = ops.concatenate([ops.reshape(tokens, (-1, self.global_tokens, dim)), x], axis=1)

        length, head_dim = x.shape[1], dim // self.num_heads
        x = ops.reshape(self.qkv(x), (-1, length, 3, self.num_heads, head_dim))
        query, key, value = ops.unstack(ops.transpose(x, (2, 0, 3, 1, 4)))  # (batch · windows, heads, tokens, d) each
        drop = (lambda weights: self.drop(weights, training=training)) if self.attention_dropout and training else None
        x = attend(query, key, value, self._bias(), drop)
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, length, dim))  # (batch · windows, tokens, dim)
        x = self.output_projection(x)

        if self.global_tokens:
            tokens = ops.reshape(x[:, : self.global_tokens], (-1, prod(self.grid), self.global_tokens, dim))
            x = x[:, self.global_tokens :]
        x = from_windows(x, self.window, rolled)
        if any(self.shift):
            x = ops.roll(x, self.shift, axes)
        x = cut(x, space)  # (batch, *space, dim)
        return (x, tokens) if self.global_tokens else x

    def _bias(self):
        """B and the mask, `(1 or windows, heads, tokens, tokens)`, or `None`."""
        bias = None
        if self.relative_position_bias:
            length = prod(self.window)
            bias = ops.reshape(ops.take(self.table, self.index, axis=0), (length, length, self.num_heads))
            bias = ops.transpose(bias, (2, 0, 1))[None]  # (1, heads, tokens, tokens)
        if self.mask is not None:
            mask = ops.convert_to_tensor(self.mask[:, None])  # (windows, 1, tokens, tokens)
            bias = ops.repeat(mask, self.num_heads, axis=1) if bias is None else bias + mask
        if bias is not None and self.global_tokens:
            bias = ops.pad(bias, [(0, 0), (0, 0), (self.global_tokens, 0), (self.global_tokens, 0)])
        return bias

    def compute_output_shape(self, inputs_shape, tokens_shape=None):
        return (inputs_shape, tokens_shape) if self.global_tokens else inputs_shape

    def get_config(self):
        return super().get_config() | {
            "window_size": self.window_size,
            "num_heads": self.num_heads,
            "shift_size": self.shift_size,
            "global_tokens": self.global_tokens,
            "qkv_bias": self.qkv_bias,
            "relative_position_bias": self.relative_position_bias,
            "attention_dropout": self.attention_dropout,
            "legacy": self.legacy,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


def attend(query, key, value, bias, drop=None):
    """softmax(Q Kᵀ / √d + B) V for each window and head, the softmax in float32.

    Plain products: PyTorch's fused kernel and gradients of our own were no faster with a bias on any backend.

    Args:
        query: `(batch · windows, heads, tokens, d)`, the windows of an image one after the other.
        key: the same.
        value: the same.
        bias: B, float32 `(windows, heads, tokens, tokens)`, or with a first axis of 1 for all windows; or `None`.
        drop: a function that drops some of the weights, or `None`.

    Returns:
        `(batch · windows, heads, tokens, d)`.
    """
    _, heads, tokens, size = query.shape
    logits = ops.matmul(query * size**-0.5, ops.swapaxes(key, -1, -2))
    logits = ops.cast(logits, keras.backend.result_type(logits.dtype, "float32"))
    if bias is not None and bias.shape[0] > 1:
        logits = ops.reshape(logits, (-1, *bias.shape)) + bias  # (batch, windows, heads, tokens, tokens)
        logits = ops.reshape(logits, (-1, heads, tokens, tokens))
    elif bias is not None:
        logits = logits + bias
    weights = ops.cast(ops.softmax(logits), value.dtype)
    return ops.matmul(weights if drop is None else drop(weights), value)


def check_window(window_size: int | Sequence[int]) -> None:
    """Raise InputError if a window has no size."""
    sizes = (window_size,) if isinstance(window_size, int) else tuple(window_size)
    if not sizes or any(size < 1 for size in sizes):
        raise InputError(f"window_size {window_size!r}: give 1 or more along each axis")


def per_known_axis(argument: str, value: int | Sequence[int], input_shape) -> tuple[int, ...]:
    """The value of an argument for each axis of space of a map `(batch, *space, dim)`.

    Raises:
        InputError: if the numbers are not as many as the axes, or the size of an axis is unknown.
    """
    values = per_axis(argument, value, input_shape)
    if any(size is None for size in input_shape[1:]):
        raise InputError(f"input of shape {tuple(input_shape)}: give a known size to every axis but the batch")
    return values


def window_grid(space: Sequence[int], window: Sequence[int]) -> tuple[int, ...]:
    """The number of windows along each axis of a map, the last one perhaps filled up."""
    return tuple(-(-size // w) for size, w in zip(space, window, strict=True))


def fitting_window(window_size: int | Sequence[int], input_shape) -> tuple[int, ...]:
    """The window along each axis of a map `(batch, *space, dim)`: no longer than the axis."""
    window = per_known_axis("window_size", window_size, input_shape)
    return tuple(min(w, size) for w, size in zip(window, input_shape[1:-1], strict=True))


def fill_windows(x, window: Sequence[int]):
    """The map `(batch, *space, dim)` with zeros behind its end, so that its axes are multiples of the window."""
    space = x.shape[1:-1]
    missing = [n * w - size for n, w, size in zip(window_grid(space, window), window, space, strict=True)]
    return ops.pad(x, [(0, 0), *((0, more) for more in missing), (0, 0)]) if any(missing) else x


def to_windows(x, window: Sequence[int]):
    """The map `(batch, *space, dim)`, filled up, as `(batch · windows, tokens, dim)`, both in row-major order."""
    x = fill_windows(x, window)
    *space, dim = x.shape[1:]
    split = [size for n, w in zip(window_grid(space, window), window, strict=True) for size in (n, w)]
    last = len(split) + 1
    x = ops.reshape(x, (-1, *split, dim))  # (batch, n_1, w_1, n_2, w_2, …, dim)
    x = ops.transpose(x, (0, *range(1, last, 2), *range(2, last, 2), last))  # (batch, n_1, n_2, …, w_1, w_2, …, dim)
    return ops.reshape(x, (-1, prod(window), dim))


def from_windows(x, window: Sequence[int], space: Sequence[int]):
    """The inverse of `to_windows` for a map of this space: `(batch, *space, dim)`, what was filled up cut off."""
    grid, rank, dim = window_grid(space, window), len(window), x.shape[-1]
    x = ops.reshape(x, (-1, *grid, *window, dim))  # (batch, n_1, n_2, …, w_1, w_2, …, dim)
    pairs = [axis for a in range(1, rank + 1) for axis in (a, rank + a)]
    x = ops.transpose(x, (0, *pairs, 2 * rank + 1))  # (batch, n_1, w_1, n_2, w_2, …, dim)
    x = ops.reshape(x, (-1, *(n * w for n, w in zip(grid, window, strict=True)), dim))
    return cut(x, space)


def cut(x, space: Sequence[int]):
    """The first `space` places of the map along each axis."""
    return x if x.shape[1:-1] == tuple(space) else x[(slice(None), *(slice(size) for size in space))]


def relative_position_index(window: Sequence[int]) -> np.ndarray:
    """The row of the table T for each pair of positions of a window, `(tokens · tokens,)`."""
    places = np.indices(window).reshape(len(window), -1)
    offsets = places[:, :, None] - places[:, None, :] + np.array(window)[:, None, None] - 1  # from 0 along each axis
    return np.ravel_multi_index(tuple(offsets), tuple(2 * w - 1 for w in window)).reshape(-1).astype("int32")


def shift_mask(grid: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> np.ndarray | None:
    """0 for two tokens of a shifted window that are neighbours in the map too, else `LOWEST`; `None` without a shift.

    Returns:
        `(windows, tokens, tokens)`, float32.
    """
    if not any(shift):
        return None
    # Behind the roll, the last s of n · w rows were the first ones of the map: a part of their own.
    wrapped = np.meshgrid(
        *(np.arange(n * w) >= n * w - s for n, w, s in zip(grid, window, shift, strict=True)), indexing="ij"
    )
    part = sum(where.astype("int32") << axis for axis, where in enumerate(wrapped))
    rank = len(grid)
    part = part.reshape([size for pair in zip(grid, window, strict=True) for size in pair])
    part = part.transpose(*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)).reshape(prod(grid), prod(window))
    return np.where(part[:, :, None] == part[:, None, :], 0, LOWEST).astype("float32")
