"""The temporal convolutional networks of MS-TCN and TeCNO."""

import re
from collections.abc import Collection

import keras
import numpy as np

from kseq.errors import InputError
from kseq.layers.temporal_convolution import DilatedResidualLayer
from kseq.weights.layout import Layout, Rule
from kseq.weights.torch_convolutions import convolution_rules, pointwise_rules


class MsTcn(Layout):
    """`MultiStageModel` of yabufarha/ms-tcn and tobiascz/TeCNO into `kseq.models.MultiStageTCN`.

    The two differ in the name of the last convolution of a stage. Whether a network is causal its checkpoint does not
    say: those of TeCNO are, those of MS-TCN are not.

    Source: yabufarha/ms-tcn, model.py; tobiascz/TeCNO, models/mstcn.py.
    """

    name = "ms_tcn"

    def recognises(self, names: set[str]) -> bool:
        return _last(names) is not None

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        layers = {layer.name: layer for layer in getattr(model, "layers", [])}
        if "stage_0_projection" not in layers or "stage_0_layer_0" not in layers:
            raise InputError(f"{model.name}: no kseq.models.MultiStageTCN, to which {self.name} checkpoints belong")
        prefix, last = _last(tensors) or ("", "conv_out")
        rules = []
        for name, layer in layers.items():
            if match := re.fullmatch(r"stage_(\d+)_(?:(projection|logits)|layer_(\d+))", name):
                stage, part, level = int(match[1]), match[2], match[3]
                module = prefix + (f"stages.{stage - 1}" if stage else "stage1")
                if isinstance(layer, DilatedResidualLayer):
                    rules += convolution_rules(layer.convolution, f"{module}.layers.{level}.conv_dilated")
                    rules += pointwise_rules(layer.pointwise, f"{module}.layers.{level}.conv_1x1", 1)
                else:
                    rules += pointwise_rules(layer, f"{module}.{'conv_1x1' if part == 'projection' else last}", 1)
        return rules


def _last(names: Collection[str]) -> tuple[str, str] | None:
    """What stands in front of all names, and the name of the last convolution of a stage."""
    for name in names:
        if match := re.fullmatch(r"(.*\.|)stage1\.(conv_out|conv_out_classes)\.weight", name):
            return match[1], match[2]
    return None
