"""Swin-Unet: a U-shaped network of Swin transformer blocks alone, with or without global tokens.

    encoder:  x_0 = LN(patches E + b),   x_{i+1} = merge(stage_i(x_i))        for the stages i = 0 … n − 1
    decoder:  y_{n−1} = LN(stage_{n−1}(x_{n−1}))
              y_i = stage'_i([up(y_{i+1}); x_i] W_i + b_i)                    for i = n − 2 … 0
    logits = expand(LN(y_0)) W

with merge the patch merging and the stages of Swin (`kseq.models.swin`), up patch expanding by 2, and expand that by
the patch, to as many channels as before. The skips are the inputs of the stages.

Source: Cao et al., "Swin-Unet: Unet-like pure transformer for medical image segmentation", ECCVW 2022 (arXiv
2105.05537). With global tokens it is the GLAM-Swin-Unet of Themyr et al., "Full contextual attention for
multi-resolution transformers in semantic segmentation", WACV 2023 (arXiv 2212.07890): the stages of encoder and decoder
have tokens and positions of their own; with `upsampling="non_local"` up is that paper's non-local upsampling, in which
the skip x_i asks y_{i+1}.

Reference implementations: HuCaoFighting/Swin-Unet, `swin_transformer_unet_skip_expand_decoder_sys.py`; themyrl/glam,
mmseg/models/utils/swin_unet_v2_utils_gtv8.py and swin_unet_v2_gtv8_cross_attention_utils.py.

Deviations: any number of stages, where the references have four. As there, stage'_i has the depth of stage_i unless
`decoder_depths` says otherwise (their argument of this name is never read), and its stochastic depth is that of
stage_i. Images of one channel have patches of their own; the references repeat the channel three times. What `Swin`
says of windows, masks and the last G-MSA of a stage goes for all stages here. Non-local upsampling has the bias of the
true offsets, see `kseq.layers.NonLocalUpsampling`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import keras
import numpy as np
from keras import layers

from kseq.errors import InputError
from kseq.layers import (
    Dense,
    LayerNormalization,
    NonLocalUpsampling,
    PatchEmbedding,
    PatchExpanding,
    PatchMerging,
)
from kseq.models.divisible import multiples
from kseq.models.registry import Variant
from kseq.models.swin import initializer, stochastic_depths, swin_stage


def SwinUnet(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    patch_size: int | Sequence[int] = 4,
    embed_dim: int = 96,
    depths: Sequence[int] = (2, 2, 2, 2),
    decoder_depths: Sequence[int] | None = None,
    num_heads: Sequence[int] = (3, 6, 12, 24),
    window_size: int | Sequence[int] = 7,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    global_tokens: int = 0,
    global_positions: Sequence[int] | None = None,
    upsampling: Literal["expand", "non_local"] = "expand",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    drop_path: float = 0.2,
    epsilon: float = 1e-5,
    kernel_initializer=None,
    legacy: bool = False,
    remat: bool = False,
    name: str = "swin_unet",
) -> keras.Model:
    """Build a Swin-Unet for images or volumes, with `global_tokens` a GLAM-Swin-Unet.

    Args:
        input_shape: `(height, width, channels)` or `(depth, height, width, channels)`, without the batch. Each size
            must be a multiple of the patch times 2^(stages − 1).
        num_classes: number of classes.
        patch_size: voxels of a patch along each axis, or one number for all.
        embed_dim: channels of the first stage; each stage has twice those of the one before.
        depths: number of blocks of each stage of the encoder; there are two stages or more.
        decoder_depths: number of blocks of each stage of the decoder, the finest first, one less than `depths`; `None`
            is `depths` without the last.
        num_heads: heads of the attentions of each stage; must divide its channels.
        window_size: of the attentions along each axis, or one number for all.
        mlp_ratio: size of the hidden layer of each MLP, in units of the channels.
        qkv_bias: whether the products that make query, key and value have a bias.
        global_tokens: g of each window; 0 for none.
        global_positions: rows of the tables of positions of global tokens at each resolution, of which a map uses the
            middle; `None` is as many as the map has tokens. Checkpoints of GLAM have (45 g // 2^i)² at resolution i.
        upsampling: patch expanding, "expand", or "non_local" upsampling.
        dropout: share of values set to zero while training, behind the patches and in the blocks.
        attention_dropout: share of attention weights set to zero while training.
        drop_path: stochastic depth of the last block of the encoder; that of the others rises to it linearly from 0.
        epsilon: of the layer normalisations.
        kernel_initializer: of all products; `None` is the papers' truncated normal with 0.02, which is meant for 96
            channels. Models that are much narrower begin too close to zero with it and hardly learn from random
            weights; give them "lecun_normal".
        legacy: whether non-local upsampling is that of the reference, for its checkpoints.
        remat: whether blocks are computed again in the backward pass instead of kept: memory for time.
        name: name of the model.

    Returns:
        A model from numbers `(batch, *input_shape)` to logits `(batch, *space, num_classes)`, the space that of the
        input.

    Raises:
        InputError: for an argument out of range, numbers that are not one for each stage, heads that do not divide the
            channels, or a size of the input that the stages cannot halve.
    """
    if len(input_shape) not in (3, 4) or any(not isinstance(size, int) or size < 1 for size in input_shape):
        raise InputError(
            f"input_shape {input_shape!r}: give (height, width, channels) or (depth, height, width, channels)"
        )
    for argument, value in (("num_classes", num_classes), ("embed_dim", embed_dim)):
        if value < 1:
            raise InputError(f"{argument} {value!r}: give 1 or more")
    if len(depths) < 2 or any(depth < 1 for depth in depths):
        raise InputError(f"depths {depths!r}: give 1 or more blocks for each of two stages or more")
    last = len(depths) - 1
    decoder_depths = depths[:last] if decoder_depths is None else decoder_depths
    if len(decoder_depths) != last or any(depth < 1 for depth in decoder_depths):
        raise InputError(f"decoder_depths {decoder_depths!r}: give 1 or more blocks for each of {last} stages")
    for argument, values in (("num_heads", num_heads), ("global_positions", global_positions or depths)):
        if len(values) != len(depths):
            raise InputError(f"{argument} {values!r}: give one number for each of {len(depths)} stages")
    if any(heads < 1 or embed_dim * 2**stage % heads for stage, heads in enumerate(num_heads)):
        channels = tuple(embed_dim * 2**stage for stage in range(len(depths)))
        raise InputError(f"num_heads {num_heads!r}: give divisors of the channels of the stages, {channels}")
    if global_positions and not global_tokens:
        raise InputError(f"global_positions {global_positions!r}: belong to global tokens; give global_tokens too")
    if upsampling not in ("expand", "non_local"):
        raise InputError(f"upsampling {upsampling!r}: choose 'expand' or 'non_local'")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout {dropout!r}: give a share from 0 to below 1")
    products = partial(initializer, kernel_initializer)
    patch = (patch_size,) * (len(input_shape) - 1) if isinstance(patch_size, int) else tuple(patch_size)
    patches = PatchEmbedding(embed_dim, patch, kernel_initializer=products(), name="patch_embedding")
    check_sizes(input_shape[:-1], patch, 2**last)

    def stage(x, i, depth, path, name):
        return swin_stage(
            x,
            depth=depth,
            num_heads=num_heads[i],
            window_size=window_size,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            global_tokens=global_tokens,
            global_positions=global_positions[i] if global_positions else None,
            dropout=dropout,
            attention_dropout=attention_dropout,
            drop_path=path,
            epsilon=epsilon,
            kernel_initializer=kernel_initializer,
            remat=remat,
            name=name,
        )

    images = keras.Input(tuple(input_shape), name="images")
    x = LayerNormalization(epsilon=epsilon, name="patch_norm")(patches(images))  # (batch, *space, embed_dim)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    skips, paths = [], stochastic_depths(drop_path, depths)
    for i in range(last):
        skips.append(x)
        x = stage(x, i, depths[i], paths[i], f"stage_{i}")
        x = PatchMerging(epsilon=epsilon, kernel_initializer=products(), name=f"stage_{i}_merging")(x)
    x = stage(x, last, depths[last], paths[last], f"stage_{last}")
    x = LayerNormalization(epsilon=epsilon, name=f"stage_{last}_norm")(x)

    for i in reversed(range(last)):
        stage_name, path = f"decoder_stage_{i}", list(np.linspace(paths[i][0], paths[i][-1], decoder_depths[i]))
        if upsampling == "expand":
            expanding = PatchExpanding(
                2, epsilon=epsilon, kernel_initializer=products(), name=f"{stage_name}_expanding"
            )
            x = expanding(x)
        else:
            x = NonLocalUpsampling(
                num_heads[i],
                window_size,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                dropout=dropout,
                attention_dropout=attention_dropout,
                drop_path=path[0],
                epsilon=epsilon,
                legacy=legacy,
                kernel_initializer=products(),
                name=f"{stage_name}_upsampling",
            )(x, skips[i])
        x = layers.Concatenate(name=f"{stage_name}_skip")([x, skips[i]])
        x = Dense(embed_dim * 2**i, kernel_initializer=products(), name=f"{stage_name}_reduction")(x)
        x = stage(x, i, decoder_depths[i], path, stage_name)
    x = LayerNormalization(epsilon=epsilon, name="decoder_norm")(x)
    x = PatchExpanding(
        patch, output_dim=embed_dim, epsilon=epsilon, kernel_initializer=products(), name="final_expanding"
    )(x)  # (batch, *space of the input, embed_dim)
    return keras.Model(
        images, Dense(num_classes, use_bias=False, kernel_initializer=products(), name="logits")(x), name=name
    )


def check_sizes(space: Sequence[int], patch: Sequence[int], factor: int) -> None:
    """Raise InputError if a patch, `factor` times as large along each axis, does not divide the space of an input."""
    if len(patch) != len(space) or any(p < 1 for p in patch):
        raise InputError(f"patch_size {patch}: give 1 or more voxels for each axis of {tuple(space)}")
    least = [p * factor for p in patch]
    if any(size % unit for size, unit in zip(space, least, strict=True)):
        raise InputError(
            f"input_shape of {tuple(space)}: patches of {tuple(patch)} halved to 1 / {factor} need multiples of "
            f"{tuple(least)}; give an input of {multiples(space, least)}, or fewer stages"
        )


def _variant(parameters: int, source: str, **arguments) -> Variant:
    return Variant(SwinUnet, {"input_shape": (224, 224, 3), "num_classes": 9} | arguments, parameters, source)


VARIANTS = {
    "swin_unet_t": _variant(27_168_900, "Cao et al. 2022"),
    "glam_swin_unet_t": _variant(35_006_328, "Themyr et al. 2023", global_tokens=1, upsampling="non_local"),
}
