"""SavedModel: the raw-input signatures inside the graph, and their verification."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kseq.data import CharacterEncoder
from kseq.export.verification import difference, encoded_inputs, random_words


def write(model: keras.Model, card: dict, folder: Path) -> None:
    """Write `model` as a SavedModel with the signatures that its card allows (see `kseq.export.export`).

    A plain `tf.Module`, because `keras.export.ExportArchive` stores every variable twice (Keras 3.15).
    """
    inputs = model.inputs[0]
    encoded = tf.TensorSpec(inputs.shape, inputs.dtype, name=inputs.name)
    module = tf.Module()
    module.model_variables = [variable.value for variable in model.variables]
    module.serve = tf.function(lambda x: {"logits": model(x, training=False)}, input_signature=[encoded])
    signatures = {"serve": module.serve, "serving_default": module.serve}
    if "characters" in card:
        words = tf.TensorSpec([None], tf.string, name="words")
        module.classify = tf.function(word_classifier(model, card), input_signature=[words])
        signatures["serving_default"] = module.classify
    tf.saved_model.save(module, str(folder), signatures=signatures)


def word_classifier(model: keras.Model, card: dict):
    """A function of a string tensor `(batch,)`: label, probabilities `(batch, classes)` and the class names."""
    encode = character_graph(CharacterEncoder(**card["characters"]))
    class_names = tf.constant(card["class_names"])

    def serving_default(words: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = tf.nn.softmax(tf.cast(model(encode(words), training=False), tf.float32))
        return {
            "label": tf.gather(class_names, tf.argmax(probabilities, axis=-1)),
            "probabilities": probabilities,
            "classes": tf.identity(class_names),
        }

    return serving_default


def character_graph(encoder: CharacterEncoder):
    """`encoder` as TensorFlow operations; a word that it refuses fails with InvalidArgumentError."""
    codes, numbers = np.array(sorted((ord(c), n) for c, n in encoder.numbers.items()), dtype="int32").T

    def encode(words: tf.Tensor) -> tf.Tensor:
        # In a message a word must be valid UTF-8, or TensorFlow fails to raise it, and short.
        shown = tf.strings.substr(tf.strings.unicode_transcode(words, "UTF-8", "UTF-8"), 0, 40, unit="UTF8_CHAR")
        points = tf.strings.unicode_decode(words, "UTF-8")  # ragged (batch, characters)
        places = tf.minimum(tf.searchsorted(codes, points.flat_values), len(codes) - 1)
        known = tf.reduce_all(tf.gather(codes, places) == points.flat_values)
        lengths = points.row_lengths()
        fits = tf.reduce_all((lengths >= 1) & (lengths <= encoder.max_length))
        checks = [
            tf.debugging.Assert(known, [f"words: only the characters {encoder.characters} can be read, got", shown]),
            tf.debugging.Assert(fits, [f"words: 1 to {encoder.max_length} characters each can be read, got", shown]),
        ]
        with tf.control_dependencies(checks):  # so that nothing behind them fails first, in words of its own
            return points.with_flat_values(tf.gather(numbers, places)).to_tensor(0)

    return encode


def verify(model: keras.Model, card: dict, folder: Path) -> list[dict]:
    """Run every signature of the SavedModel in `folder` at two batch sizes and lengths and compare it with `model`."""
    loaded = tf.saved_model.load(str(folder))
    checks = []
    for inputs in encoded_inputs(model, card):
        expected = keras.ops.convert_to_numpy(model(inputs, training=False))
        (got,) = loaded.signatures["serve"](tf.constant(inputs)).values()
        checks.append(_check("serve", inputs.shape, difference(got.numpy(), expected)))
    if "characters" in card:
        encoder = CharacterEncoder(**card["characters"])
        for batch, length in ((1, encoder.max_length), (5, max(1, encoder.max_length // 2))):
            words = random_words(encoder, batch, length)
            logits = keras.ops.convert_to_numpy(model(encoder(words), training=False))
            expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
            got = loaded.signatures["serving_default"](tf.constant(words))
            checks.append(
                _check("serving_default", (batch, length), difference(got["probabilities"].numpy(), expected))
            )
            names = [card["class_names"][i] for i in expected.argmax(axis=-1)]
            if [label.decode() for label in got["label"].numpy()] != names:
                checks.append(_check("serving_default label", (batch, length), float("inf")))
    return checks


def _check(signature: str, shape: tuple[int, ...], value: float) -> dict:
    return {"signature": signature, "shape": list(shape), "difference": value}
