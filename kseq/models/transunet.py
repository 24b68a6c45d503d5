"""TransUNet: a transformer encoder upon the deepest map of a residual network, a decoder with that network's skips.

    encoder:  z_0 = [x_1 E; …; x_N E] + E_pos,  the x_i places of the deepest map, or patches of the image if it is pure
              z_l by blocks as those of `kseq.models.ViT`, l = 1 … L, then y = LN(z_L) as a map on the grid of tokens
    decoder:  d_0 = f(y),   d_i = f(f([up_2(d_{i−1}); s_i])),  i = 1 … 4,   f(x) = ReLU(BN(w ∗ x)) with kernel 3
    logits = w ∗ d_4 + b

with up_2 bilinear interpolation to twice the size, corners aligned, and s_i the maps of the network with that size, of
which the last step has none.

Source: Chen et al., "TransUNet: Transformers make strong encoders for medical image segmentation", 2021 (arXiv
2102.04306). Reference implementation: Beckschen/TransUNet, networks/vit_seg_modeling.py,
vit_seg_modeling_resnet_skip.py, vit_seg_configs.py.

As the reference: the pooling of the residual network has no padding, so its first stage is one place short of a quarter
of the image and its skip is filled up with zeros behind its end. All published weights, those of the pre-training too,
are of this model. Deviations: inputs need not be square; `hybrid=False` works, where the reference's configurations
lack numbers; dropout also drops what the attentions return. An image of one channel is repeated three times, as in the
reference. Convolutions are initialised Glorot uniform, the table of positions with 0 as in the reference.
"""

from collections.abc import Sequence

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import (
    Convolution,
    LayerNormalization,
    LearnedPositionEncoding,
    LinearResizing,
    PatchEmbedding,
    TransformerEncoderBlock,
)
from kseq.models.conv_norm_relu import conv_norm_relu
from kseq.models.divisible import multiples
from kseq.models.registry import Variant
from kseq.models.resnet_v2 import GROUPS, resnet_v2

PATCH = 16  # the decoder doubles four times


