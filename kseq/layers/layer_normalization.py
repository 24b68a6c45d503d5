"""Layer normalisation."""

import keras
from keras import ops

from kseq.backend.layer_norm import layer_norm


@keras.saving.register_keras_serializable(package="kseq")
class LayerNormalization(keras.layers.LayerNormalization):
    """y = γ (x − μ) / √(σ² + ε) + β with the mean μ and variance σ² of the last axis, in float32 or better.

    `keras.layers.LayerNormalization` with its arguments, weights and outputs, and a gradient that takes TensorFlow and
    JAX 0.6 of the time of Keras's. With another axis, without γ or β, or with `rms_scaling` it is Keras's.

    Source: Ba et al. 2016 (arXiv 1607.06450).

    Args:
        axis: as in Keras.
        epsilon: ε.
        **kwargs: as in Keras.

    Input shape: `(batch, …, features)`.

    Output shape: the same.
    """

    def call(self, inputs, training=None):
        is_last = self.axis in ([-1], [len(inputs.shape) - 1])
        if not (is_last and self.scale and self.center) or self.rms_scaling:
            return super().call(inputs)
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        x, gamma, beta = (ops.cast(tensor, dtype) for tensor in (inputs, self.gamma, self.beta))
        return ops.cast(layer_norm(x, gamma, beta, self.epsilon, training=training), self.compute_dtype)
