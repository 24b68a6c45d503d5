"""Residual U-Net with strided convolutions, parametric ReLUs and instance normalisation.

    unit(x) = (φ ∘ IN ∘ conv)^n(x) + shortcut(x),   φ(x) = max(x, 0) + a min(x, 0)
    e_0 = unit(x),  e_l = unit(e_{l−1}),  each but the last at half the resolution of its input
    d_l = unit_1(φ(IN(up([e_l; d_{l+1}])))),  d_L = e_L,  logits = d_0

`up` is a transposed 3 × 3 convolution with stride 2; n is 2 in the encoder and 1 in the decoder. At the top `up` goes
to the classes, and the last unit ends with its convolution. A parametric ReLU has one slope a for all channels.

Source: Kerfoot et al., "Left-ventricle quantification using residual U-Net", STACOM 2018. Reference implementation:
`UNet` of MONAI 1.6, with `num_res_units=2`.

Deviation: convolutions in front of a normalisation have no bias, which it takes away; MONAI's parameter counts contain
them.
"""

from collections.abc import Sequence

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import Convolution, GroupNormalization, PReLU, TransposedConvolution
from kseq.models.registry import Variant
from kseq.models.unet import check_unet


def ResidualUNet(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    channels: Sequence[int] = (16, 32, 64, 128, 256),
    convolutions: int = 2,
    dropout: float = 0.0,
    name: str = "residual_unet",
) -> keras.Model:
    """Build a residual U-Net for signals, images or volumes.

    Args:
        input_shape: `(*space, channels)` with one to three axes of space, each a multiple of 2^L for L + 1 levels.
        num_classes: number of classes.
        channels: of each level, from the image down; the last, the bottleneck, has the resolution of the one before.
        convolutions: n, of the units of the encoder.
        dropout: share of values set to zero while training, behind each normalisation.
        name: name of the model.

    Returns:
        A model from numbers `(batch, *space, channels)` to logits `(batch, *space, num_classes)`.

    Raises:
        InputError: for an argument out of range, sizes that cannot be halved so often, or a bottleneck of one place.
    """
    check_unet(input_shape, num_classes, channels, "instance")
    if convolutions < 1:
        raise InputError(f"convolutions {convolutions!r}: give 1 or more")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout {dropout!r}: give a share from 0 to below 1")
    depth = len(channels) - 1

    def unit(x, filters: int, stride: int, count: int, name: str, *, plain: bool = False):
        y = x
        for i in range(count):
            y = Convolution(
                filters,
                3,
                strides=stride if i == 0 else 1,
                padding=1,
                use_bias=plain,
                kernel_initializer="he_normal",
                name=f"{name}_convolution_{i}",
            )(y)
            if not plain:
                y = activated(y, f"{name}_{{}}_{i}", dropout)
        if stride > 1 or x.shape[-1] != filters:
            size = 3 if stride > 1 else 1
            x = Convolution(filters, size, strides=stride, padding=size // 2, name=f"{name}_shortcut")(x)
        return layers.Add(name=f"{name}_sum")([x, y])

    images = keras.Input(tuple(input_shape), name="images")
    x, skips = images, []
    for level, filters in enumerate(channels):
        x = unit(x, filters, 2 if level < depth else 1, convolutions, f"encoder_{level}")
        skips.append(x)
    skips.pop()
    for level in reversed(range(depth)):
        filters = channels[level - 1] if level else num_classes
        x = layers.Concatenate(name=f"decoder_{level}_concatenation")([skips[level], x])
        x = TransposedConvolution(
            filters, 2, kernel_size=3, use_bias=False, kernel_initializer="he_normal", name=f"decoder_{level}_up"
        )(x)
        x = activated(x, f"decoder_{level}_up_{{}}", dropout)
        x = unit(x, filters, 1, 1, f"decoder_{level}", plain=level == 0)
    return keras.Model(images, layers.Identity(name="logits")(x), name=name)


def activated(x, name: str, dropout: float):
    """Instance normalisation without γ and β, dropout, and a parametric ReLU; `name` has a place for theirs."""
    x = GroupNormalization(-1, affine=False, name=name.format("norm"))(x)
    if dropout:
        x = layers.Dropout(dropout, name=name.format("dropout"))(x)
    slope = keras.initializers.Constant(0.25)
    axes = list(range(1, len(x.shape)))
    return PReLU(slope, shared_axes=axes, name=name.format("activation"))(x)


VARIANTS = {
    "residual_unet": Variant(
        ResidualUNet, {"input_shape": (96, 96, 96, 1), "num_classes": 2}, 4_805_263, "Kerfoot et al. 2018"
    )
}
