"""SavedModel: the raw-input signatures inside the graph, and their verification."""

from pathlib import Path

import keras
import tensorflow as tf

from kseq.export.raw import raw_input
from kseq.export.verification import check, difference, encoded_inputs, expected_outputs


def write(model: keras.Model, card: dict, folder: Path) -> None:
    """Write `model` as a SavedModel with the signatures that its card allows (see `kseq.export.export`).

    A plain `tf.Module`, because `keras.export.ExportArchive` stores every variable twice (Keras 3.15).
    """
    module = tf.Module()
    module.model_variables = [variable.value for variable in model.variables]

    def logits(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)}

    serve = tf.function(logits, input_signature=[tf.TensorSpec(x.shape, x.dtype, name=x.name) for x in model.inputs])
    signatures = {"serve": serve, "serving_default": serve}
    raw = raw_input(card)
    for name, (specs, function) in raw.signatures(model).items() if raw else ():
        signatures[name] = tf.function(function, input_signature=specs, autograph=False)
    module.resources = getattr(raw, "resources", [])  # tables, which are lost unless the module holds them
    tf.saved_model.save(module, str(folder), signatures=signatures)


def verify(model: keras.Model, card: dict, folder: Path) -> list[dict]:
    """Run every signature of the SavedModel in `folder` at two batch sizes, and two lengths or sizes where they are
    free, and compare it with `model`.
    """
    signatures = tf.saved_model.load(str(folder)).signatures
    raw = raw_input(card)
    checks = []
    for arrays in encoded_inputs(model, raw):
        named = {tensor.name: tf.constant(array) for tensor, array in zip(model.inputs, arrays, strict=True)}
        (got,) = signatures["serve"](**named).values()
        checks.append(check("serve", arrays[0].shape, difference(got.numpy(), expected_outputs(model, arrays))))
    return checks + list(raw.verify(model, signatures) if raw else ())
