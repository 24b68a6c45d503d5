"""U-Net: an encoder that halves the map, a decoder that doubles it, and skips between their levels.

At each level l of the encoder, and on the way back of the decoder, there are some 3 × 3 convolutions:

    e_0 = convs(x),   e_l = convs(pool(e_{l−1})),   d_L = e_L,   d_l = convs([e_l; up(d_{l+1})]),   logits = W d_0 + b

Source: Ronneberger, Fischer & Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015
(arXiv 1505.04597); in 3-D Çiçek et al. 2016 (arXiv 1606.06650), whose networks have fewer channels.

Deviations: convolutions are "same", so that logits have the size of the image and skips need not be cropped; with the
"valid" ones of the paper the number of parameters is the same. Options that are not of the paper: normalisation (Ioffe
& Szegedy 2015, of Çiçek et al.), residual blocks, deep supervision (Dou et al. 2016), attention gates (`AttentionGate`,
Oktay et al. 2018), a non-local block at the bottleneck (`NonLocalBlock`, Wang et al. 2018). MONAI's `UNet` and
`AttentionUnet` are other networks: `kseq.models.ResidualUNet` and `kseq.models.AttentionUNet`.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import (
    AttentionGate,
    Convolution,
    LinearResizing,
    MaxPooling,
    NonLocalBlock,
    TransposedConvolution,
)
from kseq.layers import (
    normalization as normalization_layer,
)
from kseq.models.divisible import multiples
from kseq.models.registry import Variant


def UNet(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    channels: Sequence[int] = (64, 128, 256, 512, 1024),
    convolutions: int = 2,
    normalization: Literal["batch", "group", "instance"] | None = None,
    groups: int = 8,
    activation: str = "relu",
    residual: bool = False,
    upsampling: Literal["transposed", "linear"] = "transposed",
    dropout: float = 0.0,
    attention_gates: bool = False,
    non_local: bool = False,
    deep_supervision: bool = False,
    name: str = "unet",
) -> keras.Model:
    """Build a U-Net for signals, images or volumes.

    Args:
        input_shape: `(*space, channels)` with one to three axes of space, each a multiple of 2^L for L + 1 levels.
        num_classes: number of classes.
        channels: of each level, from the image down; the last is the bottleneck.
        convolutions: 3 × 3 convolutions at each level, of the encoder and of the decoder.
        normalization: between each of these and its activation: "batch", "group", "instance", or `None`; with it they
            have no bias.
        groups: of "group".
        activation: of the convolutions.
        residual: whether the input of a level, where needed brought to its channels by a 1 × 1 convolution, is added in
            front of its last activation.
        upsampling: "transposed": a 2 × 2 transposed convolution halves the channels and doubles the map; "linear":
            a 1 × 1 convolution and linear interpolation do.
        dropout: share of values set to zero while training, behind the last two levels of the encoder.
        attention_gates: whether each skip is multiplied with an `AttentionGate` that looks at the map from below.
        non_local: whether there is a `NonLocalBlock` at the bottleneck.
        deep_supervision: whether the levels of the decoder have logits each.
        name: name of the model.

    Returns:
        A model from numbers `(batch, *space, channels)` to logits `(batch, *space, num_classes)`; with
        `deep_supervision` to a dict of these, `"logits"`, and of those of the decoder's other levels, `"auxiliary_0"`
        at half the resolution, `"auxiliary_1"` at a quarter, and so on.

    Raises:
        InputError: for an argument out of range, sizes that cannot be halved so often, or instance normalisation of a
            bottleneck of one place.
    """
    check_unet(input_shape, num_classes, channels, normalization)
    if convolutions < 1:
        raise InputError(f"convolutions {convolutions!r}: give 1 or more")
    if upsampling not in ("transposed", "linear"):
        raise InputError(f"upsampling {upsampling!r}: choose 'transposed' or 'linear'")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout {dropout!r}: give a share from 0 to below 1")

    def bottleneck(x):
        return NonLocalBlock(name="non_local")(x) if non_local else x

    def gated(skip, below, up, level):
        if not attention_gates:
            return skip
        gate = AttentionGate(name=f"attention_gate_{level}")([skip, up])
        return layers.Multiply(name=f"gated_skip_{level}")([skip, gate])

    images = keras.Input(tuple(input_shape), name="images")
    maps = unet_maps(
        images,
        bottleneck,
        gated,
        channels=channels,
        convolutions=convolutions,
        normalization=normalization,
        groups=groups,
        activation=activation,
        residual=residual,
        upsampling=upsampling,
        dropout=dropout,
    )
    return keras.Model(images, heads(maps, num_classes, deep_supervision), name=name)


def unet_maps(
    x,
    bottleneck: Callable,
    gated: Callable,
    *,
    channels: Sequence[int],
    convolutions: int = 2,
    normalization: str | None = None,
    groups: int = 8,
    activation: str = "relu",
    residual: bool = False,
    upsampling: str = "transposed",
    dropout: float = 0.0,
) -> list:
    """The maps d_0 … d_{L−1} of the decoder.

    `bottleneck` makes d_L from e_L, and `gated` what is concatenated in place of e_l from e_l, d_{l+1}, up(d_{l+1}) and
    l. The other arguments are those of `UNet`.
    """

    def block(x, filters: int, name: str):
        entry = x
        for i in range(convolutions):
            x = Convolution(
                filters,
                3,
                use_bias=normalization is None,
                kernel_initializer="he_normal",
                name=f"{name}_convolution_{i}",
            )(x)
            if normalization is not None:
                x = normalization_layer(normalization, f"{name}_norm_{i}", groups=groups)(x)
            if residual and i == convolutions - 1:
                if entry.shape[-1] != filters:
                    entry = Convolution(filters, 1, kernel_initializer="he_normal", name=f"{name}_shortcut")(entry)
                x = layers.Add(name=f"{name}_sum")([x, entry])
            x = layers.Activation(activation, name=f"{name}_activation_{i}")(x)
        return x

    depth, skips = len(channels) - 1, []
    for level, filters in enumerate(channels):
        if level:
            x = MaxPooling(2, name=f"encoder_{level}_pooling")(x)
        x = block(x, filters, f"encoder_{level}")
        if dropout and level >= depth - 1:
            x = layers.Dropout(dropout, name=f"encoder_{level}_dropout")(x)
        skips.append(x)
    x, maps = bottleneck(skips.pop()), []
    for level in reversed(range(depth)):
        filters, below = channels[level], x
        if upsampling == "transposed":
            up = TransposedConvolution(filters, 2, kernel_initializer="he_normal", name=f"decoder_{level}_up")(below)
        else:
            up = Convolution(filters, 1, kernel_initializer="he_normal", name=f"decoder_{level}_up")(below)
            up = LinearResizing(scale=2, name=f"decoder_{level}_resizing")(up)
        skip = gated(skips[level], below, up, level)
        x = layers.Concatenate(name=f"decoder_{level}_concatenation")([skip, up])
        x = block(x, filters, f"decoder_{level}")
        maps.insert(0, x)
    return maps


def heads(maps: Sequence, num_classes: int, deep_supervision: bool):
    """Logits of the first map, or a dict of those of all."""
    logits = Convolution(num_classes, 1, kernel_initializer="he_normal", name="logits")(maps[0])
    if not deep_supervision:
        return logits
    names = [f"auxiliary_{i}" for i in range(len(maps) - 1)]
    others = (Convolution(num_classes, 1, kernel_initializer="he_normal", name=name) for name in names)
    return {"logits": logits} | {n: head(x) for n, head, x in zip(names, others, maps[1:], strict=True)}


def check_unet(
    input_shape: Sequence[int], num_classes: int, channels: Sequence[int], normalization: str | None = None
) -> None:
    """An error for what no network that halves the map between its levels can be built with."""
    if len(input_shape) not in (2, 3, 4) or any(not isinstance(size, int) or size < 1 for size in input_shape):
        raise InputError(
            f"input_shape {input_shape!r}: give (height, width, channels) or (depth, height, width, channels), of "
            "signals (time, channels)"
        )
    if num_classes < 1:
        raise InputError(f"num_classes {num_classes!r}: give 1 or more")
    if len(channels) < 2 or any(count < 1 for count in channels):
        raise InputError(f"channels {tuple(channels)!r}: give 1 or more for each of two or more levels")
    space, factor = tuple(input_shape[:-1]), 2 ** (len(channels) - 1)
    if any(size % factor for size in space):
        raise InputError(
            f"input_shape {tuple(input_shape)}: its sizes are halved {len(channels) - 1} times, so they must be "
            f"multiples of {factor}; give {multiples(space, [factor] * len(space))}, or fewer levels"
        )
    if normalization == "instance" and all(size == factor for size in space):
        raise InputError(
            f"input_shape {tuple(input_shape)}: its deepest map, halved {len(channels) - 1} times, has one place, of "
            "which instance normalisation makes a constant; give a larger image or fewer levels"
        )


PAPER = "Ronneberger et al. 2015"


def _variant(parameters: int, *, source: str = PAPER, image=(256, 256, 1), **arguments) -> Variant:
    return Variant(UNet, {"input_shape": image, "num_classes": 2} | arguments, parameters, source)


VARIANTS = {
    "unet": _variant(31_030_658),
    "unet_attention": _variant(31_400_818, source="Oktay et al. 2018", normalization="batch", attention_gates=True),
    "unet_nonlocal": _variant(33_150_082, source="Wang et al. 2018", normalization="batch", non_local=True),
    "unet_3d": _variant(
        16_544_130,
        source="Çiçek et al. 2016",
        image=(64, 64, 64, 1),
        channels=(32, 64, 128, 256, 320),
        normalization="instance",
    ),
}
