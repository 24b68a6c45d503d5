"""Multi-head cross-attention gate of a skip connection (the MHCA of the U-Transformer)."""

from math import prod

import keras
from keras import ops

from kseq.errors import InputError
from kseq.layers.attention import MultiHeadAttention
from kseq.layers.convolution import Convolution
from kseq.layers.linear_resizing import LinearResizing
from kseq.layers.normalization import normalization
from kseq.layers.pooling import MaxPooling
from kseq.layers.position_encoding import SinusoidalPositionEncoding


@keras.saving.register_keras_serializable(package="kseq")
class CrossAttentionGate(keras.layers.Layer):
    """Z = up(σ(BN(MultiHead(Q, K, V)))),  Q = W^Q Y' , K = W^K Y', V = W^V S',  by which the skip S is multiplied.

    The map Y of the level below says where to look, the skip S what is seen there:

        Y' = ReLU(BN(W_Y Y)) + P,   S' = ReLU(BN(W_S pool(S))) + P

    with the sinusoidal code P of the place along each axis, `pool` the maximum that brings S to the grid of Y, and `up`
    linear interpolation back to the grid of S. The output product W^O of the attention is the 1 × 1 convolution in
    front of BN.

    Attention weighs all pairs of places of the grid of Y: their number, and the time, grow with the square of its size.
    Memory does not where `kseq.backend.attention` keeps no weights (see there). With `max_positions` a larger grid is
    first pooled to at most that many places, halving its longest axis again and again, which is not in the paper.

    Source: Petit et al. 2021 (arXiv 2103.06104), section 2.2; see `kseq.models.u_transformer` for what is uncertain.

    Args:
        num_heads: heads of the attention; must divide the channels of S.
        max_positions: places among which attention is computed at most; `None` for all of Y.
        normalization: BN: "batch", "group" with 8 groups, "instance" or `None`.

    Call arguments:
        inputs: `[S, Y]`, `(batch, *space, channels)` and `(batch, *coarser space, deep channels)`; each axis of S a
            multiple of that of Y.
        return_attention_scores: whether to return `(Z, weights)`, the weights `(batch, heads, places, places)`.

    Output shape: that of S, numbers between 0 and 1.

    Raises:
        InputError: if an argument is out of range, the heads do not divide the channels, or the grids do not fit.
    """

    def __init__(
        self, num_heads: int = 8, *, max_positions: int | None = None, normalization: str | None = "batch", **kwargs
    ):
        super().__init__(**kwargs)
        if max_positions is not None and max_positions < 1:
            raise InputError(f"max_positions {max_positions!r}: give 1 or more, or None")
        self.num_heads, self.max_positions, self.normalization = num_heads, max_positions, normalization

    def build(self, input_shape):
        skip, deep = input_shape
        grid, channels = self.attention_grid(skip, deep), skip[-1]
        map_shape = (skip[0], *grid, channels)
        for name, shape in (("skip", skip), ("deep", deep)):
            factor = tuple(n // m for n, m in zip(shape[1:-1], grid, strict=True))
            projection = Convolution(
                channels, 1, use_bias=False, kernel_initializer="he_normal", dtype=self.dtype_policy, name=name
            )
            projection.build((skip[0], *grid, shape[-1]))
            pooling = MaxPooling(factor, dtype=self.dtype_policy, name=f"{name}_pooling") if max(factor) > 1 else None
            setattr(self, f"{name}_pooling", pooling)
            setattr(self, f"{name}_projection", projection)
            setattr(self, f"{name}_norm", self._norm(f"{name}_norm", map_shape))
        self.positions = SinusoidalPositionEncoding(dtype=self.dtype_policy, name="positions")
        self.positions.build((*map_shape[:-1], coded(channels, len(grid))))
        self.attention = MultiHeadAttention(self.num_heads, use_bias=False, dtype=self.dtype_policy, name="attention")
        tokens = (skip[0], prod(grid), channels)
        self.attention.build(tokens, tokens, tokens)
        self.norm = self._norm("norm", map_shape)
        self.resizing = LinearResizing(skip[1:-1], dtype=self.dtype_policy, name="resizing")
        self.resizing.build(map_shape)
        self.built = True

    def _norm(self, name: str, shape):
        norm = normalization(self.normalization, name, dtype=self.dtype_policy)
        norm.build(shape)
        return norm

    def attention_grid(self, skip, deep) -> tuple[int, ...]:
        """The grid on which attention is computed."""
        space, grid = tuple(skip[1:-1]), list(deep[1:-1])
        if (
            None in space
            or None in grid
            or len(space) != len(grid)
            or any(n % m for n, m in zip(space, grid, strict=True))
        ):
            raise InputError(
                f"inputs of shapes {tuple(skip)} and {tuple(deep)}: give maps of known sizes, each of the first a "
                "multiple of that of the second"
            )
        while self.max_positions is not None and prod(grid) > self.max_positions:
            size = max((m for m in grid if m % 2 == 0), default=None)
            if size is None:
                raise InputError(
                    f"max_positions {self.max_positions}: the grid {tuple(deep[1:-1])} cannot be halved to so few; "
                    f"give {prod(grid)} or more"
                )
            grid[grid.index(size)] = size // 2
        return tuple(grid)

    def call(self, inputs, training=None, return_attention_scores=False):
        skip, deep = (self._projected(x, name, training) for x, name in zip(inputs, ("skip", "deep"), strict=True))
        grid, channels = skip.shape[1:-1], skip.shape[-1]
        tokens = (-1, prod(grid), channels)
        query, value = ops.reshape(deep, tokens), ops.reshape(skip, tokens)  # (batch, places, channels)
        attended = self.attention(
            query, value, query, return_attention_scores=return_attention_scores, training=training
        )
        attended, weights = attended if return_attention_scores else (attended, None)
        attended = ops.reshape(attended, (-1, *grid, channels))  # (batch, *grid, channels)
        gate = self.resizing(ops.sigmoid(self.norm(attended, training=training)))
        return (gate, weights) if return_attention_scores else gate

    def _projected(self, x, name: str, training):
        pooling = getattr(self, f"{name}_pooling")
        x = getattr(self, f"{name}_projection")(x if pooling is None else pooling(x))
        return with_positions(ops.relu(getattr(self, f"{name}_norm")(x, training=training)), self.positions)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def compute_output_spec(self, inputs, training=None, return_attention_scores=False):
        skip, deep = (x.shape for x in inputs)
        gate = keras.KerasTensor(skip, dtype=self.compute_dtype)
        if not return_attention_scores:
            return gate
        places = prod(self.attention_grid(skip, deep))
        return gate, keras.KerasTensor((skip[0], self.num_heads, places, places), dtype=self.compute_dtype)

    def get_config(self):
        return super().get_config() | {
            "num_heads": self.num_heads,
            "max_positions": self.max_positions,
            "normalization": self.normalization,
        }


def coded(channels: int, rank: int) -> int:
    """How many channels have a code of the place: a sine and a cosine for each axis, as often as there is room."""
    return channels // (2 * rank) * 2 * rank


def with_positions(x, positions):
    """A map with the code of `positions` added to its first `coded` channels."""
    count = coded(x.shape[-1], len(x.shape) - 2)
    if count == x.shape[-1]:
        return positions(x)
    return ops.concatenate([positions(x[..., :count]), x[..., count:]], axis=-1)
