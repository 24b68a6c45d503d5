"""A map halved along each axis of space, with twice the channels."""

import keras
from keras import ops

from kseq.errors import InputError
from kseq.layers.dense import Dense
from kseq.layers.layer_normalization import LayerNormalization


@keras.saving.register_keras_serializable(package="kseq")
class PatchMerging(keras.layers.Layer):
    """y = LN([x_1; …; x_n]) W of the n = 2^r tokens of each patch of 2 × … × 2, with W of the shape (n · dim, 2 · dim).

    The offset along the first axis changes fastest: x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2] in two
    dimensions. (Of three-dimensional models, TransMorph and MONAI's SwinUNETR each have another order.) An odd size is
    filled up with zeros behind its end.

    Source: Liu et al. 2021 (arXiv 2103.14030), section 3.1. Reference implementation: microsoft/Swin-Transformer.

    Args:
        epsilon: ε of the normalisation.
        kernel_initializer: of W.

    Input shape: `(batch, *space, dim)` with one to three axes of space, of known sizes.

    Output shape: `(batch, *(size / 2, rounded up), 2 · dim)`.

    Raises:
        InputError: if the map has no axis of space, or one of an unknown size.
    """

    def __init__(self, *, epsilon: float = 1e-5, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        if len(input_shape) < 3 or any(size is None for size in input_shape[1:]):
            raise InputError(
                f"map of shape {tuple(input_shape)}: give (batch, *space, dim), all sizes but the batch known"
            )
        rank, dim = len(input_shape) - 2, input_shape[-1]
        self.norm = LayerNormalization(epsilon=self.epsilon, dtype=self.dtype_policy, name="norm")
        self.norm.build((None, 2**rank * dim))
        self.reduction = Dense(
            2 * dim,
            use_bias=False,
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            name="reduction",
        )
        self.reduction.build((None, 2**rank * dim))
        self.built = True

    def call(self, inputs):
        *space, dim = inputs.shape[1:]
        rank, half = len(space), [-(-size // 2) for size in space]
        if any(size % 2 for size in space):
            inputs = ops.pad(inputs, [(0, 0), *((0, size % 2) for size in space), (0, 0)])
        split = [size for n in half for size in (n, 2)]
        last = len(split) + 1
        x = ops.reshape(inputs, (-1, *split, dim))  # (batch, n_1, 2, n_2, 2, …, dim)
        x = ops.transpose(x, (0, *range(1, last, 2), *range(last - 1, 0, -2), last))  # (batch, n_1, …, 2 of the last …)
        x = ops.reshape(x, (-1, *half, 2**rank * dim))
        return self.reduction(self.norm(x))  # (batch, n_1, …, 2 · dim)

    def compute_output_shape(self, input_shape):
        batch, *space, dim = input_shape
        return (batch, *(-(-size // 2) for size in space), 2 * dim)

    def get_config(self):
        return super().get_config() | {
            "epsilon": self.epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
