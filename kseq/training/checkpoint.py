"""Checkpoints from which a killed run continues exactly."""

import csv
import io
import time
from pathlib import Path

import keras
import numpy as np

from kseq import saving
from kseq.atomic import write_text
from kseq.backend.randomness import random_state, set_random_state


class Checkpoint(keras.callbacks.Callback):
    """After every epoch, save the model, its optimizer, its random state and the history in one file.

    `keras.callbacks.BackupAndRestore` writes its files in place, so a kill can leave half of one, and keeps neither
    the history nor the state of the random generators (Keras 3.15 leaves `SeedGenerator`s out of its files), so
    dropout repeats itself after a resume. Here a single file is renamed into place: the state of one epoch, whole.

    Args:
        folder: the run's folder.
        name: of the model in the run.
        monitor: the key of the logs that chooses the best epoch; lowest if it ends in "loss" or "bits", else highest.
    """

    def __init__(self, folder: Path, name: str, monitor: str):
        super().__init__()
        self.last = folder / "checkpoints" / f"{name}.last.keras"
        self.best = folder / "checkpoints" / f"{name}.best.keras"
        self.table = folder / ("history.csv" if name == "model" else f"history_{name}.csv")
        self.monitor = monitor
        self.history: list[dict[str, float]] = []
        self.process_random_state: list[str] = []

    def restore(self, model: keras.Model) -> int:
        """Put `model` into the state of the last checkpoint; return the number of epochs it has finished."""
        self.last.parent.mkdir(exist_ok=True)
        if not self.last.exists():
            return 0
        state = saving.read_card(self.last)
        saving.load_weights(model, self.last)
        for variable, value in zip(_random_states(model), state["random_states"], strict=True):
            variable.assign(np.array(value, dtype="uint32"))
        self.process_random_state = state["process_random_state"]
        self.history = state["history"]
        self._write_table()
        return len(self.history)

    def on_train_begin(self, logs=None):
        # Not earlier: until here `fit` looks at the data once, which takes a random number on PyTorch.
        set_random_state(self.process_random_state)

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        figures = {key: float(value) for key, value in (logs or {}).items()}
        self.history.append({"epoch": epoch + 1, **figures, "seconds": time.perf_counter() - self._began})
        state = {
            "history": self.history,
            "random_states": [keras.ops.convert_to_numpy(v).tolist() for v in _random_states(self.model)],
            "process_random_state": random_state(),
        }
        # The best first: killed in between, the epoch is repeated from the last and writes the best again.
        if self._is_best():
            saving.save(self.model, self.best, state)
        saving.save(self.model, self.last, state)
        self._write_table()

    def _is_best(self) -> bool:
        *before, now = (row[self.monitor] for row in self.history)
        known = [value for value in before if np.isfinite(value)]
        return not known or (now <= min(known) if self.monitor.endswith(("loss", "bits")) else now >= max(known))

    def _write_table(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: v if k == "epoch" else f"{v:.6g}" for k, v in row.items()} for row in self.history)
        write_text(self.table, text.getvalue())


def _random_states(model: keras.Model) -> list[keras.Variable]:
    return [v for v in model.non_trainable_variables if v.path.endswith("seed_generator_state")]
