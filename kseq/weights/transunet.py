"""TransUNet: its authors' checkpoints, and the hybrid vision transformers of Google with which its training starts."""

import re
from collections.abc import Collection

import keras
import numpy as np

from kseq.errors import InputError
from kseq.layers import Convolution, GroupNormalization
from kseq.weights import torch_layers
from kseq.weights.layer_rules import Source, norm_rules
from kseq.weights.layout import Rule
from kseq.weights.torch_convolutions import batch_norm_rules, convolution_rules
from kseq.weights.vit import VitLayout
from kseq.weights.vit_jax import VitJax

BODY = r"stage_(\d)_block_(\d+)_(convolution|norm|projection)(?:_(\d|norm))?"  # our layers of the residual network


class TransUnet(VitLayout):
    """`VisionTransformer` of Beckschen/TransUNet, hybrid or pure, into `kseq.models.TransUNet`.

    The tensors may share a prefix, as `module.` of data-parallel training. Positions of another grid are resampled.

    Source: Beckschen/TransUNet, networks/vit_seg_modeling.py, vit_seg_modeling_resnet_skip.py.
    """

    name = "transunet"
    patch_embedding = "transformer.embeddings.patch_embeddings"
    position_encoding = ("transformer.embeddings.position_embeddings",)
    encoder_norm = "transformer.encoder.encoder_norm"
    interpolation = "bilinear"
    blocks = (
        (
            "transformer.encoder.layer.{}.",
            {
                "attention_norm": "attention_norm",
                "attention": {
                    "query": "attn.query",
                    "key": "attn.key",
                    "value": "attn.value",
                    "output": "attn.out",
                },
                "feed_forward_norm": "ffn_norm",
                "expand": "ffn.fc1",
                "contract": "ffn.fc2",
            },
        ),
    )

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        rules = super().rules(_encoder(model, self.name), tensors)
        prefix = self._prefix(tensors) or ""
        for layer in model.layers:
            module = prefix + _torch_module(layer.name)
            if isinstance(layer, Convolution):
                rules += convolution_rules(layer, module)
            elif isinstance(layer, keras.layers.BatchNormalization):
                rules += batch_norm_rules(layer, module)
            elif isinstance(layer, GroupNormalization):
                rules += norm_rules(layer, torch_layers.norm(module, layer.gamma.shape[0]))
        return rules

    def ignores(self, name: str, skip: Collection[str] = ()) -> bool:
        return name.endswith("num_batches_tracked") or super().ignores(name, skip)


class TransUnetJax(VitJax):
    """The `.npz` files of google-research/vision_transformer, as `R50+ViT-B_16.npz`, into the encoder of a TransUNet.

    The decoder keeps its weights. The class token, its position and the head are left out. A file of a vision
    transformer without a residual network belongs to `TransUNet(hybrid=False)`; `VitJax` loads it.

    Source: Beckschen/TransUNet, networks/vit_seg_modeling.py (`load_from`); google-research/vision_transformer,
    vit_jax/models_resnet.py. As TransUNet does, the root of σ² + ε is taken of filters, where the files' own code adds
    ε to σ, and GELU is exact.
    """

    name = "transunet_jax"

    def recognises(self, names: set[str]) -> bool:
        return any(name.endswith("conv_root/kernel") for name in names) and super().recognises(names)

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        rules = super().rules(_encoder(model, self.name), tensors)
        prefix = self._prefix(tensors) or ""
        for layer in model.layers:
            if (name := _jax_module(layer.name)) is None:
                continue
            if isinstance(layer, GroupNormalization):
                for part, variable in (("scale", layer.gamma), ("bias", layer.beta)):
                    rules.append(_flat(f"{prefix}{name}/{part}", variable, tensors))
            else:
                rules.append(Source(f"{prefix}{name}/kernel", tuple(layer.kernel.shape)).rule(layer.kernel))
        return rules

    def ignores(self, name: str, skip: Collection[str] = ()) -> bool:
        return name.endswith("cls") or super().ignores(name, {*skip, "logits"})


def _encoder(model: keras.layers.Layer, layout: str) -> keras.Model:
    """The model up to the normalisation behind the transformer, or an InputError."""
    layers = {layer.name: layer for layer in getattr(model, "layers", [])}
    if "bridge_convolution" not in layers or "encoder_norm" not in layers:
        raise InputError(f"{model.name}: no kseq.models.TransUNet, to which {layout} checkpoints belong; build one")
    return keras.Model(model.input, layers["encoder_norm"].output, name=model.name)


def _torch_module(name: str) -> str:
    """What the checkpoint calls our layer of this name; layers without weights have no counterpart."""
    network = "transformer.embeddings.hybrid_model."
    whole = {
        "root_convolution": f"{network}root.conv",
        "root_norm": f"{network}root.gn",
        "bridge_convolution": "decoder.conv_more.0",
        "bridge_batch_norm": "decoder.conv_more.1",
        "logits": "segmentation_head.0",
    }
    if name in whole:
        return whole[name]
    if match := re.fullmatch(r"decoder_(\d)_(convolution|batch_norm)_(\d)", name):
        return f"decoder.blocks.{match[1]}.conv{int(match[3]) + 1}.{int(match[2] == 'batch_norm')}"
    if match := re.fullmatch(BODY, name):
        return f"{network}body.{_unit(match, 'downsample').replace('/', '.')}"
    return name


def _jax_module(name: str) -> str | None:
    """The same for the `.npz` files, or `None` if they have no such layer."""
    if name in ("root_convolution", "root_norm"):
        return "conv_root" if name == "root_convolution" else "gn_root"
    return _unit(match, "conv_proj") if (match := re.fullmatch(BODY, name)) else None


def _unit(match: re.Match, projection: str) -> str:
    stage, block, kind, number = match.groups()
    if kind == "projection":
        part = projection if number is None else "gn_proj"
    else:
        part = f"{'conv' if kind == 'convolution' else 'gn'}{int(number) + 1}"
    return f"block{int(stage) + 1}/unit{int(block) + 1}/{part}"


def _flat(name: str, variable: keras.Variable, tensors: dict[str, np.ndarray]) -> Rule:
    """Older files have γ and β in the shape (1, 1, 1, channels)."""
    shape = tuple(variable.shape)
    if name in tensors and tensors[name].shape == (1, 1, 1, *shape):
        shape = (1, 1, 1, *shape)
    return Source(name, shape, np.ravel).rule(variable)
