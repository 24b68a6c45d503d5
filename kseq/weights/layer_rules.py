"""The rules of the layers that many models have: affine maps, normalisations, attentions and transformer blocks.

Each library keeps them in its own way, which `kseq.weights.torch_layers` and `kseq.weights.flax_layers` state.
"""

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import keras
import numpy as np

from kseq.layers import MultiHeadAttention
from kseq.layers.transformer_block import TransformerBlock
from kseq.weights.layout import Rule


class Source(NamedTuple):
    """The tensor that a checkpoint has for one of our variables.

    Attributes:
        name: of the tensor.
        shape: of the tensor.
        convert: from the tensor to the value of the variable.
    """

    name: str
    shape: tuple[int, ...]
    convert: Callable[[np.ndarray], np.ndarray] = np.asarray

    def rule(self, variable: keras.Variable) -> Rule:
        """The rule that sets `variable` from this tensor."""
        return Rule(variable, {self.name: self.shape}, self.convert)


Sources = tuple[Source, Source]  # of kernel and bias, or of scale and offset
AttentionSources = Callable[[str, int, int], Sources]  # of the part "query", "key", "value", "output", of this shape


def dense_rules(dense: keras.layers.Dense, sources: Sources) -> list[Rule]:
    """Rules for W `(inputs, units)` and, if there is one, b `(units,)`."""
    kernel, bias = sources
    return [kernel.rule(dense.kernel)] + ([bias.rule(dense.bias)] if dense.use_bias else [])


def norm_rules(norm: keras.layers.LayerNormalization, sources: Sources) -> list[Rule]:
    """Rules for γ and β `(size,)`, as far as the layer has them."""
    variables = zip(sources, (norm.gamma, norm.beta), strict=True)
    return [source.rule(variable) for source, variable in variables if variable is not None]


def attention_rules(attention: MultiHeadAttention, sources: AttentionSources) -> list[Rule]:
    """Rules for the four products, whose columns are the heads one after the other."""
    rules = []
    for part in ("query", "key", "value", "output"):
        dense = getattr(attention, f"{part}_projection")
        rules += dense_rules(dense, sources(part, *dense.kernel.shape))
    return rules


def block_rules(block: TransformerBlock, library: ModuleType, names: dict) -> list[Rule]:
    """Rules for all branches of a block and their normalisations.

    Args:
        block: an encoder or decoder block.
        library: `torch_layers` or `flax_layers`.
        names: what `library` calls the parts: "attention" and "cross_attention", each as its `attention` takes it;
            "expand" and "contract" of the network; and the "…_norm" of each branch.
    """
    rules = []
    for branch, norm in block.norms.items():
        rules += norm_rules(norm, library.norm(names[f"{branch}_norm"], norm.gamma.shape[0]))
        if branch == "feed_forward":
            for part in ("expand", "contract"):
                dense = getattr(block.feed_forward, part)
                rules += dense_rules(dense, library.dense(names[part], *dense.kernel.shape))
        else:
            rules += attention_rules(getattr(block, branch), library.attention(names[branch], block.num_heads))
    return rules
