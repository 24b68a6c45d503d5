"""Choosing a backend before Keras is imported."""

import os
from importlib.util import find_spec

from kseq.errors import InputError, shorten

BACKENDS = ("tensorflow", "jax", "torch")  # each is also the name of the package it needs


def choose_backend(name: str | None = None) -> str:
    """Set `KERAS_BACKEND` to `name`, or leave the one that is set, or take TensorFlow; return it.

    Raises:
        InputError: if it is no backend of Keras or is not installed.
    """
    name = name or os.environ.get("KERAS_BACKEND") or "tensorflow"
    require_backend(name)
    os.environ["KERAS_BACKEND"] = name
    return name


def require_backend(name: str) -> None:
    """Raise an `InputError` if `name` is no backend or is not installed."""
    if name not in BACKENDS:
        raise InputError(f"backend {shorten(name)}: choose one of {', '.join(BACKENDS)}")
    if find_spec(name) is None:
        raise InputError(f"backend {name}: not installed; pip install 'kseq[{name}]', or choose another")
