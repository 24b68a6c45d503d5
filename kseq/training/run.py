"""A run: one folder with everything that a training job writes."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from kseq import saving
from kseq.atomic import atomic_file, write_text
from kseq.data import Batches
from kseq.errors import InputError
from kseq.training.checkpoint import Checkpoint
from kseq.training.measurement import Measurement

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Run:
    """The settings of a job and its folder.

    The folder holds `config.json`, `history.csv`, `metrics.json`, `model.keras`, pictures, and `checkpoints/` with
    the last and the best state of every model that is trained. A run killed at any moment continues from its last
    finished epoch, and on the same backend ends with the weights of a run that was never killed.

    Attributes:
        app: name of the app.
        folder: where everything is written.
        epochs: passes over the training data; 0 in an app that trains nothing.
        batch_size: samples in an optimizer step.
        seed: of weights, dropout and data order.
        quick: whether to use little data, only to see that all works.
        baselines: whether to fit the models that the main one is compared with.
        export: whether to write a SavedModel.
        tensorboard: whether to write TensorBoard logs.
        measure: folder of a comparison of backends that this run is part of, or `None`.
    """

    app: str
    folder: Path
    epochs: int
    batch_size: int
    seed: int = 0
    quick: bool = False
    baselines: bool = True
    export: bool = False
    tensorboard: bool = False
    measure: Path | None = None

    def fit_arguments(
        self, model: keras.Model, train: Batches, *, name: str = "model", monitor: str = "val_loss"
    ) -> dict:
        """What `model.fit(train, …)` needs besides the data to be part of this run.

        Restores the model from its last checkpoint if there is one, and returns `epochs`, `initial_epoch`,
        `callbacks` (the order of each epoch's samples, checkpoints, history), `shuffle` and `verbose`.

        Args:
            model: compiled.
            train: the batches that `fit` will be given.
            name: tells the models of a run apart in its folder; the main one is "model".
            monitor: figure of the validation set by which the best epoch is chosen; the lowest if it is a loss or
                `BitsPerToken`, else the highest.

        Raises:
            InputError: if the disk has no room for the checkpoints.
        """
        self._check_space(model)
        checkpoint = Checkpoint(self.folder, name, monitor)
        initial_epoch = checkpoint.restore(model)
        callbacks = [_EpochOrder(train), checkpoint]
        if self.tensorboard:
            callbacks.append(keras.callbacks.TensorBoard(self.folder / "tensorboard" / name))
        if self.measure and name == "model":
            callbacks.append(Measurement(self.measure, model, train))
        return {
            "epochs": self.epochs,
            "initial_epoch": initial_epoch,
            "callbacks": callbacks,
            "shuffle": False,  # Batches has its own order
            "verbose": 1 if sys.stdout.isatty() else 2,  # a progress bar, or in a log one line an epoch
        }

    def load_best(self, model: keras.Model, name: str = "model") -> None:
        """Give `model` the weights of its best epoch."""
        saving.load_weights(model, self.folder / "checkpoints" / f"{name}.best.keras")

    def save(self, model: keras.Model, card: dict) -> Path:
        """Write the finished model as `model.keras`; `card` says what it reads and answers (`kseq.saving`)."""
        path = self.folder / "model.keras"
        saving.save(model, path, card)
        return path

    def save_json(self, name: str, content: dict) -> None:
        """Write `content` as the JSON file `name` of the folder."""
        write_text(self.folder / name, json.dumps(content, indent=2) + "\n")

    def save_figure(self, name: str, figure: "Figure") -> None:
        """Write a picture into the folder; the ending of `name` gives the format."""
        with atomic_file(self.folder / name) as temporary:
            figure.savefig(temporary, dpi=150, bbox_inches="tight")

    def _check_space(self, model: keras.Model) -> None:
        needed = 50 * model.count_params() + 2**20  # 3 numbers a parameter with Adam, in 4 files, and an export
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise InputError(
                f"--output {self.folder}: {free / 1e6:,.0f} MB free, the run writes about {needed / 1e6:,.0f} MB; "
                "free space or give another folder"
            )


class _EpochOrder(keras.callbacks.Callback):
    def __init__(self, train: Batches):
        super().__init__()
        self.train = train

    def on_epoch_begin(self, epoch, logs=None):
        self.train.set_epoch(epoch)
