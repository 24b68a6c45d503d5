"""What every layer and every model of kseq must pass, on every backend."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from kseq import saving
from tests.conftest import WHOLE
from tests.numpy_initializers import numpy_initializers

POLICIES = ("mixed_bfloat16", "mixed_float16")
if not WHOLE and keras.backend.backend() != "torch":  # where a graph is traced or compiled for each
    POLICIES = ("mixed_float16",) if keras.backend.backend() == "tensorflow" else ("mixed_bfloat16",)


@numpy_initializers()
def check_layer(make: Callable[[], keras.layers.Layer], inputs: np.ndarray, folder: Path) -> None:
    """Check a layer by itself and, through a model of this layer alone, like a model."""
    layer = make()
    copy = type(layer).from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    eager = layer(inputs)
    assert layer.compute_output_shape(inputs.shape) == tuple(eager.shape)

    def model() -> keras.Model:
        entry = keras.Input(inputs.shape[1:], dtype=inputs.dtype.name)
        return keras.Model(entry, make()(entry))

    check_model(model, inputs, folder, POLICIES)


@numpy_initializers()
def check_model(
    make: Callable[[], keras.Model], inputs: np.ndarray, folder: Path, policies: tuple[str, ...] = ()
) -> None:
    """Check shapes, the `.keras` round trip, that every parameter learns, and mixed precision.

    On JAX, which compiles long, mixed precision is checked of layers, not of whole models.
    """
    model = make()
    assert {variable.dtype for variable in model.trainable_variables} <= {"float32"}
    outputs = model.predict(inputs, verbose=0)
    for size, symbolic in zip(outputs.shape, model.output_shape, strict=True):
        assert symbolic in (None, size)
    assert model.compute_output_shape(inputs.shape) == outputs.shape

    saving.save(model, folder / "round_trip.keras")
    again = saving.load(folder / "round_trip.keras")
    assert again.to_json() == model.to_json()
    np.testing.assert_array_equal(again.predict(inputs, verbose=0), outputs)

    if model.trainable_variables:
        check_learning(again, inputs)
    for policy in policies or (() if keras.backend.backend() == "jax" else POLICIES):
        keras.config.set_dtype_policy(policy)
        model = make()
        if keras.backend.backend() == "tensorflow":  # tracing a graph for one batch takes several times as long
            outputs = keras.ops.cast(model(inputs, training=False), "float32")
        else:
            outputs = model.predict(inputs, verbose=0)
        assert np.isfinite(np.asarray(outputs, dtype="float32")).all(), policy
        assert {variable.dtype for variable in model.trainable_variables} <= {"float32"}, policy
    keras.config.set_dtype_policy("float32")


def check_learning(model: keras.Model, inputs: np.ndarray) -> None:
    """One step of `fit` towards random targets moves every parameter and leaves it finite."""
    targets = np.random.default_rng(0).normal(size=model.compute_output_shape(inputs.shape)).astype("float32")
    before = [keras.ops.convert_to_numpy(variable).copy() for variable in model.trainable_variables]
    model.compile(keras.optimizers.SGD(1.0), "mean_squared_error")
    model.fit(inputs, targets, batch_size=len(inputs), verbose=0)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        new = keras.ops.convert_to_numpy(variable)
        assert np.isfinite(new).all(), variable.path
        if not variable.path.endswith("/key/bias"):  # adds the same to all logits of a softmax, so its gradient is 0
            assert np.abs(new - old).max() > 1e-7, f"{variable.path} receives no gradient"


def check_padding(model: keras.Model, inputs: np.ndarray, length: int) -> None:
    """Rows of `inputs` valid up to `length` and 0 behind it give the same outputs when the padding is cut off."""
    whole, cut = model.predict(inputs, verbose=0), model.predict(inputs[:, :length], verbose=0)
    if whole.ndim == 3:
        whole = whole[:, :length]
    np.testing.assert_allclose(whole, cut, atol=1e-6)
