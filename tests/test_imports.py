"""What importing kseq loads, and what it does not."""

import subprocess
import sys

import keras
import pytest

from tests.conftest import torch_only

HEAVY = ("av", "matplotlib", "sklearn", "PIL", "keras_hub", "rich", "typer", "onnxruntime")


not_tensorflow = pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="asks what other backends load")


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@not_tensorflow
def test_import_kseq_and_its_data_load_no_keras():
    loaded = loaded_after("import kseq; kseq.data.parts_of_speech(); kseq.data.handwritten_digits()")
    assert not loaded & {"keras", "tensorflow", "torch", *HEAVY}


@not_tensorflow
def test_the_command_line_starts_without_keras():
    assert not loaded_after("import kseq.cli, kseq.compare") & {"keras", "tensorflow", "torch", "matplotlib", "sklearn"}


@torch_only
def test_kseq_loads_nothing_heavy_that_keras_does_not():
    ours = loaded_after("import kseq.models, kseq.training, kseq.saving, kseq.export, kseq.compare")
    added = ours - loaded_after("import keras")
    assert "kseq" in added
    assert not added & {"tensorflow", "torch", "jax", *HEAVY} - {"rich"}


@torch_only
def test_keras_knows_our_layers_after_import_kseq():
    code = "import keras, kseq; print(keras.saving.get_registered_object('kseq>OneHot'))"
    assert "OneHot" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout


def test_every_module_says_what_it_is_for():
    import importlib
    import pkgutil

    import kseq

    names = [module.name for module in pkgutil.walk_packages(kseq.__path__, "kseq.") if "__main__" not in module.name]
    if keras.backend.backend() != "tensorflow":
        names.remove("kseq.export.saved_model")  # the one module that is written in TensorFlow
    for name in names:
        assert importlib.import_module(name).__doc__, name


def test_an_unknown_attribute_is_an_attribute_error():
    import kseq

    with pytest.raises(AttributeError, match="module 'kseq' has no attribute 'model'"):
        kseq.model  # noqa: B018
