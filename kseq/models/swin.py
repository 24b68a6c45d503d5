"""Swin transformer: windows of an image or a volume, shifted from block to block, on maps that get coarser by stages.

    x' = x + (S)W-MSA(LN(x)),   x = x' + MLP(LN(x'))     each block, W-MSA and SW-MSA by turns       (3)
    x = LN([x_00; x_10; x_01; x_11]) W                   patch merging between two stages
    y = mean(LN(x)),   logits = W y + b                  behind the last stage

Source: Liu et al., "Swin Transformer", ICCV 2021 (arXiv 2103.14030), with its equation number. With global tokens it is
GLAM: Themyr et al., "Full contextual attention for multi-resolution transformers in semantic segmentation", WACV 2023
(arXiv 2212.07890): each window of a stage has g tokens, and behind each block the tokens of all windows look at each
other, g = G-MSA(g + p) with learned positions p, so that two blocks see the whole map.

Reference implementations: microsoft/Swin-Transformer; timm, `swin_transformer.py`; for maps of all stages
SwinTransformer/Swin-Transformer-Semantic-Segmentation; themyrl/glam, `swin_transformer_gtv8.py`.

Deviations: stages and blocks are counted from 0, and a merging has the number of the stage in front of it (as in
Microsoft's code; timm has it at the beginning of the next). Images of any size are filled up with zeros to whole
patches, maps to whole windows. Along an axis that one window covers, the window is as long as the axis and not shifted
(as in timm; Microsoft's makes such windows square, GLAM's fills the map up). Masked weights are 0, not e^−100. The
G-MSA behind the last block of a stage, whose result the code of GLAM throws away, is not built: 3.14 M of the
parameters that its Swin-T has. Patches are initialised as all other products are.
"""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import (
    GlobalAttention,
    GlobalPositions,
    GlobalTokens,
    LayerNormalization,
    LearnedPositionEncoding,
    PatchEmbedding,
    PatchMerging,
    SwinBlock,
)
from kseq.layers.initializers import clone
from kseq.models.registry import Variant


