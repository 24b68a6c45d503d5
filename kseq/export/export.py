"""Export of a `.keras` file: choose the process, write, verify, rename into place."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np

from kseq.atomic import atomic_file, atomic_folder
from kseq.errors import InputError, KseqError
from kseq.export.raw import raw_input
from kseq.export.verification import check_outputs, logits_alone

FORMATS = {"saved_model": "saved_model", "onnx": "model.onnx"}  # and the name each gets in a run folder
RECORD = "kseq.json"
TOLERANCE = 1e-5


def export(
    source: str | os.PathLike, output: str | os.PathLike | None = None, *, format: str = "saved_model"
) -> tuple[Path, dict]:
    """Export a model that was trained on any backend.

    The `.keras` file is read by TensorFlow, in a process of its own if Keras runs on another backend here: of the
    three backends only TensorFlow writes every model in both formats. Before it appears under its name the artefact is
    loaded and run at two batch sizes and two lengths or sizes, and compared with the Keras model.

    The card of the file (`kseq.saving.save`) says what the SavedModel reads. Its signature `serve` takes what the model
    itself takes and answers `logits`; the others answer `label`, `probabilities` and `classes`:

    - `{"characters": CharacterEncoder.get_config(), "class_names": […]}`: `serving_default` takes words `(batch,)`.
    - `{"images": ImageEncoder.get_config(), "class_names": […]}`: `serving_default` takes uint8 images `(batch, height,
      width, channels)` of any size, `encoded` takes the bytes of PNG and JPEG files `(batch,)`, each of any size.
    - `{"segmentation": {"channels": 1 or 3, "window": [height, width], "mean": […], "std": […], "overlap": 0.5,
      "weighting": "gaussian"}, "class_names": […]}`: `serving_default` takes uint8 images `(batch, height, width,
      channels)` of any size and answers `labels` `(batch, height, width)`, the numbers of the classes; `probabilities`
      takes the same and answers them; `encoded` takes the bytes of one PNG or JPEG file, a scalar, and answers `labels`
      `(height, width)`. The windows that the model reads slide over the image inside the graph
      (`kseq.export.segmentation`).
    - `{"texts": {"tokenizer": Tokenizer.get_config(), "max_length": …}, "class_names": […]}`: `serving_default` takes
      texts `(batch,)`.

    - `{"video": {"size": [height, width], "channels": 1 or 3, "mean": […], "std": […], "frame_rate": …}, "class_names":
      […]}`: `clip`, and `serving_default`, take uint8 clips `(batch, time, height, width, channels)`; `jpeg` takes the
      bytes of the JPEG or PNG files of one clip `(time,)`; `frame` takes a uint8 frame of each video `(batch, height,
      width, channels)` and the states `state_0`, `state_1`, … that it answered at the frame before, zeros at first
      (`kseq.export.video`). Frames may have any size.

    Models that write answer `text`, with the whole loop of decoding in the graph:

    - `{"translation": {"source": Tokenizer.get_config(), "target": …, "max_length": …, "beam_size": …}}`:
      `serving_default` takes texts `(batch,)` (`kseq.export.translation`).
    - `{"continuation": {"tokenizer": Tokenizer.get_config(), "max_length": …}}`: `serving_default` takes texts
      `(batch,)`, a temperature and a seed (`kseq.export.continuation`).

    Of a model that answers a dict, as with auxiliary heads, only `"logits"` is exported. Texts should be in Unicode's
    form NFC, into which a graph cannot put them. What cannot be read fails with
    `InvalidArgumentError`. Without a card, `serving_default` is `serve`.

    Args:
        source: a run folder or a `.keras` file.
        output: folder (SavedModel) or file (ONNX) to write; by default `saved_model` or `model.onnx` beside the model.
        format: "saved_model", or "onnx" (model inputs to logits).

    Returns:
        Where it was written, and the record of the verification, which is also stored beside the artefact.

    Raises:
        InputError: for an unknown format, an existing output, a file that is no model, a card that does not fit the
            model, a missing package.
        KseqError: if the export differs from the model by more than 1e-5 (of the largest value, if that is above 1) or
            writes another text; nothing is written then.
    """
    if format not in FORMATS:
        raise InputError(f"format {format!r}: choose one of {', '.join(FORMATS)}")
    path = model_file(source)
    output = Path(output) if output else path.parent / FORMATS[format]
    if output.exists():
        raise InputError(f"output {output}: exists; remove it or give another with --output")
    if not output.parent.is_dir():
        raise InputError(f"output {output}: there is no folder {output.parent}; create it or give another")
    if format == "onnx":
        _require_onnx()

    os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # chosen before Keras loads for the first time
    import keras

    if keras.backend.backend() != "tensorflow":
        return _export_in_tensorflow(path, output, format)

    from kseq import saving

    card = saving.read_card(path)
    model = logits_alone(saving.load(path, compile=False))
    raw = raw_input(card)
    if raw is not None:
        raw.check(model, path)
    check_outputs(model, path)
    record = {"source": path.name, "format": format, **_versions(), **card}
    write = _write_saved_model if format == "saved_model" else _write_onnx
    return output, write(model, card, output, record)


def model_file(source: str | os.PathLike) -> Path:
    """The `.keras` file that a user means by a run folder or a file."""
    source = Path(source)
    path = source / "model.keras" if source.is_dir() else source
    if not path.is_file():
        missing = "holds no model.keras" if source.is_dir() else "no such file"
        raise InputError(f"{source}: {missing}; give a finished run folder or a .keras file")
    if path.suffix != ".keras":
        raise InputError(f"{source}: not a .keras file; give a run folder or a .keras file")
    return path


def _write_saved_model(model, card: dict, output: Path, record: dict) -> dict:
    from kseq.export import saved_model

    with atomic_folder(output) as temporary:
        saved_model.write(model, card, temporary)
        record = _verified(saved_model.verify(model, card, temporary), record, output)
        (temporary / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    return record


def _write_onnx(model, card: dict, output: Path, record: dict) -> dict:
    from kseq.export import onnx

    with atomic_file(output) as temporary:
        onnx.write(model, temporary)
        record = _verified(onnx.verify(model, card, temporary), record, output)
        with atomic_file(f"{output}.json") as temporary_record:
            temporary_record.write_text(json.dumps(record, indent=2) + "\n")
    return record


def _verified(checks: list[dict], record: dict, output: Path) -> dict:
    largest = float(np.max([check["difference"] for check in checks]))  # NaN, if one of them is
    if not largest <= TOLERANCE:
        raise KseqError(
            f"{output}: not written, the export differs from the model by {largest:.1e}, more than {TOLERANCE:.0e}; "
            "this is a fault of the conversion, try another format"
        )
    return record | {"largest_difference": largest, "tolerance": TOLERANCE, "checks": checks}


def _versions() -> dict:
    import keras
    import tensorflow as tf

    import kseq

    return {
        "exported": datetime.now().isoformat(timespec="seconds"),
        "kseq_version": kseq.__version__,
        "keras_version": keras.__version__,
        "tensorflow_version": tf.__version__,
    }


def _require_onnx() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("tf2onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"format 'onnx': needs {' and '.join(missing)}; pip install 'kseq[onnx]', or use --format saved_model"
        )


def _export_in_tensorflow(path: Path, output: Path, format: str) -> tuple[Path, dict]:
    command = [sys.executable, "-m", "kseq", "export", str(path), "--output", str(output), "--format", format]
    environment = os.environ | {"KERAS_BACKEND": "tensorflow"}
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["the process that exports died"]
        kind = InputError if done.returncode == InputError.exit_code else KseqError
        raise kind(lines[-1].removeprefix("error: "))
    return output, json.loads(done.stdout)
