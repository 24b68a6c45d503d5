"""How `torch.nn` keeps convolutions and batch normalisations.

A convolution has the kernel `(filters, channels, *kernel_size)`, a transposed one `(channels, filters, *kernel_size)`.
Many models have a bias in front of a batch normalisation, which takes it away; where ours has none, it goes into the
running mean, with the opposite sign.
"""

from math import prod

import keras
import numpy as np

from kseq.layers import Convolution, Dense, TransposedConvolution
from kseq.weights.layout import Rule


def convolution_rules(layer: Convolution | TransposedConvolution, name: str) -> list[Rule]:
    """Rules for w and, if there is one, b."""
    *size, channels, filters = layer.kernel.shape
    if isinstance(layer, TransposedConvolution):
        shape, axes = (channels, filters, *size), (-2, -1)
    else:
        shape, axes = (filters, channels, *size), (-1, -2)
    rules = [Rule(layer.kernel, {f"{name}.weight": shape}, lambda w: np.moveaxis(w, (0, 1), axes))]
    return rules + _bias_rules(layer, name)


def pointwise_rules(dense: Dense, name: str, rank: int) -> list[Rule]:
    """Rules for W and, if there is one, b, of a convolution whose kernel is one place."""
    inputs, units = dense.kernel.shape
    shape = (units, inputs, *(1,) * rank)
    rules = [Rule(dense.kernel, {f"{name}.weight": shape}, lambda w: w.reshape(units, inputs).T)]
    return rules + _bias_rules(dense, name)


def batch_norm_rules(norm: keras.layers.BatchNormalization, name: str, convolution: str | None = None) -> list[Rule]:
    """Rules for γ, β and the running statistics.

    Args:
        norm: the layer.
        name: of its tensors.
        convolution: the name of one in front of it whose bias goes into the running mean.
    """
    size = (prod(norm.gamma.shape),)
    means = {f"{name}.running_mean": size} | ({f"{convolution}.bias": size} if convolution else {})
    return [
        Rule(norm.gamma, {f"{name}.weight": size}, np.asarray),
        Rule(norm.beta, {f"{name}.bias": size}, np.asarray),
        Rule(norm.moving_mean, means, lambda mean, bias=0.0: mean - bias),
        Rule(norm.moving_variance, {f"{name}.running_var": size}, np.asarray),
    ]


def _bias_rules(layer: keras.layers.Layer, name: str) -> list[Rule]:
    return [Rule(layer.bias, {f"{name}.bias": tuple(layer.bias.shape)}, np.asarray)] if layer.use_bias else []
