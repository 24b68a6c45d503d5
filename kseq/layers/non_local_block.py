"""Non-local block: each place of a map sees all others."""

from collections.abc import Sequence
from math import prod
from typing import Literal

import keras
from keras import ops

from kseq.backend.attention import attention
from kseq.errors import InputError
from kseq.layers.convolution import checked_sizes
from kseq.layers.dense import Dense
from kseq.layers.initializers import clone
from kseq.layers.normalization import normalization
from kseq.layers.pooling import MaxPooling

MODES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")


@keras.saving.register_keras_serializable(package="kseq")
class NonLocalBlock(keras.layers.Layer):
    """z_i = BN(W_z y_i) + x_i,  y_i = 1/C(x) Σ_j f(x_i, x_j) g(x_j)  over all places j of a map, with g(x) = W_g x.

    - "embedded_gaussian": f = exp(θ(x_i)ᵀ φ(x_j)), C = Σ_j f, with θ(x) = W_θ x and φ(x) = W_φ x: attention of one head
    - "gaussian": f = exp(x_iᵀ x_j), C = Σ_j f
    - "dot_product": f = θ(x_i)ᵀ φ(x_j), C = N, the number of places j
    - "concatenation": f = ReLU(w_fᵀ [θ(x_i); φ(x_j)]), C = N

    The γ of BN is 0 at first, so that the block is the identity and may be put into a trained network. Memory of the
    first two is that of `kseq.backend.attention`, that of the dot product, computed as θ(x_i)ᵀ (Σ_j φ(x_j) g(x_j)ᵀ),
    grows with N only, and that of the concatenation with N². The products have a bias where it is of an effect: not
    W_z, and with a softmax neither φ nor g.

    Source: Wang et al. 2018 (arXiv 1711.07971), equations 1–8; facebookresearch/video-nonlocal-net.

    Args:
        mode: which f.
        channels: of θ, φ and g; `None` is half of those of the input.
        pool: whether φ and g are maxima of 2 places along each axis, of volumes but the first axis (as in the paper,
            where it is time), or of how many along each axis.
        scale: whether θᵀφ of the first two is divided by the root of their channels, as the reference implementation
            does and the paper does not.
        gamma_initializer: of the γ of BN.
        kernel_initializer: of the products.

    Input shape: `(batch, *space, channels)` with one to three axes of space, of known sizes.

    Output shape: the same. With `return_attention_scores=True` in the call also f / C,
    `(batch, places, places of φ)`.

    Raises:
        InputError: if an argument is out of range, or sizes of the input are not known.
    """

    def __init__(
        self,
        mode: Literal["embedded_gaussian", "gaussian", "dot_product", "concatenation"] = "embedded_gaussian",
        *,
        channels: int | None = None,
        pool: bool | int | Sequence[int] = False,
        scale: bool = True,
        gamma_initializer="zeros",
        kernel_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if mode not in MODES:
            raise InputError(f"mode {mode!r}: choose one of {', '.join(map(repr, MODES))}")
        if channels is not None and channels < 1:
            raise InputError(f"channels {channels!r}: give 1 or more")
        self.mode, self.channels, self.scale = mode, channels, scale
        self.pool = pool if isinstance(pool, bool) else checked_sizes("pool", pool)
        self.gamma_initializer = keras.initializers.get(gamma_initializer)
        small = keras.initializers.RandomNormal(stddev=0.01)
        self.kernel_initializer = keras.initializers.get(kernel_initializer or small)

    def build(self, input_shape):
        if None in input_shape[1:]:
            raise InputError(f"input of shape {tuple(input_shape)}: give a known size to every axis but the batch")
        inputs = input_shape[-1]
        channels, has_softmax = self.channels or max(inputs // 2, 1), "gaussian" in self.mode
        self.pooling = None
        if self.pool:
            size = ((1,) * (len(input_shape) == 5) + (2, 2, 2))[: len(input_shape) - 2]
            size = size if self.pool is True else self.pool
            self.pooling = MaxPooling(size, dtype=self.dtype_policy, name="pooling")
            self.pooling.compute_output_shape(input_shape)  # or an error
        self.theta = self.phi = self.f_theta = self.f_phi = None
        if self.mode != "gaussian":
            self.theta = self._dense(channels, inputs, "theta")
            self.phi = self._dense(channels, inputs, "phi", use_bias=not has_softmax)
        if self.mode == "concatenation":
            self.f_theta = self._dense(1, channels, "f_theta", use_bias=False)
            self.f_phi = self._dense(1, channels, "f_phi", use_bias=False)
        self.g = self._dense(channels, inputs, "g", use_bias=not has_softmax)
        self.output_projection = self._dense(inputs, channels, "output", use_bias=False)
        self.norm = normalization("batch", "norm", gamma_initializer=self.gamma_initializer, dtype=self.dtype_policy)
        self.norm.build(input_shape)
        self.built = True

    def _dense(self, units: int, inputs: int, name: str, *, use_bias: bool = True) -> Dense:
        dense = Dense(
            units,
            use_bias=use_bias,
            kernel_initializer=clone(self.kernel_initializer),
            dtype=self.dtype_policy,
            name=name,
        )
        dense.build((None, inputs))
        return dense

    def call(self, inputs, training=None, return_attention_scores=False):
        if self.mode == "gaussian":
            theta, phi, values = inputs, inputs, self.g(inputs)
        else:
            theta, phi, values = self.theta(inputs), self.phi(inputs), self.g(inputs)
        if self.pooling is not None:
            phi, values = self.pooling(phi), self.pooling(values)
        theta, phi, values = _places(theta), _places(phi), _places(values)  # (batch, places, channels)
        weights = None
        if "gaussian" in self.mode:
            y, weights = self._softmax(theta, phi, values, return_attention_scores, training)
        elif self.mode == "dot_product":
            precision = keras.backend.result_type(self.compute_dtype, "float32")  # products overflow in float16
            theta, phi, values = (ops.cast(x, precision) for x in (theta, phi, values))
            phi = ops.swapaxes(phi, 1, 2) / phi.shape[1]
            if return_attention_scores:
                weights = ops.cast(ops.matmul(theta, phi), self.compute_dtype)
            y = ops.cast(ops.matmul(theta, ops.matmul(phi, values)), self.compute_dtype)
        else:
            f = ops.relu(self.f_theta(theta) + ops.swapaxes(self.f_phi(phi), 1, 2))  # (batch, places, places of φ)
            weights = f / phi.shape[1]
            y = ops.matmul(weights, values)
        y = ops.reshape(y, (-1, *inputs.shape[1:-1], y.shape[-1]))  # (batch, *space, channels)
        z = self.norm(self.output_projection(y), training=training) + inputs
        return (z, weights) if return_attention_scores else z

    def _softmax(self, theta, phi, values, return_weights, training):
        if not self.scale:
            theta = theta * theta.shape[-1] ** 0.5  # attention divides by it
        theta, phi, values = (ops.expand_dims(x, 2) for x in (theta, phi, values))  # (batch, places, 1, channels)
        y, weights = attention(theta, phi, values, return_weights=return_weights, training=bool(training))
        return y[:, :, 0], weights[:, 0] if return_weights else None

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, inputs, training=None, return_attention_scores=False):
        outputs = keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)
        if not return_attention_scores:
            return outputs
        keys = inputs.shape if self.pooling is None else self.pooling.compute_output_shape(inputs.shape)
        shape = (inputs.shape[0], prod(inputs.shape[1:-1]), prod(keys[1:-1]))
        return outputs, keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self):
        return super().get_config() | {
            "mode": self.mode,
            "channels": self.channels,
            "pool": self.pool,
            "scale": self.scale,
            "gamma_initializer": keras.initializers.serialize(self.gamma_initializer),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def _places(x):
    return ops.reshape(x, (-1, prod(x.shape[1:-1]), x.shape[-1]))
