"""SavedModel: the raw-input signatures inside the graph, and their verification."""

from pathlib import Path

import keras
import tensorflow as tf

from kseq.export.raw import raw_input
from kseq.export.verification import difference, encoded_inputs


def write(model: keras.Model, card: dict, folder: Path) -> None:
    """Write `model` as a SavedModel with the signatures that its card allows (see `kseq.export.export`).

    A plain `tf.Module`, because `keras.export.ExportArchive` stores every variable twice (Keras 3.15).
    """
    inputs = model.inputs[0]
    encoded = tf.TensorSpec(inputs.shape, inputs.dtype, name=inputs.name)
    module = tf.Module()
    module.model_variables = [variable.value for variable in model.variables]
    serve = tf.function(lambda x: {"logits": model(x, training=False)}, input_signature=[encoded])
    signatures = {"serve": serve, "serving_default": serve}
    raw = raw_input(card)
    for name, (spec, encode) in raw.signatures().items() if raw else ():
        signatures[name] = tf.function(classifier(model, encode, card["class_names"]), input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures=signatures)


def classifier(model: keras.Model, encode, class_names: list[str]):
    """A function of raw inputs `(batch, …)`: label `(batch,)`, probabilities `(batch, classes)`, the class names."""
    class_names = tf.constant(class_names)

    def classify(raw: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.nn.softmax(tf.cast(model(encode(raw), training=False), tf.float32))
        return {
            "label": tf.gather(class_names, tf.argmax(probabilities, axis=-1)),
            "probabilities": probabilities,
            "classes": tf.identity(class_names),
        }

    return classify


def verify(model: keras.Model, card: dict, folder: Path) -> list[dict]:
    """Run every signature of the SavedModel in `folder` at two batch sizes, and two lengths or sizes where they are
    free, and compare it with `model`.
    """
    loaded = tf.saved_model.load(str(folder))
    raw = raw_input(card)
    checks = []
    for inputs in encoded_inputs(model, raw):
        expected = keras.ops.convert_to_numpy(model(inputs, training=False))
        (got,) = loaded.signatures["serve"](tf.constant(inputs)).values()
        checks.append(_check("serve", inputs.shape, difference(got.numpy(), expected)))
    for trial in raw.trials() if raw else ():
        logits = keras.ops.convert_to_numpy(model(trial.encoded, training=False))
        expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
        got = loaded.signatures[trial.signature](tf.constant(trial.raw))
        checks.append(_check(trial.signature, trial.shape, difference(got["probabilities"].numpy(), expected)))
        names = [card["class_names"][i] for i in expected.argmax(axis=-1)]
        if [label.decode() for label in got["label"].numpy()] != names:
            checks.append(_check(f"{trial.signature} label", trial.shape, float("inf")))
    return checks


def _check(signature: str, shape: tuple[int, ...], value: float) -> dict:
    return {"signature": signature, "shape": list(shape), "difference": value}
