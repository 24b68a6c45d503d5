"""The attention U-Net of MONAI.

`model.0` are the convolutions of the top, `model.1` is the level below, nested: its `submodule.0` are the convolutions
there and `submodule.1` the next level, of the bottleneck `submodule` its convolutions. `upconv`, `attention` and
`merge` of level l + 1 are of our decoder's level l. `model.2` gives the logits.
"""

import re
from collections.abc import Collection

import keras
import numpy as np

from kseq.errors import InputError
from kseq.layers import AttentionGate
from kseq.weights.layout import Layout, Rule
from kseq.weights.torch_convolutions import batch_norm_rules, convolution_rules, pointwise_rules

GATE = {"skip": "W_x", "gate": "W_g", "psi": "psi"}


class MonaiAttentionUnet(Layout):
    """`monai.networks.nets.AttentionUnet` into `kseq.models.AttentionUNet`.

    Source: MONAI 1.6, monai/networks/nets/attentionunet.py.
    """

    name = "monai_attention_unet"

    def recognises(self, names: set[str]) -> bool:
        return {"model.0.conv.0.conv.weight", "model.1.attention.psi.0.conv.weight"} <= names

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        layers = {layer.name: layer for layer in getattr(model, "layers", [])}
        gates = [layer for layer in layers.values() if isinstance(layer, AttentionGate)]
        if not gates or "decoder_0_up_norm" not in layers:
            raise InputError(f"{model.name}: no kseq.models.AttentionUNet, to which {self.name} checkpoints belong")
        rank, depth, rules = len(model.output_shape) - 2, len(gates), []

        def inside(level: int) -> str:  # of the attention layer whose skip is that of the level
            return "model.1." + "submodule.1." * level

        for level in range(depth + 1):
            block = f"{inside(level - 1)}submodule.{'' if level == depth else '0.'}" if level else "model.0."
            for i in range(2):
                name = f"{block}conv.{i}."
                rules += convolution_rules(layers[f"encoder_{level}_convolution_{i}"], name + "conv")
                rules += batch_norm_rules(layers[f"encoder_{level}_norm_{i}"], name + "adn.N", name + "conv")
        for level, prefix in ((level, inside(level)) for level in range(depth)):
            up, merge = prefix + "upconv.up.", prefix + "merge."
            rules += convolution_rules(layers[f"decoder_{level}_up"], up + "conv")
            rules += batch_norm_rules(layers[f"decoder_{level}_up_norm"], up + "adn.N", up + "conv")
            rules += convolution_rules(layers[f"decoder_{level}_convolution"], merge + "conv")
            slope = layers[f"decoder_{level}_activation"].alpha
            rules.append(Rule(slope, {merge + "adn.A.weight": (1,)}, _as(tuple(slope.shape))))
            for ours, theirs in GATE.items():
                gate, name = layers[f"attention_gate_{level}"], f"{prefix}attention.{theirs}."
                rules += pointwise_rules(getattr(gate, f"{ours}_projection"), name + "0.conv", rank)
                rules += batch_norm_rules(getattr(gate, f"{ours}_norm"), name + "1", name + "0.conv")
        return rules + convolution_rules(layers["logits"], "model.2.conv")

    def ignores(self, name: str, skip: Collection[str] = ()) -> bool:
        if "logits" in skip and name.startswith("model.2."):
            return True
        return name.endswith("num_batches_tracked") or re.search(r"\.merge\.conv\.bias$", name) is not None


def _as(shape: tuple[int, ...]):
    return lambda array: array.reshape(shape)
