"""Normalisation of the channels of maps: over the batch, over groups of channels, over one channel."""

from typing import Literal

import keras
from keras import ops

from kseq.backend.batch_norm import batch_norm, fixed_batch_norm
from kseq.backend.group_norm import group_norm
from kseq.errors import InputError


@keras.saving.register_keras_serializable(package="kseq")
class GroupNormalization(keras.layers.Layer):
    """y = γ (x − μ) / √(σ² + ε) + β with the mean μ and variance σ² of all places and the channels of a group.

    Statistics are those of one sample, in float32 or better. With a group a channel it is instance normalisation.
    The statistics of the channels first and of the groups then take TensorFlow and JAX 0.2 to 0.9, PyTorch 0.5 to 1.5
    of the time of Keras's layer; PyTorch's own kernel is faster, but may crash in the gradient of channels-last maps.
    Instance normalisation is then trained with its kernel of batch normalisation.

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

    def call(self, inputs, training=None):
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        gamma, beta = (ops.cast(tensor, x.dtype) if self.affine else None for tensor in (self.gamma, self.beta))
        groups = x.shape[-1] if self.groups == -1 else self.groups
        return ops.cast(group_norm(x, gamma, beta, groups, self.epsilon, training=training), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"groups": self.groups, "epsilon": self.epsilon, "affine": self.affine}


@keras.saving.register_keras_serializable(package="kseq")
class BatchNormalization(keras.layers.BatchNormalization):
    """y = γ (x − μ) / √(σ² + ε) + β with the mean μ and variance σ² of all places of a batch; later with running ones.

    `keras.layers.BatchNormalization` with its arguments, weights, statistics and outputs, on PyTorch by the kernel of
    that, see `kseq.backend.batch_norm`. With another axis, without γ or β, with a mask, `renorm` or `synchronized`
    it is Keras's.

    Source: Ioffe & Szegedy 2015 (arXiv 1502.03167).

    Args:
        **kwargs: as in Keras.

    Input shape: `(batch, …, channels)`.

    Output shape: the same.
    """

    def call(self, inputs, training=None, mask=None):
        is_last = self.axis in (-1, len(inputs.shape) - 1)
        plain = self.scale and self.center and not self.renorm and not self.synchronized
        if not (is_last and plain) or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        x, gamma, beta = (ops.cast(tensor, dtype) for tensor in (inputs, self.gamma, self.beta))
        mean, variance = (ops.cast(tensor, dtype) for tensor in (self.moving_mean, self.moving_variance))
        if training and self.trainable:
            outputs, *found = batch_norm(x, gamma, beta, self.epsilon)
            for running, before, now in zip(
                (self.moving_mean, self.moving_variance), (mean, variance), found, strict=True
            ):
                running.assign(before * self.momentum + now * (1.0 - self.momentum))
        else:
            outputs = fixed_batch_norm(x, mean, variance, gamma, beta, self.epsilon)
        return ops.cast(outputs, self.compute_dtype)


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
        return BatchNormalization(**{"epsilon": 1e-5, "momentum": 0.9} | arguments, name=name)
    if kind in ("group", "instance"):
        return GroupNormalization(groups if kind == "group" else -1, **arguments, name=name)
    raise InputError(f"normalization {kind!r}: choose 'batch', 'group', 'instance' or None")
