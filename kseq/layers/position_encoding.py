"""Where a token stands, added to what it is: sinusoidal and learned position encodings in one to three dimensions."""

from collections.abc import Sequence
from math import prod
from typing import Literal

import keras
import numpy as np
from keras import ops

from kseq.errors import InputError

COARSE_BITS = 12  # of a frequency: its product with a count below 4,096 is exact in float32
BLOCK = 2048  # positions are counted in blocks and within them, so that both counts are below 4,096 up to 8 million


class PositionEncoding(keras.layers.Layer):
    """What both encodings share: which positions the tokens of an input have.

    The input is a grid `(batch, *grid, embed_dim)`, or a sequence `(batch, prefix + tokens, embed_dim)` of which the
    tokens are a grid in row-major order behind `num_prefix_tokens` others, such as a class token.
    """

    def __init__(self, grid_shape: Sequence[int] | None = None, *, num_prefix_tokens: int = 0, **kwargs):
        super().__init__(**kwargs)
        if grid_shape is not None and (not grid_shape or any(size < 1 for size in grid_shape)):
            raise InputError(f"grid_shape {grid_shape!r}: give 1 or more positions along each axis")
        if num_prefix_tokens < 0:
            raise InputError(f"num_prefix_tokens {num_prefix_tokens!r}: give 0 or more")
        self.grid_shape = None if grid_shape is None else tuple(grid_shape)
        self.num_prefix_tokens = num_prefix_tokens
        self.supports_masking = True

    def _grid(self, input_shape) -> tuple[int | None, ...]:
        """The positions along each axis of this input; a sequence on one axis may have any number up to the longest."""
        *space, prefix, whole = *input_shape[1:-1], self.num_prefix_tokens, self.grid_shape
        if len(space) > 1:
            if prefix or whole not in (None, tuple(space)):
                raise InputError(
                    f"input of shape {tuple(input_shape)}: does not fit grid_shape {whole} with {prefix} prefix "
                    "tokens; give tokens (batch, tokens, embed_dim) or a grid of that shape"
                )
            return tuple(space)
        tokens = None if space[0] is None else space[0] - prefix
        if whole is None or len(whole) == 1:
            if whole and tokens is not None and tokens > whole[0]:
                raise InputError(
                    f"input of {tokens} tokens: longer than the table of {whole[0]} positions; give at most that many "
                    f"tokens, or a layer with grid_shape=({tokens},)"
                )
            return (tokens,)
        if tokens not in (None, prod(whole)):
            raise InputError(
                f"input of {space[0]} tokens: grid_shape {whole} needs {prefix} + {' · '.join(map(str, whole))} of them"
            )
        return whole

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"grid_shape": self.grid_shape, "num_prefix_tokens": self.num_prefix_tokens}


