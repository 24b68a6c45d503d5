"""Loading a checkpoint: the layout says what belongs where, all of it is checked, then all of it is assigned."""

import os
from collections.abc import Collection, Iterator, Mapping

import keras
import numpy as np

from kseq.errors import InputError, shorten
from kseq.weights.bahdanau import Bahdanau
from kseq.weights.checkpoint import read
from kseq.weights.conv_lstm_hzzone import ConvLstmHzzone
from kseq.weights.glam_swin import GlamSwin
from kseq.weights.glam_swin_unet import GlamSwinUnet
from kseq.weights.layout import Layout, Rule
from kseq.weights.monai_attention_unet import MonaiAttentionUnet
from kseq.weights.monai_unet import MonaiUnet
from kseq.weights.ms_tcn import MsTcn
from kseq.weights.non_local import NonLocal
from kseq.weights.setr import Setr
from kseq.weights.swin import SwinMicrosoft, SwinTimm, SwinTransformers
from kseq.weights.swin_unet import SwinUnetCao
from kseq.weights.torch_attention import TorchAttention
from kseq.weights.torch_recurrent import TorchRecurrent
from kseq.weights.transunet import TransUnet, TransUnetJax
from kseq.weights.upernet import UPerNetGlamSwin, UPerNetSwin
from kseq.weights.vit_jax import VitJax
from kseq.weights.vit_timm import VitTimm
from kseq.weights.vit_torchvision import VitTorchvision
from kseq.weights.vit_transformers import VitTransformers

# The first that recognises a checkpoint takes it, so the special ones stand in front of the general ones.
LAYOUTS: tuple[Layout, ...] = (
    Setr(),
    UPerNetGlamSwin(),
    UPerNetSwin(),
    TransUnet(),
    TransUnetJax(),
    GlamSwinUnet(),
    SwinUnetCao(),
    GlamSwin(),
    SwinTimm(),
    SwinMicrosoft(),
    SwinTransformers(),
    VitTimm(),
    VitTransformers(),
    VitTorchvision(),
    VitJax(),
    MonaiUnet(),
    MonaiAttentionUnet(),
    NonLocal(),
    MsTcn(),
    ConvLstmHzzone(),
    Bahdanau(),
    TorchAttention(),
    TorchRecurrent(),
)
NAMED_AT_MOST = 8  # tensors of one kind in a message; a ViT-B has 152


class MismatchError(InputError):
    """A checkpoint that does not fit the model.

    Attributes:
        problems: all tensors that are "missing", "extra" or of a "wrong shape"; the message names the first of each.
    """

    def __init__(self, message: str, problems: dict[str, list[str]]):
        super().__init__(message)
        self.problems = problems


def load(
    model: keras.layers.Layer,
    checkpoint: str | os.PathLike | Mapping[str, object],
    layout: str | Layout | None = None,
    *,
    skip: str | Collection[str] = (),
) -> None:
    """Set the weights of a model or layer from a checkpoint that another library wrote.

    Layers of the model that the layout has no counterpart for keep their weights, so that the encoder of a model for
    segmentation can start from a classifier: SETR and TransUNet from a ViT, SwinUnet from a Swin. If anything is
    missing, left over or of another shape, nothing is assigned. A vision transformer may have another grid of positions
    than the checkpoint: they are resampled (`kseq.weights.resample_positions`).

    Args:
        model: a model or a layer; a recurrent layer, attention or transformer block that is not built is built for the
            checkpoint's input size.
        checkpoint: a `.pth`, `.pt`, `.safetensors` or `.npz` file, or its content: names to NumPy arrays or PyTorch
            tensors, as a `state_dict()`. What lies under `"state_dict"` or `"model"` is taken if there is such a key.
        layout: name of the source layout, or one with other settings, `VitTimm(interpolation="bilinear")`; `None`
            recognises it.
        skip: names of layers of the model that keep their weights, whatever the checkpoint has for them: `"logits"` to
            fine-tune to other classes.

    Raises:
        InputError: if the file cannot be read, would run code of its own, or has a layout that is unknown.
        MismatchError: if it does not fit the model; it has all tensors that are missing, extra, or of a wrong shape.
    """
    if not isinstance(model, keras.layers.Layer):
        raise InputError(f"model {type(model).__name__}: give a keras.Model or a layer")
    skip = {skip} if isinstance(skip, str) else set(skip)
    known = {layer.name for layer in _inner_layers(model)}
    for name in sorted(skip - known):
        raise InputError(f"skip {name!r}: no layer of {model.name}; its layers are {_first(sorted(known))}")
    source, tensors = read(checkpoint)
    chosen = _layout(layout, source, set(tensors))
    if not model.built:
        # First a copy, so that a checkpoint that does not fit leaves the model as it was.
        shapes = chosen.build_shapes(model, tensors)
        trial = type(model).from_config(model.get_config())
        trial.build(*shapes)
        _check(trial, chosen, tensors, source, skip)
        model.build(*shapes)
    rules = _check(model, chosen, tensors, source, skip)
    values = [rule.convert(*(tensors[name] for name in rule.sources)) for rule in rules]
    for rule, value in zip(rules, values, strict=True):
        rule.variable.assign(value)


def _inner_layers(model: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    for layer in getattr(model, "layers", []):
        yield layer
        yield from _inner_layers(layer)


def _layout(layout: str | Layout | None, source: str, names: set[str]) -> Layout:
    if isinstance(layout, Layout):
        return layout
    known = ", ".join(one.name for one in LAYOUTS)
    if layout is None:
        for one in LAYOUTS:
            if one.recognises(names):
                return one
        some = _first(sorted(names), 3)
        raise InputError(f"{source}: its {len(names)} tensors ({some}) have no known layout; known are {known}")
    for one in LAYOUTS:
        if one.name == layout:
            return one
    raise InputError(f"layout {shorten(layout)}: unknown; give {known}, a Layout, or None to recognise it")


def _check(
    model: keras.layers.Layer, layout: Layout, tensors: dict[str, np.ndarray], source: str, skip: set[str]
) -> list[Rule]:
    """The rules of the layers that are not skipped, all of which can be applied."""
    kept = {id(variable) for layer in _inner_layers(model) if layer.name in skip for variable in layer.variables}
    rules = layout.rules(model, tensors)
    known = {name for rule in rules for name in rule.sources} | layout.unused(model, tensors)
    rules = [rule for rule in rules if id(rule.variable) not in kept]
    wanted = [(name, tuple(shape)) for rule in rules for name, shape in rule.sources.items()]
    problems = {
        "missing": [name for name, _ in wanted if name not in tensors],
        "extra": [name for name in tensors if name not in known and not layout.ignores(name, skip)],
        "wrong shape": [
            f"{name} {tensors[name].shape} where {shape} is needed"
            for name, shape in wanted
            if name in tensors and tensors[name].shape != shape
        ],
    }
    problems = {kind: [*dict.fromkeys(names)] for kind, names in problems.items() if names}
    if problems:
        found = "; ".join(f"{kind}: {_first(names)}" for kind, names in problems.items())
        raise MismatchError(
            f"{source}: does not fit {model.name} ({type(model).__name__}); {found}; nothing was loaded, "
            "build the model with the sizes of the checkpoint, or skip the layers that differ",
            problems,
        )
    return rules


def _first(names: list[str], most: int = NAMED_AT_MOST) -> str:
    rest = [f"… and {len(names) - most} more"] if len(names) > most else []
    return ", ".join(names[:most] + rest)
