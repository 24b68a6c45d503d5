"""What `kseq compare` needs to know of a training run: its arithmetic at a common start, its time and memory."""

import json
import os
import statistics
import sys
import time
from pathlib import Path

import keras
import numpy as np

from kseq.atomic import atomic_file, write_text
from kseq.data import Batches


class Measurement(keras.callbacks.Callback):
    """Start from the weights that all backends share, time the steps, and record one step without dropout.

    In `folder`, `initial.npz` holds the common weights: the first backend writes them, the others read them. Written
    are `<backend>.json` (seconds and bytes) and `<backend>.npz`: the logits of the first batch and the weights after
    one step of gradient descent on it (learning rate 1, so the change is the gradient). Dropout is off there because
    each backend draws its own random numbers, and the job's optimizer is not used because a warm-up begins with no
    step at all and Adam's first step is the sign of the gradient, which rounding decides where the gradient is zero.

    Args:
        folder: of the comparison.
        model: about to be fitted.
        train: its training batches.
    """

    def __init__(self, folder: Path, model: keras.Model, train: Batches):
        super().__init__()
        self.folder, self.backend = Path(folder), keras.backend.backend()
        self.batch = train[0]
        self.initial = _common_weights(self.folder / "initial.npz", model.get_weights())
        model.set_weights(self.initial)
        self.step_ends: list[float] = []
        self.history: dict[str, list[float]] = {"epoch": []}
        self.began = time.time()

    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])  # waits for the step where it runs asynchronously
        self.step_ends.append(time.time())

    def on_epoch_end(self, epoch, logs=None):
        for name, value in {"epoch": epoch + 1, **logs}.items():
            self.history.setdefault(name, []).append(float(value))

    def on_train_end(self, logs=None):
        steps = np.diff(self.step_ends)
        record = {
            "import_seconds": float(os.environ.get("KSEQ_IMPORTED", "nan")),
            "first_step_seconds": self.step_ends[0] - self.began,
            "step_seconds": statistics.median(steps) if len(steps) else None,
            "steps": len(self.step_ends),
            "peak_memory_bytes": peak_memory(),
            "history": self.history,
        }
        silent = without_dropout(self.model)
        silent.set_weights(self.initial)
        inputs, *targets = self.batch  # and weights, where there are some
        logits = silent.predict_on_batch(inputs)
        silent.train_on_batch(inputs, *targets)
        with atomic_file(self.folder / f"{self.backend}.npz") as temporary:
            arrays = {f"weight_{i}": weight for i, weight in enumerate(silent.get_weights())}
            np.savez(temporary, logits=logits, **arrays)
        write_text(self.folder / f"{self.backend}.json", json.dumps(record, indent=2))


def _common_weights(path: Path, own: list[np.ndarray]) -> list[np.ndarray]:
    if not path.exists():
        with atomic_file(path) as temporary:
            np.savez(temporary, *own)
    with np.load(path) as arrays:
        return [arrays[f"arr_{i}"] for i in range(len(arrays.files))]


def without_dropout(model: keras.Model) -> keras.Model:
    """A copy of a functional model, with new weights, in which nothing is dropped; compiled for gradient descent."""

    def silenced(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config(_no_rates(layer.get_config()))

    copy = keras.models.clone_model(model, clone_function=silenced)
    descent = keras.saving.serialize_keras_object(keras.optimizers.SGD(1.0))
    copy.compile_from_config(model.get_compile_config() | {"optimizer": descent})
    return copy


def _no_rates(config: dict) -> dict:
    rates = {"rate", "dropout", "recurrent_dropout", "drop_path"}
    return {
        key: 0.0 if key in rates else _no_rates(value) if isinstance(value, dict) else value
        for key, value in config.items()
    }


def peak_memory() -> int | None:
    """The largest resident memory of this process so far, in bytes; `None` where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
