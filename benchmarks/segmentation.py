"""Segmentation beside PyTorch: `python benchmarks/segmentation.py` prints the tables of docs/segmentation.md.

The first is inference and whole steps of training (forward, backward, gradient descent on the cross-entropy) beside the
same models in plain PyTorch (`segmentation_peers.py`), and those of MONAI and of transformers where they can be
imported. Nothing is dropped. Ours run by `predict_on_batch` and `train_on_batch`, which compile as `predict` and `fit`
do. A figure is how often ours runs in the time of the other.

The second, under TensorFlow, is forward and backward of one layer over the pixels of a square map: attention of all
pixels to all, of ours and of Keras's, within windows, and within windows with `GLOBAL` tokens each, which then attend
to those of all windows. Memory is by how much the resident memory of a process rises in a step, measured as in
`attention.py` (Linux).

Contenders take turns in one process a backend; figures are medians, on `--threads` threads. With one thread it is the
time of the processor that is measured, which other processes leave alone.
"""

import argparse
import ctypes
import gc
import io
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from math import log
from pathlib import Path

from attention import PLAIN_MEMORY, WARM_UP
from text import medians

BATCH = 4
WIDTHS = (32, 64, 128, 256, 512)
VIT = {"embed_dim": 384, "depth": 12, "num_heads": 6}
SWIN = {"embed_dim": 96, "num_heads": (3, 6, 12, 24)}
MODELS = {  # title: function of kseq.models, size of the image, its other arguments, those for --quick
    "U-Net, 32–512 channels": ("UNet", 128, {"channels": WIDTHS, "normalization": "batch"}, {"channels": (8, 16)}),
    "residual U-Net, 32–512": ("ResidualUNet", 128, {"channels": WIDTHS}, {"channels": (8, 16)}),
    "U-Transformer, 32–512": ("UTransformer", 64, {"channels": WIDTHS, "num_heads": 8}, {"channels": (8, 16)}),
    "SETR-PUP, ViT-S/16": (
        "SETR",
        224,
        {"decoder": "pup", "patch_size": 16, "channels": 128, **VIT},
        {"embed_dim": 12, "depth": 1, "channels": 4},
    ),
    "TransUNet, R50 and ViT-S/16": (
        "TransUNet",
        128,
        {"resnet_width": 64, "resnet_depths": (3, 4, 9), "dropout": 0.0, **VIT},
        {"embed_dim": 12, "depth": 1, "resnet_width": 32, "resnet_depths": (1, 1, 1)},
    ),
    "Swin-T": (
        "Swin",
        224,
        {"depths": (2, 2, 6, 2), **SWIN},
        {"embed_dim": 12, "depths": (2, 1), "num_heads": (3, 6)},
    ),
    "Swin-Unet-T": (
        "SwinUnet",
        224,
        {"depths": (2, 2, 2, 2), "drop_path": 0.0, **SWIN},
        {"embed_dim": 12, "depths": (2, 1), "num_heads": (3, 6)},
    ),
}
CLASSES = {"Swin": 1000}  # of others 4
WINDOW, GLOBAL, DIM, HEADS = 8, 4, 64, 2  # of the second table
SIDES = (16, 24, 32, 48, 64, 96)
LAYERS = {  # name and style of its line
    "keras": ("all to all, Keras's layer", {"color": "#d55e00", "marker": "s"}),
    "full": ("all to all", {"color": "#0072b2", "marker": "o"}),
    "glam": (f"windows, {GLOBAL} global tokens each", {"color": "#cc79a7", "marker": "D"}),
    "windows": (f"windows of {WINDOW} × {WINDOW}", {"color": "#009e73", "marker": "o"}),
}
NATIVE, LIBRARY = "native", "library"  # plain PyTorch; another package
LIBRARIES = {"ResidualUNet": "MONAI", "Swin": "transformers"}
MODES = ("inference", "training")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default="tensorflow,jax,torch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--parts", default="models,layers")
    parser.add_argument("--models", default=",".join(function for function, *_ in MODELS.values()))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all works")
    parser.add_argument("--json", action="store_true", help="print the figures: seconds and bytes")
    parser.add_argument("--plot", help="picture of the second table, a PNG to be written")
    parser.add_argument("--figures", help="take the figures that --json printed from this file")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps({"models": models, "time": layer_times, "memory": layer_memory}[given.measure](given)))
        return
    figures = json.loads(Path(given.figures).read_text()) if given.figures else collect(given)
    parts = {"models": model_table, "layers": layer_table}
    found = [table(figures[part]) for part, table in parts.items() if figures.get(part)]
    print(json.dumps(figures, indent=1) if given.json else "\n\n".join(found))
    if given.plot:
        draw(figures["layers"], given.plot)


