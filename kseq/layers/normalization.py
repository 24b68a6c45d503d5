"""Normalisation of the channels of maps: over the batch, over groups of channels, over one channel."""

from typing import Literal

import keras
from keras import ops

from kseq.errors import InputError


@keras.saving.register_keras_serializable(package="kseq")
class GroupNormalization(keras.layers.Layer):
    """y = γ (x − μ) / √(σ² + ε) + β with the mean μ and variance σ² of all places and the channels of a group.

    Statistics are those of one sample, in float32 or better. With a group a channel it is instance normalisation.
    The statistics of the channels first and of the groups then take TensorFlow and JAX 0.2 to 0.9, PyTorch 0.5 to 1.5
    of the time of Keras's layer; PyTorch's own kernel is faster, but may crash in the gradient of channels-last maps.

    Source: Wu & He 2018 (arXiv 1803.08494); Ulyanov et al. 2016 (arXiv 1607.08022).

    Args:
        groups: number of groups, which divides the channels; −1 for as many as channels.
        epsilon: ε.
        affine: whether there are a γ and a β for each channel.

    Input shape: `(batch, *space, channels)` with one or more axes of space.

    Output shape: the same.

    Raises:
        InputError: if the groups do not divide the channels.
    """

    def __init__(self, groups: int = 8, *, epsilon: float = 1e-5, affine: bool = True, **kwargs):
        super().__init__(**kwargs)
        if groups < 1 and groups != -1:
            raise InputError(f"groups {groups!r}: give 1 or more, or -1 for as many as channels")
        self.groups, self.epsilon, self.affine = groups, epsilon, affine

    def build(self, input_shape):
        channels = input_shape[-1]
        if self.groups != -1 and channels % self.groups:
            raise InputError(f"groups {self.groups}: does not divide the {channels} channels; give a divisor of them")
        self.gamma = self.add_weight(shape=(channels,), initializer="ones", name="gamma") if self.affine else None
        self.beta = self.add_weight(shape=(channels,), initializer="zeros", name="beta") if self.affine else None
        self.built = True

    def call(self, inputs):
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        space = tuple(range(1, len(x.shape) - 1))
        centred = x - self._of_groups(ops.mean(x, axis=space, keepdims=True))
        variance = self._of_groups(ops.mean(centred * centred, axis=space, keepdims=True))
        scale = ops.rsqrt(variance + self.epsilon)
        if not self.affine:
            return ops.cast(centred * scale, self.compute_dtype)
        gamma, beta = ops.cast(self.gamma, x.dtype), ops.cast(self.beta, x.dtype)
        return ops.cast(centred * (scale * gamma) + beta, self.compute_dtype)

    def _of_groups(self, x):
        """The mean of the channels of a group, at each of its channels: `(batch, 1, …, channels)`."""
        *_, channels = x.shape
        if self.groups in (-1, channels):
            return x
        ones, size = (1,) * (len(x.shape) - 2), channels // self.groups
        x = ops.mean(ops.reshape(x, (-1, *ones, self.groups, size)), axis=-1)
        return ops.repeat(x, size, axis=-1)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"groups": self.groups, "epsilon": self.epsilon, "affine": self.affine}


KINDS = ("batch", "group", "instance")


def normalization(
    kind: Literal["batch", "group", "instance"] | None, name: str | None = None, *, groups: int = 8, **arguments
) -> keras.layers.Layer:
    """The layer that normalises channels in this way.

    Args:
        kind: "batch" (Ioffe & Szegedy 2015; ε = 10⁻⁵, running statistics that keep 0.9 of themselves, as in PyTorch),
            "group", "instance", or `None` for the identity.
        name: of the layer.
        groups: of "group".
        **arguments: of the layer: `gamma_initializer` of "batch", `affine` of the others, `epsilon`, `dtype`.

    Raises:
        InputError: if there is no such kind.
    """
    if kind is None:
        return keras.layers.Identity(name=name, dtype=arguments.get("dtype"))
    if kind == "batch":
        return keras.layers.BatchNormalization(**{"epsilon": 1e-5, "momentum": 0.9} | arguments, name=name)
    if kind in ("group", "instance"):
        return GroupNormalization(groups if kind == "group" else -1, **arguments, name=name)
    raise InputError(f"normalization {kind!r}: choose 'batch', 'group', 'instance' or None")
