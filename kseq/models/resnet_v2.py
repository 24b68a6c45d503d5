"""The convolutional encoder of the hybrid vision transformer: a residual network up to its third stage.

    x_0 = ReLU(GN(w ∗ x)), w of kernel 7 and stride 2, then the maximum of windows of 3 with stride 2
    each block: ReLU(GN'(P x) + GN(W_3 ReLU(GN(W_2 ∗ ReLU(GN(W_1 x))))))

with W_1, W_3 and the projection P of kernel 1, W_2 of kernel 3. The first block of a stage alone has a projection;
where it halves the map, W_2 and P have the stride. All filters are standardised, as in
`kseq.layers.StandardizedConvolution`; GN has 32 groups, GN' behind the projection one group a channel.

Source: He et al. 2016 (arXiv 1512.03385); Kolesnikov et al. 2020, "Big transfer" (arXiv 1912.11370); Dosovitskiy et al.
2021 (arXiv 2010.11929), appendix B.1. Reference implementation: Beckschen/TransUNet,
networks/vit_seg_modeling_resnet_skip.py, from google-research/vision_transformer, models_resnet.py. In spite of its
name a block has its activations behind the convolutions.
"""

from collections.abc import Sequence

from keras import layers

from kseq.layers import GroupNormalization, MaxPooling, StandardizedConvolution

GROUPS = 32


def resnet_v2(x, *, width: int = 64, depths: Sequence[int] = (3, 4, 9)):
    """Add the network to `x`, an image whose sizes are multiples of 2^(stages + 1).

    Args:
        x: `(batch, height, width, channels)`.
        width: channels of the root, a multiple of 32; stage i has width · 2^i of them within its blocks and four times
            as many between.
        depths: number of blocks of each stage.

    Returns:
        The maps of the root and of each stage. The pooling has no padding, so the first stage has one place less along
        each axis than a quarter of the image; the others have the size of the image divided by 8, 16, ….
    """
    x = StandardizedConvolution(width, 7, strides=2, padding=3, use_bias=False, name="root_convolution")(x)
    x = _normalise(x, "root")
    maps = [layers.Activation("relu", name="root_relu")(x)]  # (batch, height / 2, width / 2, width)
    x = MaxPooling(3, strides=2, name="root_pooling")(maps[0])
    for stage, depth in enumerate(depths):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            x = _bottleneck(x, width * 2**stage, stride, not block, f"stage_{stage}_block_{block}")
        maps.append(x)
    return maps


def _bottleneck(x, width: int, stride: int, projects: bool, name: str):
    shortcut = x
    if projects:
        projection = StandardizedConvolution(
            4 * width, 1, strides=stride, padding=0, use_bias=False, name=f"{name}_projection"
        )
        shortcut = GroupNormalization(-1, epsilon=1e-5, name=f"{name}_projection_norm")(projection(x))
    for i, (filters, size) in enumerate(((width, 1), (width, 3), (4 * width, 1))):
        x = StandardizedConvolution(
            filters,
            size,
            strides=stride if size == 3 else 1,
            padding=size // 2,
            use_bias=False,
            name=f"{name}_convolution_{i}",
        )(x)
        x = _normalise(x, name, f"_{i}")
        if i < 2:
            x = layers.Activation("relu", name=f"{name}_relu_{i}")(x)
    x = layers.Add(name=f"{name}_sum")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_relu")(x)


def _normalise(x, name: str, number: str = ""):
    return GroupNormalization(GROUPS, epsilon=1e-6, name=f"{name}_norm{number}")(x)
