"""A dilated convolution in time with a residual."""

import keras
from keras import layers, ops

from kseq.errors import InputError
from kseq.layers.dense import Dense


@keras.saving.register_keras_serializable(package="kseq")
class DilatedResidualLayer(layers.Layer):
    """y_t = x_t + W' ReLU(Σ_k W_k x_(t + (k − c) d) + b) + b', a convolution in time that skips d − 1 of d steps.

    k counts the K places of the kernel from 0. With c = K − 1 it is causal, y_t knows nothing of what follows t; else
    c = (K − 1) / 2. x is 0 outside of the sequence. The convolution is Keras's: products of shifted sequences in
    its place would take TensorFlow 2 times as long, and JAX and PyTorch about the same.

    Source: Farha & Gall, "MS-TCN", CVPR 2019 (arXiv 1903.01945), section 3.1.

    Args:
        dilation: d.
        kernel_size: K, odd unless causal.
        causal: whether y_t sees x up to t alone.
        dropout: share of the values set to zero while training, in front of the sum.

    Call arguments:
        inputs: x `(batch, time, filters)`.
        past: for a causal layer, in place of the zeros in front of the sequence, what `make_past` gave at the first
            steps of it, or this layer at the steps before.

    Output shape: that of the input; with `past` a pair of it and the past of the steps to come.

    Masking: what stands at a masked step, NaN included, reaches no other step: it counts as 0, like what is outside of
    the sequence. The mask is passed on.

    Raises:
        InputError: if an argument is out of range, or `past` is given to a layer that is not causal.
    """

    def __init__(
        self, dilation: int = 1, *, kernel_size: int = 3, causal: bool = False, dropout: float = 0.0, **kwargs
    ):
        super().__init__(**kwargs)
        for argument, size in (("dilation", dilation), ("kernel_size", kernel_size)):
            if size < 1:
                raise InputError(f"{argument} {size!r}: give 1 or more")
        if not causal and kernel_size % 2 == 0:
            raise InputError(f"kernel_size {kernel_size!r}: has no middle; give an odd number, or causal=True")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout {dropout!r}: give a share from 0 to below 1")
        self.dilation, self.kernel_size, self.causal, self.dropout = dilation, kernel_size, causal, dropout
        self.reach = (kernel_size - 1) * dilation  # steps from the first that y_t sees to the last
        self.supports_masking = True

    def build(self, input_shape):
        filters = input_shape[-1]
        self.convolution = layers.Conv1D(
            filters,
            self.kernel_size,
            dilation_rate=self.dilation,
            data_format="channels_last",
            activation="relu",
            dtype=self.dtype_policy,
            name="convolution",
        )
        self.pointwise = Dense(filters, dtype=self.dtype_policy, name="pointwise")
        for layer in (self.convolution, self.pointwise):
            layer.build((None, None, filters))
        self.drop = layers.Dropout(self.dropout, dtype=self.dtype_policy, name="drop")
        self.built = True

    def call(self, inputs, past=None, mask=None, training=None):
        x = inputs if mask is None else ops.where(ops.cast(mask, "bool")[..., None], inputs, 0)
        if past is None:
            before = self.reach if self.causal else self.reach // 2
            window = ops.pad(x, [(0, 0), (before, self.reach - before), (0, 0)])
        elif not self.causal:
            raise InputError(f"past: {self.name} also looks at steps to come; make the layer with causal=True")
        else:
            window = ops.concatenate([past, x], axis=1)  # (batch, reach + time, filters)
        y = x + self.drop(self.pointwise(self.convolution(window)), training=training)
        return y if past is None else (y, window[:, ops.shape(x)[1] :])

    def make_past(self, batch_size):
        """The past of a sequence that begins: zeros `(batch, (K − 1) d, filters)`."""
        return ops.zeros((batch_size, self.reach, self.pointwise.units), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {
            "dilation": self.dilation,
            "kernel_size": self.kernel_size,
            "causal": self.causal,
            "dropout": self.dropout,
        }
