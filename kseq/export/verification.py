"""What an export and its model are compared on."""

from pathlib import Path

import numpy as np

from kseq.errors import InputError

BATCHES = (1, 5)
LENGTHS = (3, 11)  # for axes that may have any length


def encoded_inputs(model, raw) -> list[list[np.ndarray]]:
    """Random inputs of `model` at two batch sizes and, where its axes are free, two lengths.

    Args:
        model: a Keras model.
        raw: what it reads (`kseq.export.raw.raw_input`), or `None`.
    """
    random = np.random.default_rng(0)
    trials = []
    for batch, length in zip(BATCHES, getattr(raw, "lengths", LENGTHS), strict=True):
        arrays = []
        for tensor in model.inputs:
            shape = (batch, *(length if size is None else size for size in tensor.shape[1:]))
            if "int" in tensor.dtype:
                arrays.append(random.integers(1, raw.highest(tensor.name) if raw else 2, shape).astype(tensor.dtype))
            else:
                arrays.append(random.normal(size=shape).astype(tensor.dtype))
        trials.append(arrays)
    return trials


def expected_outputs(model, arrays: list[np.ndarray]) -> np.ndarray:
    """What `model` makes of these inputs."""
    import keras

    return keras.ops.convert_to_numpy(model(arrays if len(arrays) > 1 else arrays[0], training=False))


def difference(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a share of the largest expected value if above 1; infinite if the shapes differ."""
    if got.shape != expected.shape:
        return float("inf")
    expected = expected.astype("float64")
    return float(np.max(np.abs(got - expected)) / max(1.0, np.max(np.abs(expected))))


def check(signature: str, shape: tuple[int, ...], value: float) -> dict:
    """A line of the record: by how much a signature differed on inputs of this shape."""
    return {"signature": signature, "shape": list(shape), "difference": value}


def logits_alone(model):
    """`model`, without its other outputs if it answers a dict with `"logits"`, as with auxiliary heads."""
    import keras

    outputs = model.output
    if not isinstance(outputs, dict) or "logits" not in outputs:
        return model
    return keras.Model(model.input, outputs["logits"], name=model.name)


def check_outputs(model, path: Path) -> None:
    """Raise `InputError` if the model of the file at `path` answers more than logits."""
    if len(model.outputs) != 1:
        raise InputError(
            f"{path}: the model has {len(model.outputs)} outputs and should answer logits alone; save it without "
            "return_attention or features"
        )


def check_vocabulary(model, layer: str, size: int, path: Path) -> None:
    """Raise `InputError` if the table of tokens `layer` has another size than the vocabulary of a card."""
    tables = {x.name: x.input_dim for x in model.layers if hasattr(x, "input_dim")}
    if tables.get(layer, size) != size:
        raise InputError(
            f"{path}: its card has a vocabulary of {size:,} tokens, the model knows {tables[layer]:,} "
            f"({layer}); save it with the tokenizer that it was trained with"
        )
