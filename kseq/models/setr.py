"""SETR: segmentation by a vision transformer, with a decoder of convolutions.

The encoder is `kseq.models.ViT` without its head; z_l is the output of its block l as a map on the grid of patches, L
the depth. From these the decoder makes logits, with up the linear interpolation:

    naive  logits = up(W ReLU(BN(V LN(z_L))))                                        W, V of kernel 1
    PUP    x_0 = LN(z_L),   x_i = up_2(ReLU(BN(V_i ∗ x_{i−1}))),   logits = up(W x_n)  V_i of kernel 3
           "progressive upsampling": W stands in front of the last of the n steps, with which the map is an image again
    MLA    p_i = ReLU(BN(U_i LN(z_{l_i}))),   s_4 = p_4,   s_i = s_{i+1} + p_i       for blocks l_1 < … < l_4 = L
           q_i = ReLU(BN(V_i ∗ s_i)),   logits = up(W ∗ [h_1; h_2; h_3; h_4])        "multi-level aggregation"
           with h_i two more convolutions of q_i of half as many channels, interpolated to four times the size

Source: Zheng et al., "Rethinking semantic segmentation from a sequence-to-sequence perspective with transformers", CVPR
2021 (arXiv 2012.15840). Reference implementation: fudan-zvg/SETR, mmseg/models/backbones/vit.py, vit_mla.py,
decode_heads/vit_up_head.py, vit_mla_head.py, vit_mla_auxi_head.py, and its configurations.

As the reference, but not the paper: naive and PUP keep a class token beside the patches through all blocks, MLA does
not; and MLA's interpolation to four times the size aligns the corners, all others do not. Deviations: inputs need not
be square; patches of 2^n have n steps of PUP, where the reference has four; volumes work like images. The class token
and its position, which MLA of the reference has but drops in front of the first block, do not exist here, nor do the
biases of convolutions whose normalisation takes them away. Layers are initialised as those of ViT, convolutions Glorot
uniform.
"""

from collections.abc import Sequence
from math import ceil, log2
from typing import Literal

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import Convolution, LayerNormalization, LinearResizing
from kseq.models.conv_norm_relu import conv_norm_relu
from kseq.models.registry import Variant
from kseq.models.vit import ViT

READ_BY_AUXILIARY_HEADS = (10, 15, 20, 24)  # of 24 blocks, counted from 1; naive has but the first three


def SETR(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    decoder: Literal["naive", "pup", "mla"] = "naive",
    patch_size: int | Sequence[int] = 16,
    embed_dim: int = 1024,
    depth: int = 24,
    num_heads: int = 16,
    mlp_ratio: float = 4.0,
    channels: int = 256,
    class_token: bool | None = None,
    auxiliary: bool | Sequence[int] = False,
    position: Literal["learned", "sinusoidal"] = "learned",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    drop_path: float = 0.0,
    epsilon: float = 1e-6,
    remat: bool = False,
    name: str = "setr",
) -> keras.Model:
    """Build a SETR for images or volumes.

    Args:
        input_shape: `(height, width, channels)` or `(depth, height, width, channels)`, without the batch.
        num_classes: number of classes.
        decoder: "naive", "pup" or "mla", see the module.
        patch_size: voxels of a patch along each axis, or one number for all; must divide the input.
        embed_dim: size of a token.
        depth: number of encoder blocks, L; for "mla" 4 or more.
        num_heads: heads of each attention; must divide `embed_dim`.
        mlp_ratio: size of the hidden layer of each MLP, in units of `embed_dim`.
        channels: of the maps in the decoder.
        class_token: whether a class token takes part in the encoder; `None` is as published: for "naive" and "pup".
        auxiliary: whether there are auxiliary heads, to train the blocks between: of "mla" a linear map of each q_i;
            of the others decoders of one convolution. These read about the published blocks, ⅖, ⅝ and ⅚ of the way
            up, for "pup" the last one too, or those given, counted from 0.
        position: "learned" vector of every position, or "sinusoidal" code along each axis.
        dropout: share of values set to zero while training, behind the positions and in the blocks.
        attention_dropout: share of attention weights set to zero while training.
        drop_path: stochastic depth of the last block; that of the others rises to it linearly from 0.
        epsilon: of the layer normalisations.
        remat: whether blocks are computed again in the backward pass instead of kept: memory for time.
        name: name of the model.

    Returns:
        A model from numbers `(batch, *input_shape)` to logits `(batch, *space, num_classes)`; with `auxiliary` to a
        dict of these, "logits", "auxiliary_0", "auxiliary_1", …, all in the space of the input.

    Raises:
        InputError: for an argument out of range, or patches or heads that do not divide their size.
    """
    if decoder not in DECODERS:
        raise InputError(f"decoder {decoder!r}: choose one of {', '.join(DECODERS)}")
    for argument, value in (("num_classes", num_classes), ("channels", channels)):
        if value < 1:
            raise InputError(f"{argument} {value!r}: give 1 or more")
    if decoder == "mla":
        if depth < 4:
            raise InputError(f"depth {depth!r}: decoder 'mla' reads four blocks; give 4 or more")
        if channels % 2:
            raise InputError(f"channels {channels!r}: decoder 'mla' halves them; give an even number")
    read = _read_by_auxiliary_heads(decoder, depth, auxiliary)
    encoder = ViT(
        input_shape,
        0,
        patch_size=patch_size,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=mlp_ratio,
        pooling="token" if (decoder != "mla" if class_token is None else class_token) else "mean",
        position=position,
        dropout=dropout,
        attention_dropout=attention_dropout,
        drop_path=drop_path,
        epsilon=epsilon,
        features=True,
        remat=remat,
    )
    space, blocks = tuple(input_shape[:-1]), [encoder.output[f"block_{block}"] for block in range(depth)]
    patch = patch_size if isinstance(patch_size, int) else max(patch_size)
    logits, levels = DECODERS[decoder](blocks, num_classes, channels, patch, epsilon)
    answer = LinearResizing(space, name="resized_logits")(logits)
    if not auxiliary:
        return keras.Model(encoder.input, answer, name=name)
    answers = {"logits": answer}
    for head, source in enumerate(levels or [blocks[block] for block in read]):
        head_name, x = f"auxiliary_{head}", source
        if not levels:
            x = LayerNormalization(epsilon=epsilon, name=f"{head_name}_norm")(x)
            x = conv_norm_relu(x, channels, 1 if decoder == "naive" else 3, f"{head_name}_{{}}_0")
            x = LinearResizing(scale=4, name=f"{head_name}_resizing_0")(x) if decoder == "pup" else x
        x = Convolution(num_classes, 1, use_bias=not levels, name=f"{head_name}_logits")(x)
        answers[head_name] = LinearResizing(space, name=head_name)(x)
    return keras.Model(encoder.input, answers, name=name)