@keras.saving.register_keras_serializable(package="kseq")
class SinusoidalPositionEncoding(PositionEncoding):
    """Add sines and cosines of the position, with wavelengths from 2π to 2π · `max_wavelength`:

        p_(t, 2k) = sin(ω_k t),  p_(t, 2k+1) = cos(ω_k t),  ω_k = max_wavelength^(−2k/d)

    for position t and an `embed_dim` of d, so that ⟨p_t, p_{t+n}⟩ = Σ_k cos(ω_k n) depends on the distance n only. On a
    grid of r axes, the first d/r channels encode the position along the first axis, the next ones along the second.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5. Other published layouts:

    - tensor2tensor: `layout="concatenated", endpoint=True`
    - big_vision's `sincos2d`: the same with `reverse_axes=True`
    - masked autoencoders (He et al. 2022): `layout="concatenated", reverse_axes=True`
    - DETR (Carion et al. 2020): `positions="end"`; deformable DETR: `positions="center"`

    Args:
        grid_shape: positions along each axis of a sequence that is a grid; `None` for a plain sequence or grid input.
        num_prefix_tokens: tokens in front that have no position; they are left as they are.
        max_wavelength: of the slowest channel, in units of 2π positions.
        layout: "interleaved": sine and cosine of a frequency side by side; "concatenated": all sines, then all cosines.
        endpoint: whether the exponents of `max_wavelength` run from 0 to 1 including 1.
        positions: "index": t = 0, 1, …; "end" and "center": 2π (t + 1) / T and 2π (t + ½) / T of T positions.
        reverse_axes: whether the first channels encode the last axis.

    Input shape: `(batch, *grid, embed_dim)` or `(batch, prefix + tokens, embed_dim)`.

    Output shape: the same.

    Call arguments:
        inputs: the tokens.
        start_index: of a sequence, the position of its first token; default 0.

    Raises:
        InputError: if `embed_dim` is no multiple of two channels an axis, or the input does not fit the grid.
    """

    def __init__(
        self,
        grid_shape: Sequence[int] | None = None,
        *,
        num_prefix_tokens: int = 0,
        max_wavelength: float = 10_000.0,
        layout: Literal["interleaved", "concatenated"] = "interleaved",
        endpoint: bool = False,
        positions: Literal["index", "end", "center"] = "index",
        reverse_axes: bool = False,
        **kwargs,
    ):
        super().__init__(grid_shape, num_prefix_tokens=num_prefix_tokens, **kwargs)
        if layout not in ("interleaved", "concatenated"):
            raise InputError(f"layout {layout!r}: choose 'interleaved' or 'concatenated'")
        if positions not in ("index", "end", "center"):
            raise InputError(f"positions {positions!r}: choose 'index', 'end' or 'center'")
        if max_wavelength <= 0:
            raise InputError(f"max_wavelength {max_wavelength!r}: give a positive number")
        self.max_wavelength, self.layout, self.endpoint = max_wavelength, layout, endpoint
        self.positions, self.reverse_axes = positions, reverse_axes

    def build(self, input_shape):
        grid, embed_dim = self._grid(input_shape), input_shape[-1]
        axes = len(grid)
        if embed_dim % (2 * axes):
            raise InputError(
                f"embed_dim {embed_dim}: no sine and cosine for each of {axes} axes; give a multiple of {2 * axes}"
            )
        count = embed_dim // (2 * axes)
        exponents = np.arange(count) / max(count - 1 if self.endpoint else count, 1)
        frequencies = self.max_wavelength**-exponents / (2 * np.pi)  # in turns a position
        if self.layout == "interleaved":
            frequencies, phases = np.repeat(frequencies, 2), np.tile([0, 0.25], count)  # a cosine is a quarter ahead
        else:
            frequencies, phases = np.tile(frequencies, 2), np.repeat([0, 0.25], count)
        order = range(axes)[::-1] if self.reverse_axes else range(axes)
        blocks = np.zeros((axes, axes, embed_dim // axes))
        for block, axis in enumerate(order):
            blocks[axis, block] = frequencies
        self.frequencies = blocks.reshape(axes, embed_dim)  # (axis, channel)
        self.phases = np.tile(phases, axes).astype("float32")
        self.built = True

    def call(self, inputs, start_index=0):
        grid = self._grid(inputs.shape)
        if grid == (None,):
            grid = (ops.shape(inputs)[1] - self.num_prefix_tokens,)
        code = sum(self._turns(size, axis, len(grid), start_index) for axis, size in enumerate(grid))
        code = ops.cast(ops.sin(2 * np.pi * (code + self.phases)), inputs.dtype)  # (*grid, embed_dim)
        if len(inputs.shape) == 3:
            code = ops.reshape(code, (-1, inputs.shape[-1]))  # (tokens, embed_dim)
            code = ops.pad(code, [(self.num_prefix_tokens, 0), (0, 0)])
        return inputs + code

    def _turns(self, size, axis: int, axes: int, start_index):
        """ω t / 2π up to whole turns along one axis, `(1, …, size, …, 1, embed_dim)`."""
        t, frequencies = ops.arange(size) + start_index, self.frequencies[axis]
        t = ops.reshape(t, [-1 if a == axis else 1 for a in range(axes)] + [1])
        if self.positions == "index":
            # A float32 product ω t would be wrong by 3e-4 at position 5,000.
            return _turns(t % BLOCK, frequencies) + _turns(t // BLOCK, BLOCK * frequencies % 1)
        shift = 1.0 if self.positions == "end" else 0.5
        t = (ops.cast(t, "float32") + shift) * (2 * np.pi) / ops.cast(size, "float32")
        return t * frequencies.astype("float32")

    def get_config(self):
        return super().get_config() | {
            "max_wavelength": self.max_wavelength,
            "layout": self.layout,
            "endpoint": self.endpoint,
            "positions": self.positions,
            "reverse_axes": self.reverse_axes,
        }


@keras.saving.register_keras_serializable(package="kseq")
class LearnedPositionEncoding(PositionEncoding):
    """Add a learned vector to the token at each position: x_t + p_t.

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), equation 1. A checkpoint with another grid is resampled when
    `kseq.weights.load` reads it.

    Args:
        grid_shape: positions along each axis, of a sequence the longest it can have; `None` takes those of the input
            with which the layer is built.
        num_prefix_tokens: tokens in front, such as a class token, which have a vector each too.
        initializer: of the table.

    Input shape: `(batch, *grid, embed_dim)` or `(batch, prefix + tokens, embed_dim)`; on one axis it may be shorter
    than the table.

    Output shape: the same.

    Call arguments:
        inputs: the tokens.
        start_index: of a sequence on one axis, the position of its first token; default 0.

    Raises:
        InputError: if the input does not fit the grid, or is longer than the table.
    """

    def __init__(
        self,
        grid_shape: Sequence[int] | None = None,
        *,
        num_prefix_tokens: int = 0,
        initializer=None,
        **kwargs,
    ):
        super().__init__(grid_shape, num_prefix_tokens=num_prefix_tokens, **kwargs)
        self.initializer = keras.initializers.get(initializer or keras.initializers.RandomNormal(stddev=0.02))

    def build(self, input_shape):
        grid = self._grid(input_shape)
        if self.grid_shape is None:
            if None in grid:
                raise InputError("grid_shape None: the input has no known length; give the longest, (length,)")
            self.grid_shape = grid
        shape = (self.num_prefix_tokens + prod(self.grid_shape), input_shape[-1])
        self.table = self.add_weight(shape=shape, initializer=self.initializer, name="table")
        self.built = True

    def call(self, inputs, start_index=None):
        grid = self._grid(inputs.shape)
        table = ops.cast(self.table, inputs.dtype)
        if len(inputs.shape) > 3:
            return inputs + ops.reshape(table, (*grid, -1))
        if start_index is not None:
            length = ops.shape(inputs)[1]
            longest = self.table.shape[0] - (inputs.shape[1] or 1)
            if isinstance(start_index, int) and not 0 <= start_index <= longest:
                raise InputError(f"start_index {start_index}: tokens behind the table; give 0 to {longest}")
            return inputs + ops.take(table, ops.arange(length) + start_index, axis=0)
        return inputs + table[: ops.shape(inputs)[1]]

    def get_config(self):
        return super().get_config() | {"initializer": keras.initializers.serialize(self.initializer)}


POSITIONS = {"learned": LearnedPositionEncoding, "sinusoidal": SinusoidalPositionEncoding}  # by the names models take


def _turns(count, frequencies: np.ndarray):
    """`count` times `frequencies`, up to whole turns, as exactly as float32 holds it; counts below 4,096."""
    count = ops.cast(count, "float32")
    mantissas, exponents = np.frexp(frequencies)
    coarse = np.ldexp(np.round(np.ldexp(mantissas, COARSE_BITS)), exponents - COARSE_BITS)
    turns = count * coarse.astype("float32")
    return turns - ops.floor(turns) + count * (frequencies - coarse).astype("float32")
