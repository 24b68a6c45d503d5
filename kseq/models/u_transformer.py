"""U-Transformer: a U-Net whose bottleneck attends to itself and whose skips are gated by cross-attention.

    d_L = e_L + MultiHead(e_L + P)                                    self-attention (MHSA)
    e_l → Z_l ⊙ e_l,   Z_l = CrossAttentionGate(e_l, d_{l+1})         cross-attention (MHCA) of every skip
    d_l = convs([Z_l ⊙ e_l; up(d_{l+1})])

with the sinusoidal code P of the place along each axis. Each of the two has a switch, so the four rows of the paper's
ablation are four models; without both it is `UNet(normalization="batch")`, with the same weights.

Source: Petit et al., "U-Net transformer: self and cross attention for medical image segmentation", MLMI 2021 (arXiv
2103.06104).

Deviations and uncertainty: the official code is not public, so what the text leaves open is ours.

- Taken from the paper: where the two stand, that Q and K of a gate come from the deep map and V from the skip, the
  sigmoid, the Hadamard product, positions in both, batch normalisation, the number of poolings.
- Ours: the input of the self-attention is added to its output, so that it can start from a U-Net; its normalisation is
  that of the network around it. The skip is brought to the grid of the deep map by maxima of 2 × 2. Sizes are those of
  the gates' skips. The decoder doubles maps by transposed convolutions. The parameters in `VARIANTS` are counted, not
  published.
- The unofficial port HXLH50K/U-Net-Transformer normalises the softmax over queries in place of keys, and has no sigmoid
  in its gates. Both contradict the equations, and neither is here.
- A channel count that sines and cosines of all axes do not divide, as 64 in 3-D, leaves its last channels without code.
- Gates compare all places of half the image's resolution at the highest skip. Weights are not kept where
  `kseq.backend.attention` has a gradient of its own or a fused kernel; time stays quadratic. `max_positions` pools
  larger grids first.
"""

from collections.abc import Sequence
from math import prod
from typing import Literal

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import CrossAttentionGate, MultiHeadAttention, SinusoidalPositionEncoding
from kseq.layers.cross_attention_gate import with_positions
from kseq.models.registry import Variant
from kseq.models.unet import check_unet, heads, unet_maps


def UTransformer(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    channels: Sequence[int] = (64, 128, 256, 512, 1024),
    num_heads: int = 8,
    self_attention: bool = True,
    cross_attention: bool = True,
    max_positions: int | None = None,
    normalization: Literal["batch", "group", "instance"] | None = "batch",
    dropout: float = 0.0,
    deep_supervision: bool = False,
    name: str = "u_transformer",
) -> keras.Model:
    """Build a U-Transformer for images or volumes.

    Layers to look into: `self_attention`, of the tokens of the bottleneck, and `cross_attention_0` …, the gate of each
    skip, whose output is Z_l. Both return their weights too when called with `return_attention_scores=True`;
    `kseq.analysis.pixel_attention` draws those of a pixel.

    Args:
        input_shape: `(*space, channels)` with one to three axes of space, each a multiple of 2^L for L + 1 levels.
        num_classes: number of classes.
        channels: of each level, from the image down; the last is the bottleneck.
        num_heads: heads of each attention; must divide all channels.
        self_attention: whether the bottleneck attends to itself.
        cross_attention: whether skips are gated.
        max_positions: places among which a gate computes attention at most, see `CrossAttentionGate`; `None` for all.
        normalization: of convolutions and gates: "batch", "group" with 8 groups, "instance", or `None`.
        dropout: share of values set to zero while training, behind the last two levels of the encoder.
        deep_supervision: whether the levels of the decoder have logits each.
        name: name of the model.

    Returns:
        A model from numbers `(batch, *space, channels)` to logits `(batch, *space, num_classes)`; with
        `deep_supervision` to a dict as that of `UNet`.

    Raises:
        InputError: for an argument out of range, sizes that cannot be halved so often, heads that do not divide the
            channels, or instance normalisation of a bottleneck of one place.
    """
    check_unet(input_shape, num_classes, channels, normalization)
    attended = [*channels[:-1]] * cross_attention + [channels[-1]] * self_attention
    if num_heads < 1 or any(count % num_heads for count in attended):
        raise InputError(f"num_heads {num_heads!r}: give a divisor of all channels, {tuple(channels)}")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout {dropout!r}: give a share from 0 to below 1")

    def bottleneck(x):
        if not self_attention:
            return x
        grid, dim = x.shape[1:-1], x.shape[-1]
        tokens = with_positions(x, SinusoidalPositionEncoding(name="self_attention_positions"))
        tokens = layers.Reshape((prod(grid), dim), name="self_attention_tokens")(tokens)  # (batch, places, channels)
        tokens = MultiHeadAttention(num_heads, use_bias=False, name="self_attention")(tokens)
        tokens = layers.Reshape((*grid, dim), name="self_attention_map")(tokens)  # (batch, *grid, channels)
        return layers.Add(name="self_attention_sum")([x, tokens])

    def gated(skip, below, up, level):
        if not cross_attention:
            return skip
        gate = CrossAttentionGate(
            num_heads, max_positions=max_positions, normalization=normalization, name=f"cross_attention_{level}"
        )([skip, below])
        return layers.Multiply(name=f"gated_skip_{level}")([skip, gate])

    images = keras.Input(tuple(input_shape), name="images")
    maps = unet_maps(images, bottleneck, gated, channels=channels, normalization=normalization, dropout=dropout)
    return keras.Model(images, heads(maps, num_classes, deep_supervision), name=name)


VARIANTS = {
    "u_transformer": Variant(
        UTransformer, {"input_shape": (256, 256, 1), "num_classes": 2}, 37_691_266, "Petit et al. 2021"
    )
}