def collect(given) -> dict:
    """Seconds of models by backend and case; seconds and bytes of layers by kind and number of pixels."""
    backends, parts = given.backends.split(","), given.parts.split(",")
    figures = {"models": {b: run(given, b, "models") for b in backends} if "models" in parts else {}}
    if "layers" in parts and "tensorflow" in backends:
        figures["layers"] = {what: run(given, "tensorflow", what) for what in ("time", "memory")}
    return figures


def run(given, backend: str, what: str) -> dict:
    environment = os.environ | (PLAIN_MEMORY if what == "memory" else {})
    environment |= {
        "KERAS_BACKEND": backend,
        "OMP_NUM_THREADS": str(given.threads),
        "TF_NUM_INTRAOP_THREADS": str(given.threads),
        "TF_NUM_INTEROP_THREADS": str(given.threads),
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={'true' if given.threads > 1 else 'false'}",
    }
    command = [sys.executable, __file__, "--rounds", str(given.rounds), "--threads", str(given.threads)]
    command += ["--models", given.models, "--measure", what] + ["--quick"] * given.quick
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    print(backend, what, done.stdout.splitlines()[-1], file=sys.stderr, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


# Models


def models(given) -> dict:
    """Median seconds by model, mode and contender, on the backend of this process."""
    import keras
    import torch

    torch.set_num_threads(given.threads)
    found = {}
    for title, (function, *_) in MODELS.items():
        if function in given.models.split(","):
            for mode, contenders in modes(title, given.quick).items():
                seconds = medians(contenders, given.rounds, given)
                found |= {f"{title}/{mode}/{who}": value for who, value in seconds.items()}
            keras.backend.clear_session()
            print({case: value for case, value in found.items() if case.startswith(title)}, file=sys.stderr)
    return found


def settings(title: str, quick: bool) -> tuple[str, dict]:
    """The function of a model, and its arguments."""
    function, size, arguments, small = MODELS[title]
    if quick:
        size, arguments = 56 if function.startswith("Swin") else 32, arguments | small
    shape = (size, size, 1 if "channels" in arguments and function != "SETR" else 3)
    return function, {"input_shape": shape, "num_classes": CLASSES.get(function, 4)} | arguments


def modes(title: str, quick: bool) -> dict:
    """Inference and a training step of ours, of plain PyTorch and of a library where it is installed."""
    import keras
    import numpy as np
    import torch
    from segmentation_peers import native_model

    import kseq

    function, arguments = settings(title, quick)
    random = np.random.default_rng(0)
    images = random.normal(size=(BATCH, *arguments["input_shape"])).astype("float32")
    labels = (BATCH,) if function in CLASSES else (BATCH, *arguments["input_shape"][:2])
    labels = random.integers(0, arguments["num_classes"], labels)
    model = getattr(kseq.models, function)(**arguments)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loss = loss if function in CLASSES else kseq.training.SegmentationCrossentropy()
    model.compile(keras.optimizers.SGD(0.01), loss)
    found = {
        "inference": {"ours": lambda: model.predict_on_batch(images)},
        "training": {"ours": lambda: model.train_on_batch(images, labels)},
    }
    firsts, truth = torch.tensor(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)
    for who, peer in ((NATIVE, native_model(function, arguments)), (LIBRARY, library_model(function, arguments))):
        if peer is not None:
            found["inference"][who], found["training"][who] = native_steps(peer, firsts, truth)
    return found


def native_steps(model, images, labels):
    import torch

    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def inference():
        model.eval()
        with torch.no_grad():
            return model(images)

    def training():
        model.train()
        optimizer.zero_grad()
        logits = model(images)
        loss = torch.nn.functional.cross_entropy(getattr(logits, "logits", logits), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return inference, training


def library_model(function: str, arguments: dict):
    """The model of MONAI or transformers, or `None` if there is none or it is not installed."""
    if function == "ResidualUNet" and find_spec("monai"):
        from monai.networks.nets import UNet

        channels = arguments["channels"]
        return UNet(2, 1, arguments["num_classes"], channels, [2] * (len(channels) - 1), num_res_units=2)
    if function == "Swin" and find_spec("transformers"):
        from transformers import SwinConfig, SwinForImageClassification

        sizes = {name: arguments[name] for name in ("embed_dim", "depths", "num_heads")}
        sizes |= {"image_size": arguments["input_shape"][0], "num_labels": arguments["num_classes"]}
        return SwinForImageClassification(SwinConfig(**sizes, drop_path_rate=0.0))
    return None


def model_table(seconds: dict) -> str:
    """Markdown: a line a model and peer, how often ours runs in its time, inference and training."""
    lines = ["| model | batch, image | " + "".join(f"{b}: inference, training | " for b in seconds) + "PyTorch |"]
    lines.append("|---|---|" + "---|" * (len(seconds) + 1))
    for title, (function, size, *_) in MODELS.items():
        for who, beside in ((NATIVE, ""), (LIBRARY, f", beside {LIBRARIES.get(function)}")):
            ours, peers = (
                [[found.get(f"{title}/{mode}/{name}") for mode in MODES] for found in seconds.values()]
                for name in ("ours", who)
            )
            if None in peers[0]:
                continue
            cells = [
                ", ".join(f"{p / o:.2f}" for o, p in zip(*pair, strict=True)) for pair in zip(ours, peers, strict=True)
            ]
            best = ", ".join(f"{1e3 * min(each):,.0f}" for each in zip(*peers, strict=True))
            lines.append(f"| {title}{beside} | {BATCH}, {size}² | " + " | ".join(cells) + f" | {best} ms |")
    return "\n".join(lines)


# Layers


def cases(quick: bool) -> list[tuple[str, int]]:
    return [(kind, side) for kind in LAYERS for side in ((16, 24) if quick else SIDES)]


def by_kind(found: dict) -> dict:
    """Figures by kind and number of pixels."""
    return {kind: {side**2: value for (k, side), value in found.items() if k == kind} for kind in LAYERS}


def layer_times(given) -> dict:
    """Median seconds by kind and number of pixels."""
    return by_kind(medians({case: layer_step(*case) for case in cases(given.quick)}, given.rounds, given))


def layer_memory(given) -> dict | None:
    """By how many bytes the memory of this process rises in a step, by kind and number of pixels."""
    from kseq.training.measurement import peak_memory

    marks, found = Path("/proc/self/clear_refs"), {}
    if not marks.exists():
        return None
    for case in cases(given.quick):
        step = layer_step(*case)
        for _ in range(WARM_UP):
            step()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        marks.write_text("5")  # the peak is now what there is
        before = peak_memory()
        step()
        found[case] = peak_memory() - before
    return by_kind(found)


def layer_step(kind: str, side: int):
    """Forward and backward to the inputs and weights, of the sum of the squares of what the layer returns."""
    import keras
    import numpy as np
    import tensorflow as tf
    from keras import ops

    from kseq import layers

    x = np.random.default_rng(0).normal(size=(1, side, side, DIM)).astype("float32")
    if kind == "windows":
        parts = [layers.WindowAttention(WINDOW, HEADS)]
    elif kind == "glam":
        parts = [
            layers.GlobalTokens(GLOBAL, WINDOW),
            layers.WindowAttention(WINDOW, HEADS, global_tokens=GLOBAL),
            layers.GlobalPositions(),
            layers.GlobalAttention(HEADS),
        ]
    else:
        x = x.reshape(1, side**2, DIM)
        ours = kind == "full"
        parts = [layers.MultiHeadAttention(HEADS) if ours else keras.layers.MultiHeadAttention(HEADS, DIM // HEADS)]

    def squares(x, training):
        if kind == "glam":
            tokens, windows, positions, attention = parts
            y, z = windows(x, tokens(x), training=training)
            return ops.sum(ops.square(y)) + ops.sum(ops.square(attention(positions(z), training=training)))
        (layer,) = parts
        return ops.square(layer(x, x, training=training) if kind == "keras" else layer(x, training=training))

    x = tf.constant(x)
    squares(x, training=False)  # builds
    values = [variable.value for layer in parts for variable in layer.trainable_variables]

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(squares(x, training=True))
        return [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, [x, *values])]

    return lambda: [gradient.numpy() for gradient in step(x)]


def exponent(found: dict) -> float:
    """Of the power of the pixels that the last two figures follow."""
    (n, before), (m, last) = list(found.items())[-2:]
    return log(last / before) / log(int(m) / int(n))


def layer_table(figures: dict) -> str:
    """Markdown: a line a kind, time, memory and their exponents at the largest maps."""
    lines = ["| layer | map | time | memory | time grows as | memory as |", "|---|---|---|---|---|---|"]
    for kind, (name, _) in LAYERS.items():
        time, memory = figures["time"][kind], (figures["memory"] or {}).get(kind)
        pixels, seconds = list(time.items())[-1]
        cells = [f"{round(int(pixels) ** 0.5)}²", f"{1e3 * seconds:,.0f} ms"]
        cells += [f"{memory[pixels] / 1e6:,.0f} MB" if memory else "–", f"N^{exponent(time):.2f}"]
        lines.append(f"| {name} | " + " | ".join([*cells, f"N^{exponent(memory):.2f}" if memory else "–"]) + " |")
    return "\n".join(lines)


def draw(figures: dict, path: str) -> None:
    """Seconds and bytes over pixels beside each other, with the exponents at the right end, and lines N² and N."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
    from PIL import Image

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    for axis, what, label, unit in zip(
        figure.subplots(1, 2), ("time", "memory"), ("time (ms)", "memory (MB)"), (1e3, 1e-6), strict=True
    ):
        for kind, (name, style) in LAYERS.items():
            found = figures[what][kind]
            pixels = [int(n) for n in found]
            axis.plot(pixels, [unit * value for value in found.values()], label=name, **style)
        first, last = pixels[0], pixels[-1]
        heights = [line.get_ydata() for line in axis.lines]
        lowest, highest = (f(f(values) for values in heights) for f in (min, max))
        note_exponents(axis, (highest / lowest) ** 0.06)
        for power, dashes in ((1, ":"), (2, "--")):
            ends = [lowest / 2 * (n / first) ** power for n in (first, last)]
            axis.plot([first, last], ends, dashes, label=("∝ N", "∝ N²")[power - 1], color="#999999", lw=1.1, zorder=1)
        axis.set(xscale="log", yscale="log", xlim=(first / 1.25, last * 2.2), ylim=(lowest / 2.8, highest * 2))
        axis.set(xlabel="pixels N of the map", ylabel=label)
        axis.xaxis.set_major_locator(FixedLocator([side**2 for side in SIDES]))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{round(n**0.5)}²"))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        for ticks in (axis.xaxis, axis.yaxis):
            ticks.set_minor_locator(NullLocator())
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=130)
    Image.open(drawn).convert("RGB").quantize(64).save(path, optimize=True)  # a quarter of the bytes


def note_exponents(axis, apart: float) -> None:
    """Behind each line of the axis its exponent; notes stand by a factor of `apart` from one another."""
    before = 0
    for line in sorted(axis.lines, key=lambda line: line.get_ydata()[-1]):
        (*_, n, m), (*_, last, end) = line.get_data()
        before = max(end, before * apart)
        text = f"$N^{{{log(end / last) / log(m / n):.1f}}}$"
        axis.text(m * 1.12, before, text, va="center", fontsize=10, color=line.get_color())


if __name__ == "__main__":
    main()