def TransUNet(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    hybrid: bool = True,
    embed_dim: int = 768,
    depth: int = 12,
    num_heads: int = 12,
    mlp_ratio: float = 4.0,
    resnet_width: int = 64,
    resnet_depths: Sequence[int] = (3, 4, 9),
    bridge_channels: int = 512,
    decoder_channels: Sequence[int] = (256, 128, 64, 16),
    skips: int = 3,
    dropout: float = 0.1,
    attention_dropout: float = 0.0,
    drop_path: float = 0.0,
    epsilon: float = 1e-6,
    remat: bool = False,
    name: str = "transunet",
) -> keras.Model:
    """Build a TransUNet for images.

    Args:
        input_shape: `(height, width, channels)`, without the batch; both sizes multiples of 16.
        num_classes: number of classes.
        hybrid: whether tokens are made of the residual network's map; if not, of patches of 16 × 16, and there are no
            skips.
        embed_dim: size of a token.
        depth: number of encoder blocks, L.
        num_heads: heads of each attention; must divide `embed_dim`.
        mlp_ratio: size of the hidden layer of each MLP, in units of `embed_dim`.
        resnet_width: channels of the network's root, a multiple of 32.
        resnet_depths: number of blocks of each of its three stages.
        bridge_channels: of d_0.
        decoder_channels: of d_1 … d_4.
        skips: how many steps of the decoder have one, the deepest first.
        dropout: share of values set to zero while training, behind the positions and in the blocks; not together with
            `remat`.
        attention_dropout: share of attention weights set to zero while training.
        drop_path: stochastic depth of the last block; that of the others rises to it linearly from 0.
        epsilon: of the layer normalisations.
        remat: whether blocks are computed again in the backward pass instead of kept: memory for time.
        name: name of the model.

    Returns:
        A model from numbers `(batch, height, width, channels)` to logits `(batch, height, width, num_classes)`.

    Raises:
        InputError: for an argument out of range, heads that do not divide `embed_dim`, or sizes that are no multiples
            of 16.
    """
    if len(input_shape) != 3 or any(not isinstance(size, int) or size < 1 for size in input_shape):
        raise InputError(f"input_shape {input_shape!r}: give (height, width, channels)")
    space = tuple(input_shape[:2])
    if any(size % PATCH for size in space):
        raise InputError(
            f"input_shape {tuple(input_shape)}: height and width must be multiples of {PATCH}; give an input of "
            f"{multiples(space, (PATCH, PATCH))}"
        )
    for argument, value in (
        ("num_classes", num_classes),
        ("embed_dim", embed_dim),
        ("depth", depth),
        ("bridge_channels", bridge_channels),
    ):
        if value < 1:
            raise InputError(f"{argument} {value!r}: give 1 or more")
    if num_heads < 1 or embed_dim % num_heads:
        raise InputError(f"num_heads {num_heads}: does not divide embed_dim {embed_dim}; give a divisor of it")
    for argument, values, count in (("decoder_channels", decoder_channels, 4), ("resnet_depths", resnet_depths, 3)):
        if len(values) != count or any(value < 1 for value in values):
            raise InputError(f"{argument} {values!r}: give {count} numbers of 1 or more")
    if resnet_width < 1 or resnet_width % GROUPS:
        raise InputError(f"resnet_width {resnet_width!r}: give a multiple of {GROUPS}, the groups of normalisation")
    if not 0 <= skips <= 3:
        raise InputError(f"skips {skips!r}: give a number from 0 to 3")
    if not 0 <= drop_path < 1:
        raise InputError(f"drop_path {drop_path!r}: give a share from 0 to below 1")

    images = keras.Input(tuple(input_shape), name="images")
    x, skip_maps = images, []
    if input_shape[-1] == 1:
        x = layers.Concatenate(name="three_channels")([x, x, x])  # (batch, height, width, 3)
    if hybrid:
        *maps, x = resnet_v2(x, width=resnet_width, depths=resnet_depths)
        sizes = [tuple(size // scale for size in space) for scale in (2, 4, 8)]
        maps = [_filled_up(skip, size, f"skip_{i}") for i, (skip, size) in enumerate(zip(maps, sizes, strict=True))]
        skip_maps = maps[::-1][:skips]
    grid = tuple(size // PATCH for size in space)
    x = PatchEmbedding(embed_dim, 1 if hybrid else PATCH, name="patch_embedding")(x)  # (batch, *grid, embed_dim)
    x = layers.Reshape((-1, embed_dim), name="tokens")(x)  # (batch, tokens, embed_dim)
    x = LearnedPositionEncoding(grid, initializer="zeros", name="position_encoding")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    for block in range(depth):
        x = TransformerEncoderBlock(
            num_heads,
            int(embed_dim * mlp_ratio),
            dropout=dropout,
            attention_dropout=attention_dropout,
            drop_path=drop_path * block / max(depth - 1, 1),
            epsilon=epsilon,
            remat=remat,
            name=f"encoder_block_{block}",
        )(x)
    x = LayerNormalization(epsilon=epsilon, name="encoder_norm")(x)
    x = layers.Reshape((*grid, embed_dim), name="map")(x)  # (batch, *grid, embed_dim)
    x = conv_norm_relu(x, bridge_channels, 3, "bridge_{}")
    for step, channels in enumerate(decoder_channels):
        x = LinearResizing(scale=2, align_corners=True, name=f"decoder_{step}_resizing")(x)
        if step < len(skip_maps):
            x = layers.Concatenate(name=f"decoder_{step}_skip")([x, skip_maps[step]])
        for i in range(2):
            x = conv_norm_relu(x, channels, 3, f"decoder_{step}_{{}}_{i}")
    return keras.Model(images, Convolution(num_classes, 3, name="logits")(x), name=name)


def _filled_up(x, size: tuple[int, int], name: str):
    """A map with zeros behind its end, up to `size`."""
    pads = tuple((0, whole - n) for whole, n in zip(size, x.shape[1:-1], strict=True))
    return x if pads == ((0, 0), (0, 0)) else layers.ZeroPadding2D(pads, data_format="channels_last", name=name)(x)


def _variant(embed_dim: int, depth: int, num_heads: int, parameters: int, **arguments) -> Variant:
    sizes = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads} | arguments
    return Variant(TransUNet, {"input_shape": (224, 224, 3), "num_classes": 9} | sizes, parameters, "Chen et al. 2021")


VARIANTS = {  # counted without the running statistics of batch normalisation
    "transunet_b16": _variant(768, 12, 12, 91_674_201, hybrid=False),
    "transunet_r50_b16": _variant(768, 12, 12, 105_277_081),
    "transunet_r50_l16": _variant(1024, 24, 16, 324_024_729),
}
