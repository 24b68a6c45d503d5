"""`.keras` files that also say how raw inputs become model inputs: saved atomically, loaded in safe mode.

A `.keras` file is a zip archive. kseq adds one member to it, the *card* (`kseq.json`): what the model reads and what
its outputs mean. Keras ignores it; `kseq export` and `kseq predict` need nothing else to serve a model from raw text.
"""

import json
import os
import zipfile
from pathlib import Path

import keras

from kseq.atomic import atomic_file
from kseq.errors import InputError

CARD = "kseq.json"


def save(model: keras.Model, path: str | os.PathLike, card: dict | None = None) -> None:
    """Write `model` (architecture, weights, optimizer state) and its card to `path`, which ends in `.keras`.

    The file appears under its name only when it is complete; if writing fails, an earlier one stays.

    Args:
        model: any.
        path: of the file.
        card: for `kseq export` and `kseq predict`: what the model reads, by a configuration of what encodes it, and
            what it answers. `kseq.export.export` lists what there is.
    """
    with atomic_file(path) as temporary:
        model.save(temporary)
        if card is not None:
            with zipfile.ZipFile(temporary, "a") as archive:
                archive.writestr(CARD, json.dumps(card, indent=1))


def load(path: str | os.PathLike, compile: bool = True) -> keras.Model:
    """Load a `.keras` file in safe mode, with the layers of kseq known.

    Raises:
        InputError: if the file is missing, not a complete `.keras` file, or would run code of its own.
    """
    import kseq.layers  # registers them
    import kseq.training  # noqa: F401  and losses, metrics and schedules, which a compiled model has

    _check_archive(path)
    try:
        return keras.saving.load_model(path, compile=compile, safe_mode=True)
    except Exception as error:  # whatever a damaged file makes Keras raise
        text = str(error)
        if "lambda" in text.lower() or "safe_mode" in text or "unsafe" in text.lower():
            raise InputError(
                f"{path}: carries code of its own (a Lambda layer or function) and is refused; "
                "rebuild the model from registered layers"
            ) from error
        raise InputError(f"{path}: cannot be read as a Keras model ({text.splitlines()[0][:200]})") from error


def load_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """Set the weights of `model`, and of its optimizer if it is compiled, from a `.keras` file."""
    _check_archive(path)
    if model.compiled:
        model.optimizer.build(model.trainable_variables)
    try:
        model.load_weights(path)
    except Exception as error:
        raise InputError(f"{path}: does not fit the model ({str(error).splitlines()[0][:200]})") from error


def read_card(path: str | os.PathLike) -> dict:
    """The card of a `.keras` file, empty if it has none."""
    _check_archive(path)
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(CARD)) if CARD in archive.namelist() else {}


def _check_archive(path: str | os.PathLike) -> None:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; give a .keras file")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path}: not a complete .keras file ({error}); save or copy it again") from error
    if damaged or "config.json" not in names:
        raise InputError(f"{path}: not a complete .keras file ({damaged or 'config.json'} is damaged or missing)")
