"""`torch.nn.MultiheadAttention`, and the transformers that are made of it.

An attention of D channels has (K and V the sizes of key and value, where these are others)

    in_proj_weight (3·D, D)    or q_proj_weight (D, D), k_proj_weight (D, K), v_proj_weight (D, V)
    in_proj_bias (3·D,)    out_proj.weight (D, D)    out_proj.bias (D,)

in rows of query, key and value, those of a head side by side. A `TransformerEncoderLayer` has `self_attn`, `linear1`,
`linear2` and a `norm{k}` for its k-th branch; a `TransformerDecoderLayer` has `multihead_attn` in between. A
`TransformerEncoder` or `TransformerDecoder` has these as `layers.{i}` and perhaps a `norm` behind them.

Source: torch/nn/modules/activation.py, torch/nn/modules/transformer.py.
"""

import re

import keras
import numpy as np

from kseq.errors import InputError
from kseq.layers import MultiHeadAttention, TransformerDecoderBlock, TransformerEncoderBlock
from kseq.weights import torch_layers
from kseq.weights.layer_rules import attention_rules, block_rules, norm_rules
from kseq.weights.layout import Layout, Rule

ATTENTION = re.compile(r"(?P<prefix>(.*\.)?)(?P<stack>)(in_proj|q_proj)_weight")
BLOCK = re.compile(r"(?P<prefix>(.*?\.)??)(?P<stack>(layers\.\d+\.)?)self_attn\.in_proj_weight")
BLOCKS = (TransformerEncoderBlock, TransformerDecoderBlock)


class TorchAttention(Layout):
    """An attention into a `MultiHeadAttention`, the layers of a transformer into the blocks of a model in their order.

    The `norm` behind the last layer goes into the first `LayerNormalization` behind the last block. The tensors may
    share a prefix (`encoder.`). Neither `norm_first`, activation, ε (1e-5 in PyTorch) nor heads are in a checkpoint:
    give them to the blocks.
    """

    name = "torch_attention"

    def recognises(self, names: set[str]) -> bool:
        return any(ATTENTION.fullmatch(name) for name in names)

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        layers = _layers(model)
        targets = [layer for layer in layers if isinstance(layer, (MultiHeadAttention, *BLOCKS))]
        if not targets:
            raise InputError(f"{model.name}: has no MultiHeadAttention or transformer block for weights of attention")
        if any(name.endswith(("bias_k", "bias_v")) for name in tensors):
            raise InputError(
                "checkpoint: an attention with add_bias_kv has no counterpart in kseq.layers; train one without it"
            )
        if isinstance(targets[0], MultiHeadAttention):
            if len(targets) > 1:
                raise InputError(f"{model.name}: has {len(targets)} attentions; load into one, model.get_layer(…)")
            prefix, _ = _prefix(ATTENTION, tensors)
            sources = torch_layers.attention(_attention_names(prefix, tensors), targets[0].num_heads)
            return attention_rules(targets[0], sources)
        prefix, is_stack = _prefix(BLOCK, tensors)
        is_stack = is_stack or len(targets) > 1
        rules = []
        for number, block in enumerate(targets):
            rules += block_rules(
                block, torch_layers, _block_names(block, f"{prefix}layers.{number}." if is_stack else prefix)
            )
        behind = layers[layers.index(targets[-1]) + 1 :]
        norm = next((layer for layer in behind if isinstance(layer, keras.layers.LayerNormalization)), None)
        if is_stack and norm is not None:
            rules += norm_rules(norm, torch_layers.norm(f"{prefix}norm", targets[-1].norms["attention"].gamma.shape[0]))
        return rules if targets[-1].use_bias else _offsets_or_zero(rules, tensors)

    def build_shapes(
        self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]
    ) -> tuple[tuple[int | None, ...], ...]:
        first = model.layers[0] if isinstance(model, keras.Sequential) and model.layers else model
        if isinstance(first, MultiHeadAttention):
            names = _attention_names(_prefix(ATTENTION, tensors)[0], tensors)
            order = ("query_weight", "value_weight", "key_weight")
            weights = [names["packed_weight"]] if "packed_weight" in names else [names[part] for part in order]
        elif isinstance(first, BLOCKS):
            prefix, is_stack = _prefix(BLOCK, tensors)
            prefix += "layers.0." if is_stack else ""
            weights = [f"{prefix}self_attn.in_proj_weight"]
            if isinstance(first, TransformerDecoderBlock) and f"{prefix}multihead_attn.in_proj_weight" in tensors:
                weights.append(f"{prefix}multihead_attn.in_proj_weight")
        else:
            weights = []
        if not weights or any(name not in tensors or tensors[name].ndim != 2 for name in weights):
            return super().build_shapes(model, tensors)
        return tuple((None, None, tensors[name].shape[1]) for name in weights)  # (batch, tokens, size) each


def _layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    if isinstance(layer, (MultiHeadAttention, *BLOCKS)) or not getattr(layer, "layers", []):
        return [layer]
    return [found for inner in layer.layers for found in _layers(inner)]


def _prefix(pattern: re.Pattern, tensors: dict[str, np.ndarray]) -> tuple[str, bool]:
    """What stands in front of all names, and whether they are those of a stack of layers."""
    matches = [match for name in tensors if (match := pattern.fullmatch(name))]
    prefixes = sorted({match["prefix"] for match in matches})
    if len(prefixes) > 1:
        raise InputError(
            f"checkpoint: holds {len(prefixes)} modules of attention ({', '.join(map(repr, prefixes))}); give a dict "
            "with the tensors of one"
        )
    return (prefixes[0], any(match["stack"] for match in matches)) if prefixes else ("", False)


def _attention_names(prefix: str, tensors: dict[str, np.ndarray]) -> dict[str, str]:
    names = {"packed_bias": f"{prefix}in_proj_bias", "output": f"{prefix}out_proj"}
    if f"{prefix}q_proj_weight" in tensors:
        return names | {f"{part}_weight": f"{prefix}{part[0]}_proj_weight" for part in ("query", "key", "value")}
    return names | {"packed_weight": f"{prefix}in_proj_weight"}


def _block_names(block: TransformerEncoderBlock | TransformerDecoderBlock, prefix: str) -> dict:
    return {
        "attention": _attention_names(f"{prefix}self_attn.", {}),
        "cross_attention": _attention_names(f"{prefix}multihead_attn.", {}),
        "expand": f"{prefix}linear1",
        "contract": f"{prefix}linear2",
        **{f"{branch}_norm": f"{prefix}norm{number}" for number, branch in enumerate(block.norms, 1)},
    }


def _offsets_or_zero(rules: list[Rule], tensors: dict[str, np.ndarray]) -> list[Rule]:
    """The rules of blocks without a bias: with `bias=False` PyTorch has no β either, which is 0 then."""
    return [
        rule
        if all(name in tensors or not name.endswith(".bias") for name in rule.sources)
        else Rule(rule.variable, {}, lambda shape=rule.variable.shape: np.zeros(shape, "float32"))
        for rule in rules
    ]