def Swin(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    patch_size: int | Sequence[int] = 4,
    embed_dim: int = 96,
    depths: Sequence[int] = (2, 2, 6, 2),
    num_heads: Sequence[int] = (3, 6, 12, 24),
    window_size: int | Sequence[int] = 7,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    absolute_positions: bool = False,
    global_tokens: int = 0,
    global_positions: Sequence[int] | None = None,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    drop_path: float = 0.0,
    epsilon: float = 1e-5,
    kernel_initializer=None,
    legacy: bool = False,
    features: bool = False,
    remat: bool = False,
    name: str = "swin",
) -> keras.Model:
    """Build a Swin transformer for images or volumes, with `global_tokens` a GLAM-Swin.

    Args:
        input_shape: `(height, width, channels)` or `(depth, height, width, channels)`, without the batch.
        num_classes: number of classes; 0 for a model without a head, whose output is y.
        patch_size: voxels of a patch along each axis, or one number for all.
        embed_dim: channels of the first stage; each stage has twice those of the one before.
        depths: number of blocks of each stage.
        num_heads: heads of the attentions of each stage; must divide its channels.
        window_size: of the attentions along each axis, or one number for all.
        mlp_ratio: size of the hidden layer of each MLP, in units of the channels.
        qkv_bias: whether the products that make query, key and value have a bias.
        absolute_positions: whether a learned vector is added to every patch.
        global_tokens: g of each window; 0 for none.
        global_positions: rows of the table of positions of global tokens in each stage, of which a map uses the middle;
            `None` is as many as the map has tokens. Checkpoints of GLAM have (45 g // 2^i)² in stage i, for any map.
        dropout: share of values set to zero while training, behind the patches and in the blocks.
        attention_dropout: share of attention weights set to zero while training.
        drop_path: stochastic depth of the last of all blocks; that of the others rises to it linearly from 0.
        epsilon: of the layer normalisations.
        kernel_initializer: of all products; `None` is the papers' truncated normal with 0.02, which is meant for 96
            channels. Models that are much narrower begin too close to zero with it and hardly learn from random
            weights; give them "lecun_normal".
        legacy: whether maps that the windows do not fill are filled up as in timm, see `WindowAttention`.
        features: whether to return the maps of all stages too, each with a normalisation of its own.
        remat: whether blocks are computed again in the backward pass instead of kept: memory for time.
        name: name of the model.

    Returns:
        A model from numbers `(batch, *input_shape)` to logits `(batch, num_classes)`, without a head to y
        `(batch, channels)`. With `features` to a dict of the maps `"stage_0"` … `(batch, *space, channels)`, and of
        `"logits"` if there is a head; the last map is the one whose mean is y.

    Raises:
        InputError: for an argument out of range, as many depths as heads not given, heads that do not divide the
            channels, or too few `global_positions`.
    """
    if len(input_shape) not in (3, 4) or any(not isinstance(size, int) or size < 1 for size in input_shape):
        raise InputError(
            f"input_shape {input_shape!r}: give (height, width, channels) or (depth, height, width, channels)"
        )
    for argument, value, least in (("num_classes", num_classes, 0), ("embed_dim", embed_dim, 1)):
        if value < least:
            raise InputError(f"{argument} {value!r}: give {least} or more")
    if not depths or any(depth < 1 for depth in depths):
        raise InputError(f"depths {depths!r}: give 1 or more blocks for each stage")
    for argument, values in (("num_heads", num_heads), ("global_positions", global_positions or depths)):
        if len(values) != len(depths):
            raise InputError(f"{argument} {values!r}: give one number for each of {len(depths)} stages")
    if any(heads < 1 or embed_dim * 2**stage % heads for stage, heads in enumerate(num_heads)):
        channels = tuple(embed_dim * 2**stage for stage in range(len(depths)))
        raise InputError(f"num_heads {num_heads!r}: give divisors of the channels of the stages, {channels}")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout {dropout!r}: give a share from 0 to below 1")
    if global_positions and not global_tokens:
        raise InputError(f"global_positions {global_positions!r}: belong to global tokens; give global_tokens too")

    products = partial(initializer, kernel_initializer)
    patches = PatchEmbedding(
        embed_dim, patch_size, padding="same", kernel_initializer=products(), name="patch_embedding"
    )
    patches.compute_output_shape((None, *input_shape))  # or an error, before Keras can wrap it
    images = keras.Input(tuple(input_shape), name="images")
    x = patches(images)  # (batch, *space, embed_dim)
    x = LayerNormalization(epsilon=epsilon, name="patch_norm")(x)
    if absolute_positions:
        x = LearnedPositionEncoding(name="position_encoding")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    maps, last = {}, len(depths) - 1
    paths = stochastic_depths(drop_path, depths)
    for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
        x = swin_stage(
            x,
            depth=depth,
            num_heads=heads,
            window_size=window_size,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            global_tokens=global_tokens,
            global_positions=global_positions[stage] if global_positions else None,
            dropout=dropout,
            attention_dropout=attention_dropout,
            drop_path=paths[stage],
            epsilon=epsilon,
            kernel_initializer=kernel_initializer,
            legacy=legacy,
            remat=remat,
            name=f"stage_{stage}",
        )
        if features or stage == last:
            maps[f"stage_{stage}"] = LayerNormalization(epsilon=epsilon, name=f"stage_{stage}_norm")(x)
        if stage < last:
            x = PatchMerging(epsilon=epsilon, kernel_initializer=products(), name=f"stage_{stage}_merging")(x)
    if features and not num_classes:
        return keras.Model(images, maps, name=name)
    mean = layers.GlobalAveragePooling2D if len(input_shape) == 3 else layers.GlobalAveragePooling3D
    answer = mean("channels_last", name="mean")(maps[f"stage_{last}"])  # (batch, channels)
    if num_classes:
        answer = layers.Dense(num_classes, kernel_initializer=products(), name="logits")(answer)
    return keras.Model(images, {"logits": answer} | maps if features else answer, name=name)


