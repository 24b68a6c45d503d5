"""UPerNet: one map of all resolutions of an encoder, with what pooled regions say of the coarsest.

    l_i = φ(x_i W_i)  for i < n,    l_n = φ([x_n; r(φ(p_1(x_n) V_1)); …; r(φ(p_k(x_n) V_k))] ∗ W_n)
    l_i ← l_i + r(l_{i+1})          from the coarsest to the finest
    logits = R(φ([f_1; r(f_2); …; r(f_n)] ∗ W) C + c),   f_i = φ(l_i ∗ F_i) for i < n,  f_n = l_n

x_1 … x_n are the maps of the encoder from fine to coarse, p_s the means of s × s regions, r bilinear resizing to the
map at hand and R to the input, φ batch normalisation and ReLU, and ∗ a convolution of 3 × 3 places without a bias.

Source: Xiao et al., "Unified perceptual parsing for scene understanding", ECCV 2018 (arXiv 1807.10221), section 3.1,
with the pyramid pooling of Zhao et al. 2017 (arXiv 1612.01105). On the maps of a Swin transformer it is the model for
segmentation of Liu et al. 2021 (arXiv 2103.14030), on those of a GLAM-Swin that of Themyr et al. 2023 (arXiv
2212.07890).

Reference implementation: open-mmlab/mmsegmentation 0.11, `UPerHead` and `FCNHead`, corners not aligned. It drops whole
channels in front of C, here too. Products are initialised as there: normal with the variance 2 / fan_out, C with 0.01.
"""

from collections.abc import Sequence
from math import prod

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import Convolution, Dense, LinearResizing, RegionMeans, normalization


def UPerNet(
    backbone: keras.Model,
    num_classes: int,
    *,
    channels: int = 512,
    pool_scales: Sequence[int] = (1, 2, 3, 6),
    auxiliary: bool = False,
    auxiliary_channels: int = 256,
    dropout: float = 0.1,
    name: str = "upernet",
) -> keras.Model:
    """Build a segmentation model on an encoder, whose layers it shares: `UPerNet(Swin(…, 0, features=True), 150)`.

    Args:
        backbone: a model with maps `(batch, *space, channels)` of at least two resolutions among its outputs, which are
            a dict, a list or a tuple; other outputs are of no matter.
        num_classes: number of classes.
        channels: of all maps of the head.
        pool_scales: how many regions along each axis the coarsest map is pooled to, for each p_s.
        auxiliary: whether the coarsest map but one gets a head of its own, a convolution and C, to help training (a
            loss of weight 0.4 in the reference).
        auxiliary_channels: of the convolution of that.
        dropout: share of the channels set to zero while training, in front of C.
        name: name of the model.

    Returns:
        A model from the inputs of the encoder to logits `(batch, *space, num_classes)`, the space that of the input;
        with `auxiliary` to a dict of `"logits"` and `"auxiliary_0"`, the latter at the resolution of its map.

    Raises:
        InputError: if an argument is out of range, the encoder has not two maps, or two have the same resolution.
    """
    sizes = {"num_classes": num_classes, "channels": channels, "auxiliary_channels": auxiliary_channels}
    for argument, value in sizes.items():
        if value < 1:
            raise InputError(f"{argument} {value!r}: give 1 or more")
    if any(scale < 1 for scale in pool_scales):
        raise InputError(f"pool_scales {pool_scales!r}: give 1 or more regions")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout {dropout!r}: give a share from 0 to below 1")
    maps = feature_maps(backbone)
    *_, second, coarsest = maps
    space, rank = backbone.input_shape[1:-1], len(coarsest.shape) - 2

    def resized(x, like, name):
        return x if x.shape[1:-1] == like[1:-1] else LinearResizing(like[1:-1], name=name)(x)

    def classified(x, name):
        x = layers.Dropout(dropout, noise_shape=(None, *(1,) * rank, None), name=f"{name}_dropout")(x)
        return Dense(num_classes, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), name=name)(x)

    pooled = [coarsest]
    for scale in pool_scales:
        x = RegionMeans(scale, name=f"pooled_{scale}")(coarsest)  # (batch, scale, …, channels)
        x = _activated(x, channels, 1, f"pooled_{scale}")
        pooled.append(resized(x, coarsest.shape, f"pooled_{scale}_resizing"))
    x = layers.Concatenate(name="pooled")(pooled)
    lateral = [_activated(x, channels, 1, f"lateral_{i}") for i, x in enumerate(maps[:-1])]
    lateral.append(_activated(x, channels, 3, f"lateral_{len(maps) - 1}"))
    for i in reversed(range(len(lateral) - 1)):
        coarse = resized(lateral[i + 1], lateral[i].shape, f"lateral_{i + 1}_resizing")
        lateral[i] = layers.Add(name=f"sum_{i}")([lateral[i], coarse])
    fused = [_activated(x, channels, 3, f"fused_{i}") for i, x in enumerate(lateral[:-1])] + lateral[-1:]
    fused = [resized(x, maps[0].shape, f"fused_{i}_resizing") for i, x in enumerate(fused)]
    x = _activated(layers.Concatenate(name="fused")(fused), channels, 3, "fusion")  # (batch, *finest, channels)
    logits = resized(classified(x, "logits"), (None, *space, None), "resizing")  # (batch, *space, num_classes)
    if not auxiliary:
        return keras.Model(backbone.input, logits, name=name)
    helper = classified(_activated(second, auxiliary_channels, 3, "auxiliary"), "auxiliary_0")
    return keras.Model(backbone.input, {"logits": logits, "auxiliary_0": helper}, name=name)


def feature_maps(backbone: keras.Model) -> list:
    """The outputs of a model that are maps `(batch, *space, channels)`, from fine to coarse.

    Raises:
        InputError: if there are not two, or not all are of a known size and a resolution of their own.
    """
    rank = len(backbone.input_shape)
    maps = [x for x in keras.tree.flatten(backbone.output) if len(x.shape) == rank]
    shapes = [tuple(x.shape) for x in maps]
    if rank not in (4, 5) or len(maps) < 2 or any(None in shape[1:] for shape in shapes):
        raise InputError(
            f"backbone {backbone.name}: its maps have the shapes {shapes}; give a model that returns two or more of "
            "known sizes, such as Swin(…, features=True)"
        )
    if len({shape[1:-1] for shape in shapes}) < len(maps):
        raise InputError(
            f"backbone {backbone.name}: its maps have the shapes {shapes}; give a model whose maps have a resolution "
            "each that no other has"
        )
    return sorted(maps, key=lambda x: -prod(x.shape[1:-1]))


def _activated(x, channels: int, size: int, name: str):
    """A product or convolution without a bias, batch normalisation and ReLU."""
    initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    if size == 1:
        product = Dense(channels, use_bias=False, kernel_initializer=initializer, name=f"{name}_product")
    else:
        product = Convolution(
            channels, size, use_bias=False, kernel_initializer=initializer, name=f"{name}_convolution"
        )
    return layers.ReLU(name=f"{name}_relu")(normalization("batch", f"{name}_norm")(product(x)))
