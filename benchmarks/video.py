"""The convolutional LSTM beside Keras's: `python benchmarks/video.py` prints a table.

A process a backend; in it ours without peepholes, ours with them and `keras.layers.ConvLSTM2D` take turns, so that all
meet the same machine at the same time. Figures are medians in milliseconds, on `--threads` threads. A training step is
forward and backward with respect to the inputs and all weights, compiled as `model.fit` compiles it (TensorFlow without
XLA, PyTorch eager). The last column is how ours, on the slowest backend, compares with the fastest of Keras's layer.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time

from recurrent import _jax, _tensorflow, _torch

SHAPES = {
    "4 × 8 frames of 32² × 16, 32 filters of 3²": (4, 8, 32, 16, 32, 3),
    "4 × 10 frames of 16² × 16, 32 filters of 5²": (4, 10, 16, 16, 32, 5),
}  # batch, T, height and width, channels, filters, kernel size
QUICK = {"2 × 3 frames of 4² × 2, 2 filters of 3²": (2, 3, 4, 2, 2, 3)}
CONTENDERS = ("ours", "ours with peepholes", "Keras")
BACKENDS = ("tensorflow", "jax", "torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tiny shape, to see that all works")
    parser.add_argument("--json", action="store_true", help="print the medians")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(QUICK if given.quick else SHAPES, given.rounds, given.threads)))
        return
    rows = {}
    for backend in given.backends.split(","):
        environment = os.environ | {
            "KERAS_BACKEND": backend,
            "OMP_NUM_THREADS": str(given.threads),
            "TF_NUM_INTRAOP_THREADS": str(given.threads),
            "TF_NUM_INTEROP_THREADS": str(given.threads),
            "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={'true' if given.threads > 1 else 'false'}",
        }
        command = [sys.executable, __file__, "--measure", "--rounds", str(given.rounds)]
        command += ["--threads", str(given.threads)] + ["--quick"] * given.quick
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        rows[backend] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(rows, indent=1) if given.json else table(rows))


def table(rows: dict) -> str:
    """Markdown: a line a case; for each backend the milliseconds of ours, of ours with peepholes, and of Keras's."""
    lines = [
        "| ConvLSTM2D | " + " | ".join(f"{b}: ours, with peepholes (Keras)" for b in rows) + " | slowest / fastest |"
    ]
    lines.append("|---|" + "---|" * (len(rows) + 1))
    for case in next(iter(rows.values())):
        cells = ["{:.0f}, {:.0f} ({:.0f})".format(*(row[case][name] for name in CONTENDERS)) for row in rows.values()]
        ratio = max(row[case]["ours"] for row in rows.values()) / min(row[case]["Keras"] for row in rows.values())
        lines.append(f"| {case} | " + " | ".join(cells) + f" | {ratio:.2f} |")
    return "\n".join(lines)


def measure(shapes: dict, rounds: int, threads: int) -> dict:
    """Median milliseconds by case and contender, on the backend of this process."""
    import keras
    import numpy as np

    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(threads)
    medians = {}
    for (shape_name, shape), kind in itertools.product(shapes.items(), ("inference", "training step")):
        batch, steps, side, channels, *_ = shape
        x = np.random.default_rng(0).normal(size=(batch, steps, side, side, channels)).astype("float32")
        runs = {name: contender(name, shape, x)[kind] for name in CONTENDERS}
        times = {name: [] for name in runs}
        for number in range(rounds + 1):
            names = list(runs)
            for name in names[number % len(names) :] + names[: number % len(names)]:  # whom one follows matters
                began = time.perf_counter()
                runs[name]()
                if number >= 1:  # the first compiles
                    times[name].append(time.perf_counter() - began)
        case = f"{shape_name}, {kind}"
        medians[case] = {name: 1e3 * float(np.median(values)) for name, values in times.items()}
        print(case, medians[case], file=sys.stderr, flush=True)
    return medians


def contender(name: str, shape: tuple, x) -> dict:
    """A forward pass and a training step of a layer, compiled as `fit` would."""
    import keras

    from kseq.layers.conv_lstm import ConvLSTM

    *_, filters, size = shape
    if name == "Keras":
        layer = keras.layers.ConvLSTM2D(
            filters, size, padding="same", data_format="channels_last", return_sequences=True
        )
    else:
        layer = ConvLSTM(filters, size, peepholes=name != "ours", return_sequences=True)

    def run(inputs, mask, training):
        return layer(inputs, mask=mask, training=training)

    run(keras.ops.convert_to_tensor(x), None, False)  # builds
    compiled = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()]
    return compiled(run, layer.trainable_variables, x, None)


if __name__ == "__main__":
    main()
