"""How Flax keeps the layers that Keras has too.

Kernels stand as in Keras, that of a convolution over patches `(*patch, channels, units)`. The products of an attention
have an axis for the heads: `(inputs, heads, head_dim)`, and `(heads, head_dim, units)` for the last one.
"""

from kseq.weights.layer_rules import AttentionSources, Source, Sources


def dense(name: str, inputs: int, units: int) -> Sources:
    """W and b of a `flax.linen.Dense`."""
    return Source(f"{name}/kernel", (inputs, units)), Source(f"{name}/bias", (units,))


def norm(name: str, size: int) -> Sources:
    """γ and β of a `flax.linen.LayerNorm`."""
    return Source(f"{name}/scale", (size,)), Source(f"{name}/bias", (size,))


def patches(name: str, patch: tuple[int, ...], channels: int, units: int) -> Sources:
    """E and b of the convolution whose kernel and stride are the patch."""
    kernel = Source(f"{name}/kernel", (*patch, channels, units), lambda kernel: kernel.reshape(-1, units))
    return kernel, Source(f"{name}/bias", (units,))


def attention(names: dict[str, str], num_heads: int) -> AttentionSources:
    """The products of a `flax.linen.MultiHeadDotProductAttention`; `names` has "query", "key", "value", "output"."""

    def sources(part: str, inputs: int, units: int) -> Sources:
        if part == "output":
            shape, bias_shape = (num_heads, inputs // num_heads, units), (units,)
        else:
            bias_shape = (num_heads, units // num_heads)
            shape = (inputs, *bias_shape)
        return (
            Source(f"{names[part]}/kernel", shape, lambda kernel: kernel.reshape(inputs, units)),
            Source(f"{names[part]}/bias", bias_shape, lambda bias: bias.reshape(units)),
        )

    return sources
