"""Layers of sequences of frames: a dilated convolution in time, an encoder of every frame, a mask that is given."""

import keras
from keras import layers, ops

from kseq.backend.remat import remat
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


@keras.saving.register_keras_serializable(package="kseq")
class FrameEncoder(layers.Wrapper):
    """z_t = f(x_t) for every frame x_t of every video, by one call of f on all of them.

    `keras.layers.TimeDistributed` does the same, a frame at a time where their number is known. With `trainable=False`
    f keeps its weights and runs as in inference: nothing is dropped, normalisations keep their statistics. Keras shares
    f, so then it is frozen wherever else it stands.

    Args:
        layer: f, a model or layer from an image to a vector.
        remat: parts in which the frames of a training batch are encoded, each computed again in the backward pass
            instead of being kept: memory for the frames of a part in place of all, for some more time; 0 keeps all. Not
            if f drops values or normalises over the batch, which computing again would do twice.
        trainable: whether f learns.

    Input shape: `(batch, time, *frame)`.

    Output shape: `(batch, time, dim)`.

    Masking: every frame is encoded, masked or not; the mask is passed on.

    Raises:
        InputError: if f does not give a vector, `remat` is below 0, or f changes variables as it trains, be it because
            `trainable` has been set later.
    """

    def __init__(self, layer: layers.Layer, *, remat: int = 0, trainable: bool = True, **kwargs):
        super().__init__(layer, trainable=trainable, **kwargs)
        if remat < 0:
            raise InputError(f"remat {remat!r}: give the number of parts, or 0 to keep all")
        self.remat = int(remat)
        if not trainable:
            layer.trainable = False
        self.supports_masking = True

    def build(self, input_shape):
        self.compute_output_shape(input_shape)  # or an error
        super().build((None, *input_shape[2:]))
        if self.remat and self.trainable:
            self._check_remat()

    def _check_remat(self):
        for layer in self.layer._flatten_layers():
            if not layer._layers and layer.trainable and layer.non_trainable_variables:
                raise InputError(
                    f"remat {self.remat}: {layer.name} of {self.layer.name} has variables that training changes, and "
                    "would change twice; take an encoder without batch normalisation and dropout, freeze it, or remat=0"
                )

    def call(self, inputs, training=None):
        x = ops.reshape(inputs, (-1, *inputs.shape[2:]))  # (batch · time, *frame)
        if self.remat and training and self.trainable:
            self._check_remat()
            z = self._encode_in_parts(x)
        else:
            z = self.layer(x, training=training if self.trainable else False)
        return ops.reshape(z, (-1, ops.shape(inputs)[1], z.shape[-1]))  # (batch, time, dim)

    def _encode_in_parts(self, x):
        encode, z = remat(lambda frames: self.layer(frames, training=True)), []
        for frames in _parts(x, self.remat):
            if z:  # the backward pass takes one part after the other only if each depends on the one before
                frames = frames + ops.cast(0 * ops.sum(z[-1][:1, :1]), frames.dtype)
            z.append(encode(frames))
        return ops.concatenate(z, axis=0)

    def compute_output_shape(self, input_shape):
        shape = self.layer.compute_output_shape((None, *input_shape[2:]))
        if not isinstance(shape, tuple) or len(shape) != 2 or isinstance(shape[0], (tuple, list)):
            raise InputError(
                f"encoder {self.layer.name}: gives {shape} for frames of shape {tuple(input_shape[2:])}; take one that "
                "gives (batch, dim), of keras.applications by include_top=False, pooling='avg'"
            )
        return (*input_shape[:2], shape[-1])

    def get_config(self):
        return super().get_config() | {"remat": self.remat}


def _parts(x, number: int) -> list:
    """`x` in so many parts along its first axis, or fewer if it has fewer rows."""
    rows = ops.shape(x)[0]
    size = -(-rows // number)
    if isinstance(rows, int):
        number = -(-rows // size)
    return [x[part * size : (part + 1) * size] for part in range(number)]


@keras.saving.register_keras_serializable(package="kseq")
class MaskSteps(layers.Layer):
    """x_t at valid steps, 0 at masked ones, NaN included.

    `keras.layers.Masking` takes steps of a certain value for masked, and a black frame may be part of a video. This
    layer is told.

    Call arguments:
        inputs: x `(batch, time, …)` with a mask of its own, or `[x, mask]` with the mask `(batch, time)`.

    Output shape: that of x.

    Masking: the output has the mask.

    Raises:
        InputError: if the mask has another shape than x has in front.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        x, mask = inputs if isinstance(inputs, (list, tuple)) else (inputs, mask)
        if mask is None:
            return x
        mask, steps = ops.cast(mask, "bool"), tuple(x.shape[:2])
        if len(mask.shape) != 2 or any(a != b for a, b in zip(mask.shape, steps, strict=True) if None not in (a, b)):
            raise InputError(f"mask of shape {tuple(mask.shape)}: give (batch, time), here {steps}")
        valid = ops.reshape(mask, (*ops.shape(mask), *(1,) * (len(x.shape) - 2)))  # (batch, time, 1, …)
        return ops.where(valid, x, 0)

    def compute_mask(self, inputs, mask=None):
        return ops.cast(inputs[1], "bool") if isinstance(inputs, (list, tuple)) else mask

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0]) if isinstance(input_shape[0], (tuple, list)) else input_shape
