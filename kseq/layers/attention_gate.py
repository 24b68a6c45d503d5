"""Additive attention gate of a skip connection."""

import keras
from keras import ops

from kseq.errors import InputError
from kseq.layers.dense import Dense
from kseq.layers.normalization import normalization


@keras.saving.register_keras_serializable(package="kseq")
class AttentionGate(keras.layers.Layer):
    """α = σ(BN(ψᵀ ReLU(BN(W_x x) + BN(W_g g)))), one number a place, by which the skip x is to be multiplied.

    W_x, W_g and ψ have no bias, which the normalisation behind them would take away.

    Source: Oktay et al. 2018 (arXiv 1804.03999), equations 1 and 2. There g is of half the resolution and α is
    enlarged; here it has been brought to the grid of x, as in MONAI's `AttentionUnet`.

    Args:
        channels: F_int, rows of W_x and W_g; `None` is half of those of x.

    Call arguments:
        inputs: `[x, g]`, `(batch, *space, channels)` each, of the same space.

    Output shape: `(batch, *space, 1)`, numbers between 0 and 1.

    Raises:
        InputError: if `channels` is out of range, or x and g have not the same space.
    """

    def __init__(self, channels: int | None = None, **kwargs):
        super().__init__(**kwargs)
        if channels is not None and channels < 1:
            raise InputError(f"channels {channels!r}: give 1 or more")
        self.channels = channels

    def build(self, input_shape):
        skip, gate = input_shape
        if tuple(skip[1:-1]) != tuple(gate[1:-1]):
            raise InputError(
                f"inputs of shapes {tuple(skip)} and {tuple(gate)}: differ in space; bring the second to the first"
            )
        channels = self.channels or max(skip[-1] // 2, 1)
        for name, inputs, units in (("skip", skip[-1], channels), ("gate", gate[-1], channels), ("psi", channels, 1)):
            dense = Dense(units, use_bias=False, kernel_initializer="he_normal", dtype=self.dtype_policy, name=name)
            dense.build((None, inputs))
            norm = normalization("batch", f"{name}_norm", dtype=self.dtype_policy)
            norm.build((*skip[:-1], units))
            setattr(self, f"{name}_projection", dense)
            setattr(self, f"{name}_norm", norm)
        self.built = True

    def call(self, inputs, training=None):
        skip, gate = inputs
        skip = self.skip_norm(self.skip_projection(skip), training=training)
        gate = self.gate_norm(self.gate_projection(gate), training=training)
        psi = self.psi_projection(ops.relu(skip + gate))  # (batch, *space, 1)
        return ops.sigmoid(self.psi_norm(psi, training=training))

    def compute_output_shape(self, input_shape):
        return (*input_shape[0][:-1], 1)

    def get_config(self):
        return super().get_config() | {"channels": self.channels}
