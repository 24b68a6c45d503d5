"""Vectors of tokens, and the same table read backwards: the logits of tokens."""

from math import sqrt

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kseq")
class ReversibleEmbedding(keras.layers.ReversibleEmbedding):
    """x = s E_token and, with `reverse=True`, logits = x Eᵀ + b, with one table E `(input_dim, output_dim)`.

    `keras.layers.ReversibleEmbedding`, with a scale s = √output_dim for the vectors and a bias b for the logits, each
    if asked for, and the product of the logits on rows: its gradient takes XLA on CPU a fraction of the time (see
    `kseq.layers.Dense`). Its mask is known when a functional model is built, not only when it is called. Keras's
    `quantize` passes it by.

    Source: Press & Wolf 2017 (arXiv 1608.05859); the scale: Vaswani et al. 2017 (arXiv 1706.03762), section 3.4.

    Args:
        input_dim: number of tokens.
        output_dim: size of a vector.
        scale: whether vectors are multiplied by √output_dim; the logits are not.
        use_bias: whether the logits have a bias.
        **kwargs: as in Keras; `mask_zero` masks token 0.

    Call arguments:
        inputs: tokens `(batch, …)`, integers, which numbers of another type become; with `reverse` vectors
            `(batch, …, output_dim)`.
        reverse: whether to give logits.

    Output shape: `(batch, …, output_dim)`; with `reverse` `(batch, …, input_dim)`.
    """

    def __init__(self, input_dim: int, output_dim: int, *, scale: bool = False, use_bias: bool = False, **kwargs):
        super().__init__(input_dim, output_dim, **kwargs)
        self.scale, self.use_bias = scale, use_bias

    def build(self, input_shape=None):
        is_first = not self.built
        super().build(input_shape)
        if is_first and self.use_bias:
            self.bias = self.add_weight(shape=(self.input_dim,), initializer="zeros", name="bias")

    def __call__(self, inputs, **kwargs):
        dtype = keras.backend.standardize_dtype(getattr(inputs, "dtype", "int32"))
        if "int" not in dtype and not kwargs.get("reverse"):
            inputs = ops.cast(inputs, "int32")  # by its type `compute_mask` knows tokens from vectors
        return super().__call__(inputs, **kwargs)

    def call(self, inputs, reverse=False):
        if not reverse:
            vectors = keras.layers.Embedding.call(self, inputs)
            return vectors * sqrt(self.output_dim) if self.scale else vectors
        rows = ops.reshape(ops.cast(inputs, self.compute_dtype), (-1, self.output_dim))  # (batch · …, output_dim)
        table = self.embeddings if self.tie_weights else ops.transpose(self.reverse_embeddings)
        logits = ops.matmul(rows, ops.transpose(ops.cast(table, self.compute_dtype)))
        if self.use_bias:
            logits = logits + ops.cast(self.bias, self.compute_dtype)
        return ops.reshape(logits, (-1, *ops.shape(inputs)[1:-1], self.input_dim))

    def compute_mask(self, inputs, mask=None):
        is_reverse = "int" not in keras.backend.standardize_dtype(inputs.dtype)
        return None if is_reverse or not self.mask_zero else ops.not_equal(inputs, 0)

    def compute_output_shape(self, input_shape, reverse=False):
        return (*input_shape[:-1], self.input_dim) if reverse else (*input_shape, self.output_dim)

    @property
    def variable_serialization_spec(self):
        more = ["bias"] if self.use_bias else []
        return {mode: [*names, *more] for mode, names in super().variable_serialization_spec.items()}

    def get_config(self):
        return super().get_config() | {"scale": self.scale, "use_bias": self.use_bias}
