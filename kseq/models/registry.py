"""Published and recommended sizes of every model, by name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module

import keras

from kseq.errors import InputError

MODULES = (  # whose VARIANTS are known
    "attention_unet",
    "char_tagger",
    "conv_lstm_forecaster",
    "language_model",
    "multi_stage_tcn",
    "recurrent_translator",
    "residual_unet",
    "setr",
    "swin",
    "swin_unet",
    "text_classifier",
    "transformer_translator",
    "transunet",
    "u_transformer",
    "unet",
    "video_tagger",
    "vit",
)


@dataclass(frozen=True)
class Variant:
    """A size of a model.

    Attributes:
        model: the function that builds it.
        arguments: what the function is called with.
        parameters: the number of parameters that these arguments give, published where the paper says it.
        source: the paper.
    """

    model: Callable[..., keras.Model]
    arguments: dict = field(default_factory=dict)
    parameters: int = 0
    source: str = ""


def variants() -> dict[str, Variant]:
    """All variants by name."""
    modules = (import_module(f"kseq.models.{name}") for name in MODULES)
    return {name: variant for module in modules for name, variant in module.VARIANTS.items()}


def list() -> list[str]:
    """The names that `create` knows."""
    return sorted(variants())


def create(name: str, /, **arguments) -> keras.Model:
    """Build a variant, random weights: `create("char_tagger", num_classes=17)`.

    Args:
        name: one of `list()`.
        **arguments: override those of the variant.

    Raises:
        InputError: for an unknown name.
    """
    known = variants()
    if name not in known:
        raise InputError(f"name {name!r}: no such model; choose one of {', '.join(sorted(known))}")
    return known[name].model(**(known[name].arguments | arguments))
