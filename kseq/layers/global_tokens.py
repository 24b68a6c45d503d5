"""Tokens of the windows of a map, by which each window learns of all others."""

from collections.abc import Sequence
from math import prod

import keras
from keras import ops

from kseq.errors import InputError
from kseq.layers.attention import MultiHeadAttention
from kseq.layers.initializers import clone
from kseq.layers.window_attention import check_window, fitting_window, window_grid


@keras.saving.register_keras_serializable(package="kseq")
class GlobalTokens(keras.layers.Layer):
    """g learned tokens of `dim` channels, the same for every window of a map.

    Source: Themyr et al. 2023 (arXiv 2212.07890); themyrl/glam, `swin_transformer_gtv8.py`.

    Args:
        num_tokens: g.
        window_size: of the blocks that use them, for each axis, or one number for all; no longer than the map.
        initializer: of the tokens; N(0, 1) as in the reference.

    Input shape: `(batch, *space, dim)`, a map whose values are of no matter.

    Output shape: `(batch, windows, g, dim)`.

    Raises:
        InputError: if an argument is out of range or does not fit the map.
    """

    def __init__(self, num_tokens: int, window_size: int | Sequence[int], *, initializer=None, **kwargs):
        super().__init__(**kwargs)
        if num_tokens < 1:
            raise InputError(f"num_tokens {num_tokens!r}: give 1 or more")
        check_window(window_size)
        self.num_tokens = num_tokens
        self.window_size = window_size if isinstance(window_size, int) else tuple(window_size)
        self.initializer = keras.initializers.get(initializer or keras.initializers.RandomNormal(stddev=1.0))

    def build(self, input_shape):
        fitting_window(self.window_size, input_shape)  # or an error
        self.tokens = self.add_weight(
            shape=(self.num_tokens, input_shape[-1]), initializer=self.initializer, name="tokens"
        )
        self.built = True

    def call(self, inputs):
        _, *shape = self.compute_output_shape(inputs.shape)
        return ops.broadcast_to(ops.cast(self.tokens, self.compute_dtype), (ops.shape(inputs)[0], *shape))

    def compute_output_shape(self, input_shape):
        window = fitting_window(self.window_size, input_shape)
        return input_shape[0], prod(window_grid(input_shape[1:-1], window)), self.num_tokens, input_shape[-1]

    def get_config(self):
        return super().get_config() | {
            "num_tokens": self.num_tokens,
            "window_size": self.window_size,
            "initializer": keras.initializers.serialize(self.initializer),
        }


@keras.saving.register_keras_serializable(package="kseq")
class GlobalPositions(keras.layers.Layer):
    """Add a learned vector to each global token of a map: g + p for its place among all, windows in row-major order.

    A table longer than needed is used in its middle, as in the reference, so that one table serves maps of several
    sizes: N tokens take the N rows from rows // 2 − N // 2 on.

    Source: Themyr et al. 2023 (arXiv 2212.07890); themyrl/glam, `swin_transformer_gtv8.py`, in which the table of stage
    i has (45 g // 2^i)² rows whatever the map.

    Args:
        rows: of the table; `None` is as many as there are tokens.
        initializer: of the table.

    Input shape: `(batch, windows, g, dim)`.

    Output shape: the same.

    Raises:
        InputError: if there are more tokens than rows.
    """

    def __init__(self, rows: int | None = None, *, initializer=None, **kwargs):
        super().__init__(**kwargs)
        if rows is not None and rows < 1:
            raise InputError(f"rows {rows!r}: give 1 or more, or None")
        self.rows = rows
        self.initializer = keras.initializers.get(initializer or keras.initializers.TruncatedNormal(stddev=0.02))

    def build(self, input_shape):
        _, windows, tokens, dim = input_shape
        rows = self.rows or windows * tokens
        if windows * tokens > rows:
            raise InputError(
                f"rows {rows}: {windows} windows of {tokens} global tokens need {windows * tokens}; give that many or "
                "more, rows=None, or a smaller map"
            )
        self.table = self.add_weight(shape=(rows, dim), initializer=self.initializer, name="table")
        self.built = True

    def call(self, tokens):
        _, windows, size, dim = tokens.shape
        count = windows * size
        first = self.table.shape[0] // 2 - count // 2
        return tokens + ops.reshape(ops.cast(self.table, tokens.dtype)[first : first + count], (windows, size, dim))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {
            "rows": self.rows,
            "initializer": keras.initializers.serialize(self.initializer),
        }


@keras.saving.register_keras_serializable(package="kseq")
class GlobalAttention(keras.layers.Layer):
    """G-MSA: each global token looks at those of all windows, g' = MultiHead(g), without normalisation or residual.

    Source: Themyr et al. 2023 (arXiv 2212.07890), G-MSA; themyrl/glam, `swin_transformer_gtv8.py`.

    Args:
        num_heads: heads; they must divide the channels.
        use_bias: whether the products that make query, key and value have a bias.
        dropout: share of the attention weights set to zero while training.
        kernel_initializer: of the products.
        bias_initializer: of their biases.

    Input shape: `(batch, windows, g, dim)`.

    Output shape: the same.

    Raises:
        InputError: if an argument is out of range or the heads do not divide the channels.
    """

    def __init__(
        self,
        num_heads: int,
        *,
        use_bias: bool = True,
        dropout: float = 0.0,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.attention = MultiHeadAttention(
            num_heads,
            dropout=dropout,
            use_bias=use_bias,
            kernel_initializer=clone(keras.initializers.get(kernel_initializer)),
            bias_initializer=clone(keras.initializers.get(bias_initializer)),
            dtype=self.dtype_policy,
            name="attention",
        )

    def build(self, input_shape):
        self.attention.build((input_shape[0], None, input_shape[-1]))
        self.built = True

    def call(self, tokens, training=None):
        _, windows, size, dim = tokens.shape
        x = ops.reshape(tokens, (-1, windows * size, dim))
        return ops.reshape(self.attention(x, training=training), (-1, windows, size, dim))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        inner = self.attention.get_config()
        names = ("num_heads", "use_bias", "dropout", "kernel_initializer", "bias_initializer")
        return super().get_config() | {name: inner[name] for name in names}
