"""Answers for raw inputs, from an export or from a `.keras` file."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from kseq.errors import InputError
from kseq.export.classification import Prediction
from kseq.export.continuation import Continuation
from kseq.export.export import RECORD, model_file
from kseq.export.raw import KINDS, raw_input
from kseq.export.segmentation import LabelMap, Segmentation, mask_paths, write_mask
from kseq.export.translation import Answer
from kseq.export.verification import logits_alone
from kseq.export.video import Timeline, Video

BATCH = 128  # raw inputs at a time


def predict(
    path: str | os.PathLike,
    given: list[str],
    output: str | os.PathLike | None = None,
    *,
    track: Callable | None = None,
    **drawn,
) -> list[Prediction] | list[LabelMap] | list[Timeline] | list[Answer]:
    """Classify words, texts, or PNG and JPEG files, segment these, tag videos, translate texts or continue them.

    What is done is what the model does: a SavedModel (which TensorFlow alone runs), a run folder or a `.keras` file.

    A video is read frame by frame, in constant memory. Where a file breaks off, its `Timeline` ends, and says why.

    Args:
        path: of the model.
        given: words, texts or paths of images or videos.
        output: for a model that segments images, where masks are written: a PNG file for one image, or a folder, in
            which each gets the name of its image. Their colours are indexed, and the indices are the labels.
        track: for a model that tags videos, what the frames of each pass through (`kseq.export.video.Video`).
        **drawn: for a language model, the `temperature` and the `seed` that it writes with.

    Raises:
        InputError: if there is no model at `path`, it reads nothing of these, what is given cannot be read, or `output`
            exists, cannot be written or is for another model.
    """
    path = Path(path)
    is_saved_model = (path / "saved_model.pb").is_file()
    inputs = _reader(path, drawn)
    if output is not None and not isinstance(inputs, Segmentation):
        raise InputError(f"output {output}: only a model that segments images writes masks; leave it out")
    if track is not None and isinstance(inputs, Video):
        inputs.track = track
    raw = inputs.read(given)
    masks = mask_paths(output and Path(output), given)
    answer = _by_tensorflow(path, inputs) if is_saved_model else _by_keras(path, inputs)
    if inputs.kind == "text":
        given = raw  # as it is read, and can be printed
    answers = []
    size = getattr(inputs, "batch", BATCH)
    for start in range(0, len(raw), size):
        part = answer(raw[start : start + size], given[start : start + size])
        for i, mask in enumerate(masks[start : start + size]):
            if mask is not None:
                write_mask(part[i].labels, mask)
                part[i] = replace(part[i], mask=str(mask))
        answers += part
        if drawn.get("seed") is not None:
            inputs.seed = (inputs.seed + 1) % 2**31  # or each part would draw the numbers of the first
    return answers


def stream(path: str | os.PathLike, given: list[str], **drawn) -> Iterator[str] | None:
    """A text and what a language model writes behind it, piece by piece; `None` if there is not one text to write on.

    Only a run folder or a `.keras` file writes so; a SavedModel answers when it is done, so `None` for it too.

    Args:
        path: of the model.
        given: texts.
        **drawn: `temperature` and `seed`.

    Raises:
        InputError: as `predict`.
    """
    path = Path(path)
    if len(given) != 1 or (path / "saved_model.pb").is_file():
        return None
    inputs = _reader(path, drawn)
    if not isinstance(inputs, Continuation):
        return None
    from kseq import saving

    (text,) = inputs.read(given)
    model = saving.load(model_file(path), compile=False)
    inputs.check(model, path)
    return chain([text], inputs.stream(model, text))


def _reader(path: Path, drawn: dict):
    """The raw input (`kseq.export.raw`) that the model at `path` reads."""
    card = _record(path) if (path / "saved_model.pb").is_file() else _card(path)
    inputs = raw_input(card)
    if inputs is None:
        purposes = {key: f" ({kind.purpose})" for key, kind in KINDS.items() if hasattr(kind, "purpose")}
        raise InputError(
            f"{path}: the model does not read words, texts, images or videos, its card has no "
            f"{' or '.join(repr(key) + purposes.get(key, '') for key in KINDS)}; "
            "save it with one (kseq.saving.save), or use its file in Python"
        )
    if drawn and not isinstance(inputs, Continuation):
        raise InputError(f"{' and '.join(drawn)}: only a language model draws what it answers; leave it out")
    for name, value in drawn.items():
        setattr(inputs, name, value)
    return inputs


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


def _by_tensorflow(folder: Path, inputs) -> Callable[[list, list[str]], list]:
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:
        raise InputError(
            f"{folder}: a damaged SavedModel ({str(error).splitlines()[0][:200]}); export it again"
        ) from error

    def answer(raw: list, given: list[str]) -> list:
        try:
            return inputs.serve(loaded.signatures, raw, given)
        except tf.errors.InvalidArgumentError as error:  # what we can read and TensorFlow cannot, as rare image files
            reason = error.message.split("[[")[0].strip().splitlines()[-1][:200]
            raise InputError(
                f"{folder}: cannot read one of the {inputs.kind}s ({reason}); give it in another form"
            ) from error

    return answer


def _by_keras(path: Path, inputs) -> Callable[[list, list[str]], list]:
    from kseq import saving

    model = logits_alone(saving.load(model_file(path), compile=False))
    inputs.check(model, path)
    return lambda raw, given: inputs.answer(model, raw, given)
