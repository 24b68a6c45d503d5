"""A job of a few seconds with everything that must survive a kill: dropout, Adam's moments, a schedule, data order."""

import time

import keras
import numpy as np

import kseq
from kseq.models import CharTagger


def main(run: kseq.training.Run, *, units: int = 8, pause: float = 0.0) -> None:
    random = np.random.default_rng(0)
    inputs, targets = random.integers(1, 27, (64, 6)).astype("int32"), random.integers(0, 4, 64).astype("int32")
    batches = kseq.data.Batches(inputs, targets, run.batch_size, seed=run.seed)
    model = CharTagger(27, 4, units=units, embedding=4, cell="gru", bidirectional=False)
    schedule = keras.optimizers.schedules.CosineDecay(1e-2, run.epochs * len(batches))
    model.compile(keras.optimizers.Adam(schedule), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    arguments = run.fit_arguments(model, batches)
    arguments["callbacks"].append(
        keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(pause))
    )
    model.fit(batches, validation_data=(inputs, targets), **arguments)
    run.save_json("metrics.json", {"tagger": {"loss": float(model.evaluate(inputs, targets, verbose=0))}})
    run.save(model, {})


if __name__ == "__main__":
    kseq.training.launch(main, epochs=6, batch_size=16)
