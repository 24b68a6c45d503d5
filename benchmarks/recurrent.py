"""Recurrent layers beside Keras's and PyTorch's: `python benchmarks/recurrent.py` prints the table of the README.

A process a backend; in it ours, Keras's layer and `torch.nn` take turns, so that all meet the same machine at the same
time. Figures are medians in milliseconds, on `--threads` threads. A training step is forward and backward with respect
to the inputs and all weights, compiled as `model.fit` compiles it (TensorFlow without XLA, PyTorch eager). Masked rows
have sequences of T/2 to T steps, padded on the right; `torch.nn` then reads the padding too.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time

SHAPES = {
    "32 × 100, 128 units": (32, 100, 128, 128),
    "16 × 400, 256 units": (16, 400, 256, 256),
}  # batch, T, dim, units
QUICK = {"2 × 7, 4 units": (2, 7, 3, 4)}
LAYERS = ("SimpleRNN", "LSTM", "GRU", "GRU, reset before", "2-layer bidirectional LSTM")
BACKENDS = ("tensorflow", "jax", "torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
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
    """Markdown: a line a case; for each backend the ratio of ours to `torch.nn`, and of Keras's layer to it."""
    lines = ["| layer | " + " | ".join(f"{b}: ours (Keras)" for b in rows) + " | `torch.nn` |"]
    lines.append("|---|" + "---|" * (len(rows) + 1))
    for case in next(iter(rows.values())):
        cells, natives = [], []
        for row in rows.values():
            ours, theirs, native = (row[case][name] for name in ("ours", "keras", "torch"))
            unit = native or theirs  # torch.nn has no such layer: beside Keras's
            cells.append(f"{ours / unit:.2f} ({theirs / unit:.2f})")
            natives.append(native)
        native = f"{min(natives):.1f} ms" if all(natives) else "none; to Keras"
        lines.append(f"| {case} | " + " | ".join(cells) + f" | {native} |")
    return "\n".join(lines)


def measure(shapes: dict, rounds: int, threads: int) -> dict:
    """Median milliseconds by case and contender, on the backend of this process."""
    import keras
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    medians = {}
    for (shape_name, shape), layer in itertools.product(shapes.items(), LAYERS):
        for masked in (False, True):
            batch, steps, dim, _ = shape
            x = np.random.default_rng(0).normal(size=(batch, steps, dim)).astype("float32")
            lengths = np.random.default_rng(1).integers(steps // 2, steps + 1, batch)
            mask = np.arange(steps) < lengths[:, None] if masked else None
            contenders = {
                "ours": keras_runs(layer, shape, x, mask, ours=True),
                "keras": keras_runs(layer, shape, x, mask, ours=False),
                "torch": torch_runs(layer, shape, x),
            }
            for kind in ("inference", "training step"):
                runs = {name: both[kind] for name, both in contenders.items() if both}
                times = {name: [] for name in runs}
                for number in range(rounds + 2):
                    names = list(runs)
                    for name in names[number % len(names) :] + names[: number % len(names)]:  # whom one follows matters
                        run = runs[name]
                        began = time.perf_counter()
                        run()
                        if number >= 2:  # the first compile
                            times[name].append(time.perf_counter() - began)
                case = f"{layer}, {shape_name}{', masked' if masked else ''}, {kind}"
                medians[case] = {name: None for name in contenders} | {
                    name: 1e3 * float(np.median(values)) for name, values in times.items()
                }
                print(case, medians[case], file=sys.stderr, flush=True)
    return medians


def keras_runs(name: str, shape: tuple, x, mask, *, ours: bool) -> dict:
    """A forward pass and a training step of the layer of kseq or Keras, compiled as `fit` would."""
    import keras

    import kseq

    library = kseq.layers if ours else keras.layers
    units = shape[-1]

    def stack(inputs, mask, training):
        for layer in layers:
            inputs = layer(inputs, mask=mask, training=training)
        return inputs

    if name.startswith("2-layer"):
        layers = [keras.layers.Bidirectional(library.LSTM(units, return_sequences=True)) for _ in range(2)]
    else:
        options = {"reset_after": False} if "before" in name else {}
        layers = [getattr(library, name.split(",")[0])(units, return_sequences=True, **options)]
    stack(keras.ops.convert_to_tensor(x), None if mask is None else keras.ops.convert_to_tensor(mask), False)  # builds
    variables = [variable for layer in layers for variable in layer.trainable_variables]
    return {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()](stack, variables, x, mask)


def _tensorflow(stack, variables, x, mask):
    import tensorflow as tf

    x = tf.constant(x)
    mask = None if mask is None else tf.constant(mask)
    values = [variable.value for variable in variables]

    @tf.function
    def forward(x):
        return stack(x, mask, False)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(stack(x, mask, True))
        return tape.gradient(loss, [x, *values])

    return {"inference": lambda: forward(x).numpy(), "training step": lambda: [g.numpy() for g in step(x)]}


def _jax(stack, variables, x, mask):
    import jax
    import keras

    x = jax.numpy.asarray(x)
    mask = None if mask is None else jax.numpy.asarray(mask)

    def run(x, values, training=False):
        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            return stack(x, mask, training)

    forward = jax.jit(run)
    step = jax.jit(jax.grad(lambda x, values: run(x, values, True).sum(), argnums=(0, 1)))
    values = [variable.value for variable in variables]
    return {
        "inference": lambda: jax.block_until_ready(forward(x, values)),
        "training step": lambda: jax.block_until_ready(step(x, values)),
    }


def _torch(stack, variables, x, mask):
    import torch

    x = torch.tensor(x, requires_grad=True)
    mask = None if mask is None else torch.tensor(mask)
    return _torch_both(
        lambda: stack(x, mask, torch.is_grad_enabled()), [x, *(variable.value for variable in variables)]
    )


def torch_runs(name: str, shape: tuple, x) -> dict | None:
    """The same for `torch.nn`, or `None` where it has no such layer."""
    import torch

    if "before" in name:
        return None
    *_, dim, units = shape
    if name.startswith("2-layer"):
        module = torch.nn.LSTM(dim, units, num_layers=2, bidirectional=True, batch_first=True)
    else:
        module = getattr(torch.nn, {"SimpleRNN": "RNN"}.get(name, name))(dim, units, batch_first=True)
    x = torch.tensor(x, requires_grad=True)
    return _torch_both(lambda: module(x)[0], [x, *module.parameters()])


def _torch_both(run, tensors):
    import torch

    def forward():
        with torch.no_grad():
            return run()

    return {"inference": forward, "training step": lambda: torch.autograd.grad(run().sum(), tensors)}


if __name__ == "__main__":
    main()
