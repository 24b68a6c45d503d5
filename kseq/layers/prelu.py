"""The parametric ReLU."""

from math import prod

import keras

from kseq.backend.prelu import prelu


@keras.saving.register_keras_serializable(package="kseq")
class PReLU(keras.layers.PReLU):
    """y = max(x, 0) + a min(x, 0) with a slope a that is learnt.

    `keras.layers.PReLU` with its arguments, weights and outputs, in fewer operations on PyTorch where `shared_axes` are
    all axes but the batch, so that there is one a. With more of them it is Keras's.

    Source: He et al. 2015 (arXiv 1502.01852).

    Args:
        **kwargs: as in Keras.

    Input shape: `(batch, …)`.

    Output shape: the same.
    """

    def call(self, inputs):
        return prelu(inputs, self.alpha) if prod(self.alpha.shape) == 1 else super().call(inputs)
