"""ONNX: model inputs to logits, checked with onnxruntime."""

from pathlib import Path

import keras

from kseq.errors import InputError, KseqError
from kseq.export.raw import raw_input
from kseq.export.verification import check, difference, encoded_inputs, expected_outputs


def write(model: keras.Model, path: Path) -> None:
    """Convert `model` with tf2onnx."""
    if model.dtype_policy.compute_dtype != "float32" or any(layer.compute_dtype != "float32" for layer in model.layers):
        raise InputError(
            "format 'onnx': the model computes in mixed precision and ONNX export needs float32; "
            "use --format saved_model"
        )
    signature = [keras.InputSpec(shape=x.shape, dtype=x.dtype, name=x.name) for x in model.inputs]
    if len(signature) > 1:
        signature = [signature]  # Keras takes a list for the arguments of a call, of which ours has one
    try:
        model.export(path, format="onnx", input_signature=signature, verbose=False)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise KseqError(
            f"format 'onnx': tf2onnx cannot convert {model.name} ({reason}); use --format saved_model"
        ) from error


def verify(model: keras.Model, card: dict, path: Path) -> list[dict]:
    """Run the file at `path` at two batch sizes and lengths and compare it with `model`."""
    import onnxruntime

    checks = []
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [tensor.name for tensor in session.get_inputs()]
        for arrays in encoded_inputs(model, raw_input(card)):
            (got,) = session.run(None, dict(zip(names, arrays, strict=True)))
            checks.append(check(names[0], arrays[0].shape, difference(got, expected_outputs(model, arrays))))
    except Exception as error:  # onnxruntime has a class of its own for each way in which a graph is wrong
        reason = str(error).strip().splitlines()[0][:200]
        raise KseqError(
            f"format 'onnx': what tf2onnx made of {model.name} cannot be run ({reason}); use --format saved_model"
        ) from error
    return checks
