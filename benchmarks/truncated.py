"""Memory of training through time: windows beside full back-propagation. `python benchmarks/truncated.py`

An LSTM of 128 units is trained on 8 sequences of T steps, for growing T: whole, and in windows of 100 steps with the
state carried across. Each figure is the growth of the peak resident memory of a process of its own over one epoch of
`model.fit`, after a first epoch on the first 200 steps, in which everything is compiled; the data are there before.
"""

import argparse
import json
import os
import subprocess
import sys

BATCH, DIM, UNITS, WINDOW, WARM_UP = 8, 32, 128, 100, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default="tensorflow,jax,torch")
    parser.add_argument("--steps", default="1000,4000,16000", help="lengths of the sequences")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(growth(given.measure[0], int(given.measure[1]))))
        return
    lengths = given.steps.split(",")
    print("| backend | | " + " | ".join(f"T = {int(length):,}" for length in lengths) + " |")
    print("|---|---|" + "---|" * len(lengths))
    for backend in given.backends.split(","):
        for kind in ("whole", "windows"):
            cells = []
            for length in lengths:
                command = [sys.executable, __file__, "--measure", kind, length]
                environment = os.environ | {"KERAS_BACKEND": backend}
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                cells.append(f"{json.loads(done.stdout.splitlines()[-1]) / 1e6:,.0f} MB")
            print(f"| {backend} | {kind} | " + " | ".join(cells) + " |", flush=True)


def growth(kind: str, steps: int) -> int:
    """By how many bytes the peak of memory grows in an epoch on sequences of `steps`."""
    import keras
    import numpy as np

    from kseq.layers import LSTM
    from kseq.training import CarryState, Windows
    from kseq.training.measurement import peak_memory

    entry = keras.Input(batch_shape=(BATCH, None, DIM))
    model = keras.Model(entry, LSTM(UNITS, return_sequences=True, stateful=kind == "windows")(entry))
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)  # not zeros, whose memory the system gives only when they are written
    inputs, targets = (random.normal(size=(BATCH, steps, size)).astype("float32") for size in (DIM, UNITS))
    peaks = []
    for length in (WARM_UP, steps):
        if kind == "windows":
            train = Windows(inputs[:, :length], targets[:, :length], BATCH, WINDOW)
            model.fit(train, shuffle=False, verbose=0, callbacks=[CarryState(train)])
        else:
            model.fit(inputs[:, :length], targets[:, :length], batch_size=BATCH, verbose=0)
        peaks.append(peak_memory())
    return peaks[1] - peaks[0]


if __name__ == "__main__":
    main()
