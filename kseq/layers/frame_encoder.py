"""An encoder of images, for every frame of a video."""

import keras
from keras import layers, ops

from kseq.backend.remat import remat
from kseq.errors import InputError


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
