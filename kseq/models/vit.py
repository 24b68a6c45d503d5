"""Vision transformer: an image or a volume as a sequence of patches, read by a transformer encoder.

    z_0 = [x_class; x_1 E; …; x_N E] + E_pos                                          (1)
    z'_l = z_{l−1} + MultiHead(LN(z_{l−1})),   z_l = z'_l + MLP(LN(z'_l)),  l = 1 … L  (2, 3)
    y = LN(z_L^0),   logits = W y + b                                                  (4)

Source: Dosovitskiy et al., "An image is worth 16×16 words", ICLR 2021 (arXiv 2010.11929), with its equation numbers.
Reference implementations: google-research/vision_transformer and big_vision, `vit.py`; timm, `vision_transformer.py`.

Deviations: blocks are counted from 0. Layers are initialised as in the first reference (products Glorot uniform,
patches LeCun normal, positions normal with 0.02, class token 0), but for the head, which is truncated normal with 0.02
as in timm and not 0, so that every layer has a gradient from the first step. With mean pooling there is no class token,
and the mean is taken behind the last normalisation (big_vision's "gap").
"""

from collections.abc import Sequence
from typing import Literal

import keras
from keras import layers, ops

from kseq.errors import InputError
from kseq.layers import ClassToken, LayerNormalization, PatchEmbedding, TransformerEncoderBlock
from kseq.layers.position_encoding import POSITIONS
from kseq.models.registry import Variant


def ViT(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    patch_size: int | Sequence[int] = 16,
    embed_dim: int = 768,
    depth: int = 12,
    num_heads: int = 12,
    mlp_ratio: float = 4.0,
    pooling: Literal["token", "mean"] = "token",
    position: Literal["learned", "sinusoidal"] = "learned",
    activation: str = "gelu",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    drop_path: float = 0.0,
    epsilon: float = 1e-6,
    features: bool = False,
    remat: bool = False,
    name: str = "vit",
) -> keras.Model:
    """Build a vision transformer for images or volumes.

    Args:
        input_shape: `(height, width, channels)` or `(depth, height, width, channels)`, without the batch.
        num_classes: number of classes; 0 for a model without a head, whose output is y.
        patch_size: voxels of a patch along each axis, or one number for all; must divide the input.
        embed_dim: size of a token, D.
        depth: number of encoder blocks, L.
        num_heads: heads of each attention; must divide `embed_dim`.
        mlp_ratio: size of the hidden layer of each MLP, in units of `embed_dim`.
        pooling: what is classified: the class "token", or the "mean" of all patches.
        position: "learned" vector of every position, or "sinusoidal" code along each axis.
        activation: of the MLPs: "gelu" is the exact one, of timm, Hugging Face and torchvision; the JAX repositories
            train and run their checkpoints with "gelu_tanh".
        dropout: share of values set to zero while training, behind the positions and in the blocks.
        attention_dropout: share of attention weights set to zero while training.
        drop_path: stochastic depth of the last of several blocks; that of the others rises to it linearly from 0.
        epsilon: of the layer normalisations; checkpoints of Hugging Face want 1e-12.
        features: whether to return what others build on too, instead of logits alone.
        remat: whether blocks are computed again in the backward pass instead of kept: memory for time.
        name: name of the model.

    Returns:
        A model from numbers `(batch, *input_shape)` to logits `(batch, num_classes)`, without a head to y
        `(batch, embed_dim)`; with `features` to a dict of that, as `"logits"` or `"pooled"`, and of the patches behind
        each block, `"block_0"` …, and behind the last normalisation, `"patches"`, all `(batch, *grid, embed_dim)`.

    Raises:
        InputError: for an argument out of range, patches that do not fill the input, or heads that do not divide
            `embed_dim`.
    """
    if len(input_shape) not in (3, 4) or any(not isinstance(size, int) or size < 1 for size in input_shape):
        raise InputError(
            f"input_shape {input_shape!r}: give (height, width, channels) or (depth, height, width, channels)"
        )
    for argument, value, least in (("num_classes", num_classes, 0), ("depth", depth, 1), ("embed_dim", embed_dim, 1)):
        if value < least:
            raise InputError(f"{argument} {value!r}: give {least} or more")
    if pooling not in ("token", "mean"):
        raise InputError(f"pooling {pooling!r}: choose 'token' or 'mean'")
    if position not in POSITIONS:
        raise InputError(f"position {position!r}: choose 'learned' or 'sinusoidal'")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout {dropout!r}: give a share from 0 to below 1")
    has_token = pooling == "token"

    patches = PatchEmbedding(embed_dim, patch_size, name="patch_embedding")
    _, *grid, _ = patches.compute_output_shape((None, *input_shape))  # or an error, before Keras can wrap it
    images = keras.Input(tuple(input_shape), name="images")
    x = patches(images)  # (batch, *grid, embed_dim)
    x = layers.Reshape((-1, embed_dim), name="tokens")(x)  # (batch, tokens, embed_dim)
    if has_token:
        x = ClassToken(name="class_token")(x)  # (batch, 1 + tokens, embed_dim)
    x = POSITIONS[position](grid, num_prefix_tokens=int(has_token), name="position_encoding")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    states = {}
    for block in range(depth):
        x = TransformerEncoderBlock(
            num_heads,
            int(embed_dim * mlp_ratio),
            activation=activation,
            dropout=dropout,
            attention_dropout=attention_dropout,
            drop_path=drop_path * block / max(depth - 1, 1),
            epsilon=epsilon,
            remat=remat,
            name=f"encoder_block_{block}",
        )(x)
        states[f"block_{block}"] = x
    x = LayerNormalization(epsilon=epsilon, name="encoder_norm")(x)
    states["patches"] = x
    answer = (
        x[:, 0] if has_token else layers.GlobalAveragePooling1D("channels_last", name="mean")(x)
    )  # (batch, embed_dim)
    if num_classes:
        small = keras.initializers.TruncatedNormal(stddev=0.02)
        answer = layers.Dense(num_classes, kernel_initializer=small, name="logits")(answer)
    if not features:
        return keras.Model(images, answer, name=name)
    maps = {key: ops.reshape(x[:, int(has_token) :], (-1, *grid, embed_dim)) for key, x in states.items()}
    return keras.Model(images, {"logits" if num_classes else "pooled": answer} | maps, name=name)


PAPER = "Dosovitskiy et al. 2021"
SMALLER = "Steiner et al. 2021"  # arXiv 2106.10270; the sizes are those of DeiT (Touvron et al. 2021, arXiv 2012.12877)


def _variant(
    patch_size: int, embed_dim: int, depth: int, num_heads: int, parameters: int, source=PAPER, classes=1000
) -> Variant:
    sizes = {"patch_size": patch_size, "embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
    arguments = {"input_shape": (224, 224, 3), "num_classes": classes} | sizes
    return Variant(ViT, arguments, parameters, source)


VARIANTS = {
    "vit_ti16": _variant(16, 192, 12, 3, 5_717_416, SMALLER),
    "vit_s16": _variant(16, 384, 12, 6, 22_050_664, SMALLER),
    "vit_b16": _variant(16, 768, 12, 12, 86_567_656),
    "vit_b32": _variant(32, 768, 12, 12, 88_224_232),
    "vit_l16": _variant(16, 1024, 24, 16, 304_326_632),
    "vit_h14": _variant(14, 1280, 32, 16, 630_764_800, classes=0),  # released without a head
}
