"""Loading a checkpoint: the layout says what belongs where, all of it is checked, then all of it is assigned."""

import os
from collections.abc import Mapping

import keras
import numpy as np

from kseq.errors import InputError
from kseq.weights.checkpoint import read
from kseq.weights.layout import Layout, Rule
from kseq.weights.torch_recurrent import TorchRecurrent

LAYOUTS: tuple[Layout, ...] = (TorchRecurrent(),)


def load(
    model: keras.layers.Layer,
    checkpoint: str | os.PathLike | Mapping[str, object],
    layout: str | None = None,
) -> None:
    """Set the weights of a model or layer from a checkpoint that another library wrote.

    Layers of the model that the layout has no counterpart for keep their weights. If anything is missing, left over or
    of another shape, nothing is assigned.

    Args:
        model: a model or a layer; a recurrent layer that is not built is built for the checkpoint's input size.
        checkpoint: a `.pth`, `.pt`, `.safetensors` or `.npz` file, or its content: names to NumPy arrays or PyTorch
            tensors, as a `state_dict()`. What lies under `"state_dict"` or `"model"` is taken if there is such a key.
        layout: name of the source layout; `None` recognises it.

    Raises:
        InputError: if the file cannot be read, would run code of its own, has a layout that is unknown, or does not
            fit the model; then it names all tensors that are missing, extra, or of a wrong shape.
    """
    if not isinstance(model, keras.layers.Layer):
        raise InputError(f"model {type(model).__name__}: give a keras.Model or a layer")
    source, tensors = read(checkpoint)
    chosen = _layout(layout, source, set(tensors))
    if not model.built:
        # First a copy, so that a checkpoint that does not fit leaves the model as it was.
        shape = chosen.input_shape(model, tensors)
        trial = type(model).from_config(model.get_config())
        trial.build(shape)
        _check(trial, chosen, tensors, source)
        model.build(shape)
    for rule in _check(model, chosen, tensors, source):
        rule.variable.assign(rule.convert(*(tensors[name] for name in rule.sources)))


def _layout(name: str | None, source: str, names: set[str]) -> Layout:
    known = ", ".join(layout.name for layout in LAYOUTS)
    if name is None:
        for layout in LAYOUTS:
            if layout.recognises(names):
                return layout
        raise InputError(f"{source}: its {len(names)} tensors ({_some(names)}) have no known layout; known are {known}")
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise InputError(f"layout {name!r}: unknown; give {known}, or None to recognise it")


def _check(model: keras.layers.Layer, layout: Layout, tensors: dict[str, np.ndarray], source: str) -> list[Rule]:
    rules = layout.rules(model, tensors)
    wanted = {name: tuple(shape) for rule in rules for name, shape in rule.sources.items()}
    missing = [name for name in wanted if name not in tensors]
    extra = [name for name in tensors if name not in wanted and not layout.ignores(name)]
    wrong = [
        f"{name} {tensors[name].shape} where {shape} is needed"
        for name, shape in wanted.items()
        if name in tensors and tensors[name].shape != shape
    ]
    problems = {"missing": missing, "extra": extra, "wrong shape": wrong}
    found = [f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names]
    if found:
        raise InputError(
            f"{source}: does not fit {model.name} ({type(model).__name__}); {'; '.join(found)}; nothing was loaded, "
            "build the model with the sizes of the checkpoint"
        )
    return rules


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")
