"""The residual U-Net of MONAI.

Levels are nested: of level l, whose prefix is `model.` or `model.1.submodule. …`, `0` is the unit of the encoder, `1`
the level below (the bottleneck, at last), `2.0` the transposed convolution and `2.1` the unit of the decoder.
"""

import re
from collections.abc import Collection

import keras
import numpy as np

from kseq.errors import InputError
from kseq.weights.layout import Layout, Rule
from kseq.weights.torch_convolutions import convolution_rules


class MonaiUnet(Layout):
    """`monai.networks.nets.UNet` with residual units into `kseq.models.ResidualUNet`.

    Biases in front of an instance normalisation have no effect and are left out.

    Source: MONAI 1.6, monai/networks/nets/unet.py.
    """

    name = "monai_unet"

    def recognises(self, names: set[str]) -> bool:
        return {"model.0.conv.unit0.conv.weight", "model.2.0.conv.weight"} <= names

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        layers = {layer.name: layer for layer in getattr(model, "layers", [])}
        levels = sum(re.fullmatch(r"decoder_\d+_up", name) is not None for name in layers)
        if "encoder_0_convolution_0" not in layers or "decoder_0_up_activation" not in layers or not levels:
            raise InputError(f"{model.name}: no kseq.models.ResidualUNet, to which {self.name} checkpoints belong")
        rules = []
        for name, layer in layers.items():
            match = re.fullmatch(r"(encoder|decoder)_(\d+)_(.+)", name)
            if match and layer.weights:
                side, level, part = match[1], int(match[2]), match[3]
                inside = "model." + "1.submodule." * level
                if side == "decoder":
                    unit = inside + ("2.0." if part.startswith("up") else "2.1.")
                else:
                    unit = inside if level == levels else inside + "0."
                rules += self._rules_of(layer, unit, part)
        return rules

    @staticmethod
    def _rules_of(layer: keras.layers.Layer, unit: str, part: str) -> list[Rule]:
        if part == "shortcut":
            return convolution_rules(layer, unit + "residual")
        if part == "up":
            return convolution_rules(layer, unit + "conv")
        number = re.fullmatch(r"(?:convolution|activation)_(\d+)", part)
        inside = f"{unit}conv.unit{number[1]}." if number else unit
        if part.startswith("convolution"):
            return convolution_rules(layer, inside + "conv")
        slope = tuple(layer.alpha.shape)
        return [Rule(layer.alpha, {inside + "adn.A.weight": (1,)}, lambda a: a.reshape(slope))]

    def ignores(self, name: str, skip: Collection[str] = ()) -> bool:
        return name.endswith(".conv.bias")  # those of an effect have a rule
