"""How `torch.nn` keeps the layers that Keras has too.

`Linear` has W transposed, `(units, inputs)`. A convolution over patches has the kernel `(units, channels, *patch)`.
An attention has its four products one by one or, in one tensor, the rows of query, key and value one after the other.
"""

import numpy as np

from kseq.weights.layer_rules import AttentionSources, Source, Sources


def dense(name: str, inputs: int, units: int) -> Sources:
    """W and b of a `torch.nn.Linear`."""
    return Source(f"{name}.weight", (units, inputs), np.transpose), Source(f"{name}.bias", (units,))


def norm(name: str, size: int) -> Sources:
    """γ and β of a `torch.nn.LayerNorm`."""
    return Source(f"{name}.weight", (size,)), Source(f"{name}.bias", (size,))


def patches(name: str, patch: tuple[int, ...], channels: int, units: int) -> Sources:
    """E and b of the convolution whose kernel and stride are the patch."""

    def in_rows(kernel: np.ndarray) -> np.ndarray:
        return np.moveaxis(kernel, (0, 1), (-1, -2)).reshape(-1, units)  # (voxels of a patch · channels, units)

    return Source(f"{name}.weight", (units, channels, *patch), in_rows), Source(f"{name}.bias", (units,))


def attention(names: dict[str, str], num_heads: int) -> AttentionSources:
    """The products of an attention.

    Args:
        names: of "output" and either "query", "key" and "value", or "packed_weight" and "packed_bias" of those three;
            "query_weight", "key_weight" and "value_weight" in place of "packed_weight" keep these apart.
        num_heads: of no use here.
    """

    def sources(part: str, inputs: int, units: int) -> Sources:
        if part in names:
            return dense(names[part], inputs, units)
        first = ("query", "key", "value").index(part) * units
        rows = slice(first, first + units)
        if f"{part}_weight" in names:
            weight = Source(names[f"{part}_weight"], (units, inputs), np.transpose)
        else:
            weight = Source(names["packed_weight"], (3 * units, inputs), lambda packed: packed[rows].T)
        return weight, Source(names["packed_bias"], (3 * units,), lambda packed: packed[rows])

    return sources
