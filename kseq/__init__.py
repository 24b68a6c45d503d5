"""kseq: sequence and attention models in Keras 3, the same on TensorFlow, JAX and PyTorch.

`kseq.data`, `kseq.layers`, `kseq.models`, `kseq.weights`, `kseq.training`, `kseq.inference`, `kseq.analysis`,
`kseq.saving`, `kseq.export` and `kseq.compare` load when first used, so that `import kseq` is instant and the backend
(`KERAS_BACKEND`) can still be chosen after it. `kseq.saving.load` knows our layers; `keras.saving.load_model` does once
`kseq.layers` has been imported.
"""

import importlib
import sys

__version__ = "0.1.0"

_SUBMODULES = (
    "analysis",
    "compare",
    "data",
    "export",
    "inference",
    "layers",
    "models",
    "saving",
    "training",
    "weights",
)


def __getattr__(name: str):
    if name in _SUBMODULES:
        return importlib.import_module(f"kseq.{name}")
    raise AttributeError(f"module 'kseq' has no attribute {name!r}; it has {', '.join(_SUBMODULES)}")


def __dir__() -> list[str]:
    return [*globals(), *_SUBMODULES]


if "keras" in sys.modules:  # then keras.saving.load_model should know our layers, and loading them costs nothing more
    importlib.import_module("kseq.layers")
    importlib.import_module("kseq.training")
