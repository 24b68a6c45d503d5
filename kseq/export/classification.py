"""What models that classify raw inputs have in common, whatever these are: signatures, verification, answers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kseq.errors import InputError
from kseq.export.verification import check, check_outputs, difference


@dataclass(frozen=True)
class Prediction:
    """The answer for one word, image or text.

    Attributes:
        kind: "word", "image" or "text".
        given: the word or text, or the path of the image, as it was given.
        label: the most probable class.
        probabilities: by class name.
    """

    kind: str
    given: str
    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Trial:
    """Raw inputs on which a signature is tried.

    Attributes:
        signature: its name.
        shape: of the raw inputs, for the record.
        raw: what the signature reads.
        encoded: what the model reads, made of it by the encoder of the card.
    """

    signature: str
    shape: tuple[int, ...]
    raw: Any
    encoded: np.ndarray


class Classification:
    """A raw input (`kseq.export.raw_input`) that is classified: strings or images to class names and probabilities.

    A kind of it has `kind`, for people; the `shape` of one model input; `signature`, the one `kseq predict` calls;
    `encode(raw)`, model inputs; `graphs()`, by name of the signature a tensor specification and a graph that encodes
    what fits it; and `trials()`.
    """

    kind: str
    signature = "serving_default"
    shape: tuple[int | None, ...]

    def __init__(self, card: dict):
        self.class_names = card["class_names"]

    def highest(self, name: str) -> int:
        """Above the integers that the model input of this name may hold."""
        return 2

    def check(self, model, path: Path) -> None:
        """Raise `InputError` if the card of the file at `path` does not fit its model."""
        check_outputs(model, path)
        reads, answers = model.inputs[0].shape[1:], model.outputs[0].shape[1:]
        pairs = zip(reads, self.shape, strict=False)
        if len(reads) != len(self.shape) or any(None not in pair and pair[0] != pair[1] for pair in pairs):
            raise InputError(
                f"{path}: its card makes inputs of shape {self.shape}, the model reads {reads}; save it with another "
                "card"
            )
        if answers != (len(self.class_names),):
            raise InputError(
                f"{path}: its card names {len(self.class_names)} classes, the model answers {answers}; save it with "
                "another card"
            )

    def signatures(self, model) -> dict[str, tuple[list, Callable]]:
        """Specifications of the inputs, and function, of every signature for raw inputs."""
        return {name: ([spec], self._classifier(model, encode)) for name, (spec, encode) in self.graphs().items()}

    def _classifier(self, model, encode: Callable) -> Callable:
        """From raw inputs `(batch, …)` to label `(batch,)`, probabilities `(batch, classes)` and the class names."""
        import tensorflow as tf

        class_names = tf.constant(self.class_names)

        def classify(raw: tf.Tensor) -> dict[str, tf.Tensor]:
            probabilities = tf.nn.softmax(tf.cast(model(encode(raw), training=False), tf.float32))
            return {
                "label": tf.gather(class_names, tf.argmax(probabilities, axis=-1)),
                "probabilities": probabilities,
                "classes": tf.identity(class_names),
            }

        return classify

    def verify(self, model, signatures: dict[str, Callable]) -> Iterator[dict]:
        """Compare the signatures of a loaded SavedModel with `model` on every trial."""
        import keras
        import tensorflow as tf

        for trial in self.trials():
            logits = model(trial.encoded, training=False)
            expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
            got = signatures[trial.signature](tf.constant(trial.raw))
            yield check(trial.signature, trial.shape, difference(got["probabilities"].numpy(), expected))
            names = [self.class_names[i] for i in expected.argmax(axis=-1)]
            if [label.decode() for label in got["label"].numpy()] != names:
                yield check(f"{trial.signature} label", trial.shape, float("inf"))

    def serve(self, signatures: dict[str, Callable], raw: list, given: list[str]) -> list[Prediction]:
        """The answers of a loaded SavedModel."""
        import tensorflow as tf

        return self._predictions(signatures[self.signature](tf.constant(raw))["probabilities"].numpy(), given)

    def answer(self, model, raw: list, given: list[str]) -> list[Prediction]:
        """The answers of a Keras model."""
        import keras

        logits = model.predict(self.encode(raw), verbose=0)
        return self._predictions(keras.ops.convert_to_numpy(keras.ops.softmax(logits)), given)

    def _predictions(self, probabilities: np.ndarray, given: list[str]) -> list[Prediction]:
        names = self.class_names
        return [
            Prediction(self.kind, name, names[int(row.argmax())], dict(zip(names, map(float, row), strict=True)))
            for name, row in zip(given, probabilities, strict=True)
        ]