def swin_stage(
    x,
    *,
    depth: int,
    num_heads: int,
    window_size: int | Sequence[int] = 7,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    global_tokens: int = 0,
    global_positions: int | None = None,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    drop_path: float | Sequence[float] = 0.0,
    epsilon: float = 1e-5,
    kernel_initializer=None,
    legacy: bool = False,
    remat: bool = False,
    name: str,
):
    """Add the blocks of one stage, every second one shifted, to the map `x` of a functional model.

    Layers are `{name}_block_{i}`; with global tokens, which begin anew in each stage, also `{name}_tokens`,
    `{name}_positions`, used by all blocks, and `{name}_block_{i}_global_attention` behind all blocks but the last.

    Args:
        x: a map `(batch, *space, dim)`.
        depth: number of blocks.
        num_heads: heads of all attentions; must divide `dim`.
        window_size: of the attentions along each axis, or one number for all.
        mlp_ratio: size of the hidden layer of each MLP, in units of `dim`.
        qkv_bias: whether the products that make query, key and value have a bias.
        global_tokens: g of each window; 0 for none.
        global_positions: rows of the table of positions of the global tokens; `None` is as many as there are tokens.
        dropout: share of values set to zero while training.
        attention_dropout: share of attention weights set to zero while training.
        drop_path: stochastic depth of all blocks, or of each.
        epsilon: of the layer normalisations.
        kernel_initializer: of all products, see `initializer`.
        legacy: whether maps are filled up as in timm, see `WindowAttention`.
        remat: whether blocks are computed again in the backward pass instead of kept.
        name: of the stage.

    Returns:
        A map of the same shape.
    """
    paths = [drop_path] * depth if isinstance(drop_path, (int, float)) else drop_path
    tokens = ()
    if global_tokens:
        tokens = (GlobalTokens(global_tokens, window_size, name=f"{name}_tokens")(x),)  # (batch, windows, g, dim)
        positions = GlobalPositions(global_positions, name=f"{name}_positions")
    for block in range(depth):
        x = SwinBlock(
            num_heads,
            window_size,
            shift=block % 2 == 1,
            mlp_ratio=mlp_ratio,
            global_tokens=global_tokens,
            qkv_bias=qkv_bias,
            dropout=dropout,
            attention_dropout=attention_dropout,
            drop_path=paths[block],
            epsilon=epsilon,
            legacy=legacy,
            kernel_initializer=initializer(kernel_initializer),
            remat=remat,
            name=f"{name}_block_{block}",
        )(x, *tokens)
        if global_tokens:
            x, tokens = x
            if block < depth - 1:
                attention = GlobalAttention(
                    num_heads,
                    use_bias=qkv_bias,
                    dropout=attention_dropout,
                    kernel_initializer=initializer(kernel_initializer),
                    name=f"{name}_block_{block}_global_attention",
                )
                tokens = (attention(positions(tokens)),)
    return x


def stochastic_depths(drop_path: float, depths: Sequence[int]) -> list[list[float]]:
    """Shares for the blocks of each stage that rise linearly from 0 to `drop_path` over all blocks."""
    count = sum(depths)
    shares = [drop_path * block / max(count - 1, 1) for block in range(count)]
    return [shares[end - depth : end] for depth, end in zip(depths, accumulate(depths), strict=True)]


def initializer(kernel_initializer) -> keras.initializers.Initializer:
    """That of a product at the beginning: its own copy of what was given, for `None` the papers' truncated normal."""
    if kernel_initializer is None:
        return keras.initializers.TruncatedNormal(stddev=0.02)
    return clone(keras.initializers.get(kernel_initializer))


PAPER = "Liu et al. 2021"
GLAM = "Themyr et al. 2023"
TINY = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "window_size": 7}


def _variant(parameters: int, size: int = 224, **sizes) -> Variant:
    arguments = {"input_shape": (size, size, 3), "num_classes": 1000} | TINY | sizes
    return Variant(Swin, arguments, parameters, PAPER)


def _glam(tokens: int, parameters: int) -> Variant:
    """A backbone, at the size of its training on ADE20K; the reference has 3,139,200 parameters more, of no effect."""
    positions = tuple((45 * tokens // 2**stage) ** 2 for stage in range(4))
    arguments = {"input_shape": (512, 512, 3), "num_classes": 0, "features": True} | TINY
    return Variant(Swin, arguments | {"global_tokens": tokens, "global_positions": positions}, parameters, GLAM)


BASE = {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)}
VARIANTS = {
    "swin_t": _variant(28_288_354),
    "swin_s": _variant(49_606_258, depths=(2, 2, 18, 2)),
    "swin_b": _variant(87_768_224, **BASE),
    "swin_b_384": _variant(87_903_584, 384, **BASE, window_size=12),
    "swin_l": _variant(196_532_476, embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48)),
    "glam_swin_t_1": _glam(1, 33_379_770),
    "glam_swin_t_5": _glam(5, 42_107_322),
    "glam_swin_t_10": _glam(10, 69_425_082),
}