def _naive(blocks, num_classes: int, channels: int, patch: int, epsilon: float):
    x = LayerNormalization(epsilon=epsilon, name="decoder_norm")(blocks[-1])
    x = conv_norm_relu(x, channels, 1, "decoder_{}_0")
    return Convolution(num_classes, 1, name="logits")(x), []  # (batch, *grid, num_classes)


def _pup(blocks, num_classes: int, channels: int, patch: int, epsilon: float):
    x = LayerNormalization(epsilon=epsilon, name="decoder_norm")(blocks[-1])
    steps = max(ceil(log2(patch)), 1)
    for step in range(steps):
        x = conv_norm_relu(x, channels, 3, f"decoder_{{}}_{step}")
        if step < steps - 1:
            x = LinearResizing(scale=2, name=f"decoder_resizing_{step}")(x)  # (batch, *(2 space), channels)
    return Convolution(num_classes, 1, name="logits")(x), []


def _mla(blocks, num_classes: int, channels: int, patch: int, epsilon: float):
    levels, heads, s = [], [], None
    for level in reversed(range(4)):
        x = blocks[(level + 1) * len(blocks) // 4 - 1]
        x = LayerNormalization(epsilon=epsilon, name=f"level_{level}_norm")(x)
        x = conv_norm_relu(x, channels, 1, f"level_{level}_lateral_{{}}")
        s = x if s is None else layers.Add(name=f"level_{level}_sum")([s, x])
        x = conv_norm_relu(s, channels, 3, f"level_{level}_{{}}")
        levels.insert(0, x)
        for step in range(2):
            x = conv_norm_relu(x, channels // 2, 3, f"level_{level}_head_{{}}_{step}")
        heads.insert(0, LinearResizing(scale=4, align_corners=True, name=f"level_{level}_resizing")(x))
    x = layers.Concatenate(name="levels")(heads)  # (batch, *(4 grid), 2 channels)
    return Convolution(num_classes, 3, name="logits")(x), levels


DECODERS = {"naive": _naive, "pup": _pup, "mla": _mla}


def _read_by_auxiliary_heads(decoder: str, depth: int, auxiliary) -> list[int]:
    if isinstance(auxiliary, bool):
        published = READ_BY_AUXILIARY_HEADS[: 4 if decoder == "pup" else 3]
        return [*dict.fromkeys(-(-block * depth // 24) - 1 for block in published)]
    if decoder == "mla":
        raise InputError(f"auxiliary {auxiliary!r}: the heads of decoder 'mla' read its four maps; give True or False")
    if any(not 0 <= block < depth for block in auxiliary):
        raise InputError(f"auxiliary {auxiliary!r}: give numbers of blocks from 0 to {depth - 1}")
    return [*auxiliary]


LARGE = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
BASE = {"embed_dim": 768, "depth": 12, "num_heads": 12}


def _variant(decoder: str, sizes: dict, parameters: int) -> Variant:
    arguments = {"input_shape": (768, 768, 3), "num_classes": 19, "decoder": decoder} | sizes
    return Variant(SETR, arguments, parameters, "Zheng et al. 2021")


VARIANTS = {  # counted without the running statistics of batch normalisation
    "setr_naive_b": _variant("naive", BASE, 87_619_603),
    "setr_naive_l": _variant("naive", LARGE, 305_727_763),
    "setr_pup_b": _variant("pup", BASE, 90_963_475),
    "setr_pup_l": _variant("pup", LARGE, 309_595_923),
    "setr_mla_b": _variant("mla", BASE, 92_429_587),
    "setr_mla_l": _variant("mla", LARGE, 310_735_379),
}
