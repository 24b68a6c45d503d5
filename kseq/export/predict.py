"""Answers for raw inputs, from an export or from a `.keras` file."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kseq.errors import InputError
from kseq.export.export import RECORD, model_file
from kseq.export.raw import KINDS, raw_input

BATCH = 128  # raw inputs at a time


@dataclass(frozen=True)
class Prediction:
    """The answer for one word or image.

    Attributes:
        kind: "word" or "image".
        given: the word, or the path of the image, as it was given.
        label: the most probable class.
        probabilities: by class name.
    """

    kind: str
    given: str
    label: str
    probabilities: dict[str, float]


def predict(path: str | os.PathLike, given: list[str]) -> list[Prediction]:
    """Classify words, or PNG and JPEG files, with a SavedModel (by TensorFlow alone), a run folder or a `.keras` file.

    Raises:
        InputError: if there is no model at `path`, it reads neither, or a word or an image cannot be read.
    """
    path = Path(path)
    is_saved_model = (path / "saved_model.pb").is_file()
    card = _record(path) if is_saved_model else _card(path)
    inputs = raw_input(card)
    if inputs is None:
        raise InputError(
            f"{path}: the model does not read words or images, its card has no {' or '.join(map(repr, KINDS))}; save "
            "it with one (kseq.saving.save), or use its file in Python"
        )
    raw = inputs.read(given)
    answer = _by_tensorflow(path, inputs) if is_saved_model else _by_keras(path, inputs)
    probabilities = np.concatenate([answer(raw[start : start + BATCH]) for start in range(0, len(raw), BATCH)])
    names = card["class_names"]
    return [
        Prediction(inputs.kind, name, names[int(row.argmax())], dict(zip(names, map(float, row), strict=True)))
        for name, row in zip(given, probabilities, strict=True)
    ]


def _record(folder: Path) -> dict:
    record = folder / RECORD
    if not record.is_file():
        raise InputError(f"{folder}: a SavedModel without {RECORD}, so not one of kseq; export it with kseq export")
    return json.loads(record.read_text())


def _card(path: Path) -> dict:
    from kseq import saving

    if path.is_dir() and not (path / "model.keras").is_file():
        raise InputError(
            f"{path}: holds neither saved_model.pb nor model.keras; give a SavedModel, a run or a .keras file"
        )
    return saving.read_card(model_file(path))


def _by_tensorflow(folder: Path, inputs) -> Callable[[list], np.ndarray]:
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:
        raise InputError(
            f"{folder}: a damaged SavedModel ({str(error).splitlines()[0][:200]}); export it again"
        ) from error

    def answer(raw: list) -> np.ndarray:
        try:
            return loaded.signatures[inputs.signature](tf.constant(raw))["probabilities"].numpy()
        except tf.errors.InvalidArgumentError as error:  # what we can read and TensorFlow cannot, as rare image files
            reason = error.message.split("[[")[0].strip().splitlines()[-1][:200]
            raise InputError(
                f"{folder}: cannot read one of the {inputs.kind}s ({reason}); give it in another form"
            ) from error

    return answer


def _by_keras(path: Path, inputs) -> Callable[[list], np.ndarray]:
    import keras

    from kseq import saving

    model = saving.load(model_file(path), compile=False)

    def answer(raw: list) -> np.ndarray:
        logits = model.predict(inputs.encode(raw), verbose=0)
        return keras.ops.convert_to_numpy(keras.ops.softmax(logits))

    return answer
