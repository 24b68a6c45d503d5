"""Answers for raw inputs, from an export or from a `.keras` file."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kseq.data import CharacterEncoder
from kseq.errors import InputError
from kseq.export.export import RECORD, model_file


@dataclass(frozen=True)
class Prediction:
    """The answer for one word.

    Attributes:
        word: as it was given.
        label: the most probable class.
        probabilities: by class name.
    """

    word: str
    label: str
    probabilities: dict[str, float]


def predict(path: str | os.PathLike, words: list[str]) -> list[Prediction]:
    """Classify words with a SavedModel (by TensorFlow alone), a run folder or a `.keras` file (by Keras).

    Raises:
        InputError: if there is no model at `path`, it does not read words, or a word cannot be read.
    """
    if not words:
        raise InputError("words: none given; give at least one")
    path = Path(path)
    is_saved_model = (path / "saved_model.pb").is_file()
    card = _record(path) if is_saved_model else _card(path)
    if "characters" not in card:
        raise InputError(f"{path}: the model does not read words; use its file in Python")
    encoder = CharacterEncoder(**card["characters"])
    encoded = encoder(words)
    probabilities = _by_tensorflow(path, words) if is_saved_model else _by_keras(path, encoded)
    names = card["class_names"]
    return [
        Prediction(word, names[int(row.argmax())], dict(zip(names, map(float, row), strict=True)))
        for word, row in zip(words, probabilities, strict=True)
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


def _by_tensorflow(folder: Path, words: list[str]) -> np.ndarray:
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:
        raise InputError(
            f"{folder}: a damaged SavedModel ({str(error).splitlines()[0][:200]}); export it again"
        ) from error
    return loaded.signatures["serving_default"](tf.constant(words))["probabilities"].numpy()


def _by_keras(path: Path, encoded: np.ndarray) -> np.ndarray:
    import keras

    from kseq import saving

    logits = saving.load(model_file(path), compile=False).predict(encoded, verbose=0)
    return keras.ops.convert_to_numpy(keras.ops.softmax(logits))
