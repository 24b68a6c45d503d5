"""Maps expanded to a finer grid: the inverse of patch merging."""

from collections.abc import Sequence
from math import prod

import keras
from keras import ops

from kseq.errors import InputError
from kseq.layers.dense import Dense
from kseq.layers.layer_normalization import LayerNormalization
from kseq.layers.window_attention import per_known_axis


@keras.saving.register_keras_serializable(package="kseq")
class PatchExpanding(keras.layers.Layer):
    """Each token x of a map becomes a patch of s_1 × … × s_r tokens LN(x W_p), p ∈ [0, s_1) × … × [0, s_r).

    It is a transposed convolution whose kernel and stride are the patch, computed as one matrix product and a reshape
    (a pixel shuffle), with layer normalisation behind it. Column p C' + c of W is channel c of the token at p, with p
    in row-major order.

    Source: Cao et al. 2021 (arXiv 2105.05537), section 3.4; HuCaoFighting/Swin-Unet, `PatchExpand` (scale 2, output of
    half the channels) and `FinalPatchExpand_X4` (scale 4, output of as many).

    Args:
        scale: s, how much finer the grid becomes along each axis; an integer for the same along all.
        output_dim: C', channels of the output; `None` is half of those of the input.
        epsilon: of the layer normalisation.
        kernel_initializer: of W.

    Input shape: `(batch, *space, dim)` with one to three axes of space, of known sizes.

    Output shape: `(batch, *fine, output_dim)` with n_i s_i tokens along axis i.

    Raises:
        InputError: if an argument is out of range, the rank of the input does not fit `scale`, or an odd number of
            channels cannot be halved.
    """

    def __init__(
        self,
        scale: int | Sequence[int] = 2,
        *,
        output_dim: int | None = None,
        epsilon: float = 1e-5,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        scales = (scale,) if isinstance(scale, int) else tuple(scale)
        if not scales or any(s < 1 for s in scales):
            raise InputError(f"scale {scale!r}: give 1 or more along each axis")
        if output_dim is not None and output_dim < 1:
            raise InputError(f"output_dim {output_dim!r}: give 1 or more, or None for half of the input's")
        self.scale = scale if isinstance(scale, int) else scales
        self.output_dim, self.epsilon = output_dim, epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        output_dim = self._output_dim(input_shape)
        self.expansion = Dense(
            prod(self._scale(input_shape)) * output_dim,
            use_bias=False,
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            name="expansion",
        )
        self.expansion.build((None, input_shape[-1]))
        self.norm = LayerNormalization(epsilon=self.epsilon, dtype=self.dtype_policy, name="norm")
        self.norm.build((None, output_dim))
        self.built = True

    def call(self, inputs):
        scale, space, output_dim = self._scale(inputs.shape), inputs.shape[1:-1], self._output_dim(inputs.shape)
        rank = len(scale)
        x = ops.reshape(self.expansion(inputs), (-1, *space, *scale, output_dim))  # (batch, n_1, n_2, …, s_1, s_2, …)
        pairs = [axis for i in range(1, rank + 1) for axis in (i, rank + i)]
        x = ops.transpose(x, (0, *pairs, 2 * rank + 1))  # (batch, n_1, s_1, n_2, s_2, …, output_dim)
        fine = [n * s for n, s in zip(space, scale, strict=True)]
        return self.norm(ops.reshape(x, (-1, *fine, output_dim)))

    def compute_output_shape(self, input_shape):
        fine = [n * s for n, s in zip(input_shape[1:-1], self._scale(input_shape), strict=True)]
        return (input_shape[0], *fine, self._output_dim(input_shape))

    def _scale(self, input_shape) -> tuple[int, ...]:
        return per_known_axis("scale", self.scale, input_shape)

    def _output_dim(self, input_shape) -> int:
        if self.output_dim is not None:
            return self.output_dim
        if input_shape[-1] % 2:
            raise InputError(f"output_dim None: {input_shape[-1]} channels have no half; give a number")
        return input_shape[-1] // 2

    def get_config(self):
        return super().get_config() | {
            "scale": self.scale,
            "output_dim": self.output_dim,
            "epsilon": self.epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
