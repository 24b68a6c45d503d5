"""Attention U-Net: a U-Net whose skips are gated by the map from below.

    e_l = convs(e_{l−1}),  u_l = ReLU(BN(up(d_{l+1}))),  α_l = AttentionGate(e_l, u_l)
    d_l = φ(IN(conv([α_l e_l; u_l]))),  d_L = e_L,  logits = W d_0 + b

with two 3 × 3 convolutions, BN and ReLU a level, the first of stride 2 below the top, and transposed 3 × 3 convolutions
`up`. φ is a parametric ReLU with one slope.

Source: Oktay et al., "Attention U-Net: learning where to look for the pancreas", MIDL 2018 (arXiv 1804.03999).
Reference implementation: `AttentionUnet` of MONAI 1.6, whose gates look at u_l where the paper's look at d_{l+1}. The
gates in a U-Net as of Ronneberger et al. are `UNet(attention_gates=True)`.

Deviation: convolutions in front of a normalisation have no bias, which it takes away; MONAI's parameter counts contain
them.
"""

from collections.abc import Sequence

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import AttentionGate, Convolution, TransposedConvolution, normalization
from kseq.models.registry import Variant
from kseq.models.residual_unet import activated
from kseq.models.unet import check_unet


def AttentionUNet(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    channels: Sequence[int] = (16, 32, 64, 128, 256),
    dropout: float = 0.0,
    name: str = "attention_unet",
) -> keras.Model:
    """Build an attention U-Net for signals, images or volumes.

    Args:
        input_shape: `(*space, channels)` with one to three axes of space, each a multiple of 2^L for L + 1 levels.
        num_classes: number of classes.
        channels: of each level, from the image down; the last is the bottleneck.
        dropout: share of values set to zero while training, behind the normalisations of convolutions.
        name: name of the model.

    Returns:
        A model from numbers `(batch, *space, channels)` to logits `(batch, *space, num_classes)`.

    Raises:
        InputError: for an argument out of range, or sizes that cannot be halved so often.
    """
    check_unet(input_shape, num_classes, channels)
    if not 0 <= dropout < 1:
        raise InputError(f"dropout {dropout!r}: give a share from 0 to below 1")

    def normalised(x, name: str):
        x = normalization("batch", name.format("norm"))(x)
        if dropout:
            x = layers.Dropout(dropout, name=name.format("dropout"))(x)
        return layers.ReLU(name=name.format("activation"))(x)

    def convolution(x, filters: int, stride: int, name: str):
        return Convolution(
            filters, 3, strides=stride, padding=1, use_bias=False, kernel_initializer="he_normal", name=name
        )(x)

    images = keras.Input(tuple(input_shape), name="images")
    x, skips = images, []
    for level, filters in enumerate(channels):
        for i in range(2):
            x = convolution(x, filters, 2 if level and i == 0 else 1, f"encoder_{level}_convolution_{i}")
            x = normalised(x, f"encoder_{level}_{{}}_{i}")
        skips.append(x)
    skips.pop()
    for level in reversed(range(len(skips))):
        filters, skip = channels[level], skips[level]
        up = TransposedConvolution(
            filters, 2, kernel_size=3, use_bias=False, kernel_initializer="he_normal", name=f"decoder_{level}_up"
        )(x)
        up = normalised(up, f"decoder_{level}_up_{{}}")
        gate = AttentionGate(name=f"attention_gate_{level}")([skip, up])
        skip = layers.Multiply(name=f"gated_skip_{level}")([skip, gate])
        x = layers.Concatenate(name=f"decoder_{level}_concatenation")([skip, up])
        x = convolution(x, filters, 1, f"decoder_{level}_convolution")
        x = activated(x, f"decoder_{level}_{{}}", dropout)
    logits = Convolution(num_classes, 1, kernel_initializer="he_normal", name="logits")(x)
    return keras.Model(images, logits, name=name)


VARIANTS = {
    "attention_unet": Variant(
        AttentionUNet, {"input_shape": (96, 96, 96, 1), "num_classes": 2}, 5_910_366, "Oktay et al. 2018"
    )
}
