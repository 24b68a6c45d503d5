"""One-hot encoding of padded sequences."""

import keras
from keras import ops

from kseq.errors import InputError


@keras.saving.register_keras_serializable(package="kseq")
class OneHot(keras.layers.Layer):
    """Unit vectors for the tokens 1, 2, …, `vocabulary_size` − 1; the zero vector, masked, for the padding 0.

    Token k becomes e_k ∈ {0, 1}^(vocabulary_size − 1), (e_k)_j = 1 if j = k, else 0 (j counted from 1). It has no
    weights: a recurrent layer's input matrix U on top of it has one column a token.

    `keras.layers.CategoryEncoding` computes the same vectors but drops the mask and has a column for the padding.

    Args:
        vocabulary_size: number of tokens, the padding included; at least 2.

    Input shape: integers `(batch, time)`.

    Output shape: `(batch, time, vocabulary_size - 1)`.

    Masking: emits the mask `tokens != 0`.

    Raises:
        InputError: if `vocabulary_size` is below 2.
    """

    def __init__(self, vocabulary_size: int, **kwargs):
        super().__init__(**kwargs)
        if vocabulary_size < 2:
            raise InputError(f"vocabulary_size {vocabulary_size!r}: give 2 or more (the padding and one token)")
        self.vocabulary_size = vocabulary_size
        self.supports_masking = True
        self.autocast = False  # a cast of token numbers to bfloat16 would round them

    def call(self, tokens):
        padded = ops.one_hot(ops.cast(tokens, "int32"), self.vocabulary_size, dtype=self.compute_dtype)
        return padded[..., 1:]  # (batch, time, vocabulary_size - 1), without the column of the padding

    def compute_mask(self, tokens, mask=None):
        return ops.not_equal(tokens, 0)

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.vocabulary_size - 1)

    def compute_output_spec(self, tokens):
        return keras.KerasTensor(self.compute_output_shape(tokens.shape), dtype=self.compute_dtype)

    def get_config(self):
        return super().get_config() | {"vocabulary_size": self.vocabulary_size}
