"""Attention beside Keras's and PyTorch's: `python benchmarks/attention.py` prints the tables of docs/attention.md.

The first is a step of training (forward, backward, gradient descent) of ViT-Ti/16 on 8 images of 224 × 224: ours, the
same model of Keras's layers and the same in plain PyTorch (one product for queries, keys and values, then
`scaled_dot_product_attention`). The second is forward and backward of one attention over N tokens, one head of 64:
full, and in windows of 49 tokens, which fill N up to a multiple of 49.

Times are ratios to plain PyTorch in the same process, where all take turns; medians, on `--threads` threads. With one
thread it is the time of the processor that is measured, which other processes leave alone. A model trains by
`train_on_batch`, which compiles as `fit` does; layers are compiled likewise.

Memory is by how much the resident memory of a process of its own rises in a step, above weights, data and code that are
there before (Linux). The step has run before, so that nothing is compiled, with an allocation that gives back to the
system what is freed; TensorFlow must run without oneDNN for it, which keeps what it once had.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import time
from math import ceil, log
from pathlib import Path

TOKENS = (256, 1024, 4096, 8192)
WINDOW, DIM = 49, 64
IMAGES = 8
SMALL = {"input_shape": (16, 16, 3), "num_classes": 10, "patch_size": 8, "depth": 1}  # for --quick
NATIVE = "native"  # plain PyTorch
CONTENDERS = {"vit": ("ours", "remat", "keras", NATIVE), "full": ("ours", "keras", NATIVE)}
CONTENDERS["windows"] = CONTENDERS["full"]
NAMES = {"keras": "Keras's layers", "ours": "ours", "remat": "ours, `remat=True`", NATIVE: "plain PyTorch"}
WARM_UP = 2  # rounds: the first compile
PLAIN_MEMORY = {  # so that what is freed goes back to the system, and is not kept for the next step
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}
BLOCK = 0.05  # seconds: shorter steps are repeated for as long, and timed together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default="tensorflow,jax,torch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all works")
    parser.add_argument("--json", action="store_true", help="print the figures: seconds and bytes")
    parser.add_argument("--plot", help="picture of the second table, a PNG to be written")
    parser.add_argument("--figures", help="take the figures that --json printed from this file")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        what, *cases = given.measure
        measure = {"time": lambda: times(cases, given), "memory": lambda: {c: memory(c, given.quick) for c in cases}}
        print(json.dumps(measure[what]()))
        return
    figures = json.loads(Path(given.figures).read_text()) if given.figures else collect(given)
    print(json.dumps(figures, indent=1) if given.json else f"{table_of_models(figures)}\n\n{table_of_layers(figures)}")
    if given.plot:
        draw(figures, given.plot)


def collect(given) -> dict:
    """Seconds and bytes, by backend and case, in processes of their own; of plain PyTorch bytes only once."""
    cases = [f"vit/0/{who}" for who in CONTENDERS["vit"]] + [
        f"{kind}/{tokens}/{who}"
        for tokens in ((64,) if given.quick else TOKENS)
        for kind in ("full", "windows")
        for who in CONTENDERS[kind]
    ]
    seconds, bytes_ = {}, {NATIVE: {}}
    for backend in given.backends.split(","):
        seconds[backend], bytes_[backend] = run(given, backend, "time", cases), {}
    for backend, found in bytes_.items():
        chosen = [case for case in cases if case.endswith(NATIVE) == (backend == NATIVE)]
        for some in [chosen] if given.quick else [[case] for case in chosen]:
            found |= run(given, "torch" if backend == NATIVE else backend, "memory", some)
    return {"seconds": seconds, "bytes": bytes_}


def run(given, backend: str, what: str, cases: list[str]) -> dict:
    environment = os.environ | (PLAIN_MEMORY if what == "memory" else {})
    environment |= {
        "KERAS_BACKEND": backend,
        "OMP_NUM_THREADS": str(given.threads),
        "TF_NUM_INTRAOP_THREADS": str(given.threads),
        "TF_NUM_INTEROP_THREADS": str(given.threads),
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={'true' if given.threads > 1 else 'false'}",
    }
    command = [sys.executable, __file__, "--rounds", str(given.rounds), "--threads", str(given.threads)]
    command += ["--quick"] * given.quick + ["--measure", what, *cases]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    print(backend, what, done.stdout.splitlines()[-1], file=sys.stderr, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def times(cases: list[str], given) -> dict:
    """Median seconds of a step by case; the contenders for the same take turns."""
    import numpy as np
    import torch

    torch.set_num_threads(given.threads)
    clock = time.process_time if given.threads == 1 else time.perf_counter
    medians = {}
    for group in dict.fromkeys(case.rpartition("/")[0] for case in cases):
        names = [case for case in cases if case.startswith(f"{group}/")]
        steps = {name: step(name, given.quick) for name in names}
        counts, found = {}, {name: [] for name in names}
        for number in range(WARM_UP + given.rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:  # whom one follows matters
                began = clock()
                for _ in range(counts.get(name, 1)):
                    steps[name]()
                each = (clock() - began) / counts.get(name, 1)
                if number < WARM_UP:
                    counts[name] = ceil(BLOCK / each) if number and not given.quick else 1
                else:
                    found[name].append(each)
        medians |= {name: float(np.median(values)) for name, values in found.items()}
    return medians


def memory(case: str, quick: bool) -> int | None:
    """By how many bytes the memory of this process rises in a step."""
    import ctypes
    import gc

    from kseq.training.measurement import peak_memory

    marks = Path("/proc/self/clear_refs")
    if not marks.exists():
        return None
    one = step(case, quick)
    for _ in range(WARM_UP):
        one()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    marks.write_text("5")  # the peak is now what there is
    before = peak_memory()
    one()
    return peak_memory() - before


def step(case: str, quick: bool):
    """The function that makes one step of a case."""
    kind, tokens, who = case.split("/")
    if kind == "vit":
        from kseq.models.registry import variants

        return step_of_model(who, variants()["vit_ti16"].arguments | (SMALL if quick else {}))
    tokens = int(tokens)
    return step_of_layer(who, (1, tokens, DIM) if kind == "full" else (ceil(tokens / WINDOW), WINDOW, DIM))


def step_of_model(who: str, sizes: dict):
    import keras
    import numpy as np

    import kseq

    random = np.random.default_rng(0)
    images = random.normal(size=(IMAGES, *sizes["input_shape"])).astype("float32")
    classes = random.integers(0, sizes["num_classes"], IMAGES)
    if who == NATIVE:
        return native_step(sizes, images, classes)
    model = keras_vit(**sizes) if who == "keras" else kseq.models.ViT(**sizes, remat=who == "remat")
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return lambda: model.train_on_batch(images, classes)


def step_of_layer(who: str, shape: tuple):
    """Forward and backward to the inputs and weights, of Σ y²."""
    import keras
    import numpy as np
    from recurrent import _jax, _tensorflow, _torch, _torch_both

    import kseq

    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    if who == NATIVE:
        import torch

        x, module = torch.tensor(x, requires_grad=True), native_attention(DIM, 1)
        return _torch_both(lambda: module(x).square(), [x, *module.parameters()])["training step"]
    if who == "ours":
        layer = kseq.layers.MultiHeadAttention(1)
        layer.build(shape)
    else:
        layer = keras.layers.MultiHeadAttention(1, DIM)
        layer.build(shape, shape)

    def squares(x, _, training):
        y = layer(x, training=training) if who == "ours" else layer(x, x, training=training)
        return keras.ops.square(y)

    compiled = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()]
    return compiled(squares, layer.trainable_variables, x, None)["training step"]


def keras_vit(input_shape, num_classes, patch_size, embed_dim, depth, num_heads):
    """The model of Keras's layers; of ours are the class token and the positions, which Keras does not have."""
    import keras
    from keras import layers

    import kseq

    images = keras.Input(input_shape)
    x = layers.Conv2D(embed_dim, patch_size, patch_size)(images)
    grid = x.shape[1:3]
    x = kseq.layers.ClassToken()(layers.Reshape((-1, embed_dim))(x))
    x = kseq.layers.LearnedPositionEncoding(grid, num_prefix_tokens=1)(x)
    for _ in range(depth):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = x + layers.MultiHeadAttention(num_heads, embed_dim // num_heads)(y, y)
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = x + layers.Dense(embed_dim)(layers.Dense(4 * embed_dim, "gelu")(y))
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    return keras.Model(images, layers.Dense(num_classes)(x[:, 0]))


def native_attention(dim: int, heads: int):
    from torch import nn

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.inputs, self.outputs = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

        def forward(self, x):
            batch, tokens, _ = x.shape
            q, k, v = self.inputs(x).reshape(batch, tokens, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.outputs(y.transpose(1, 2).reshape(batch, tokens, dim))

    return Attention()


def native_step(sizes: dict, images, classes):
    import torch
    from torch import nn

    dim, patch = sizes["embed_dim"], sizes["patch_size"]
    tokens = 1 + (sizes["input_shape"][0] // patch) ** 2

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
            self.attention = native_attention(dim, sizes["num_heads"])
            self.network = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

        def forward(self, x):
            x = x + self.attention(self.first(x))
            return x + self.network(self.second(x))

    class ViT(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, dim, patch, patch)
            self.token = nn.Parameter(torch.zeros(1, 1, dim))
            self.positions = nn.Parameter(0.02 * torch.randn(1, tokens, dim))
            self.blocks = nn.Sequential(*(Block() for _ in range(sizes["depth"])))
            self.norm, self.head = nn.LayerNorm(dim, 1e-6), nn.Linear(dim, sizes["num_classes"])

        def forward(self, images):
            x = self.patches(images).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
            return self.head(self.norm(self.blocks(x))[:, 0])

    model = ViT()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    images, classes = torch.tensor(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(classes)

    def one():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), classes)
        loss.backward()
        optimizer.step()
        return loss.item()

    return one


def table_of_models(figures: dict) -> str:
    """Markdown: a line a contender, the ratio of its time to that of plain PyTorch, and its memory."""
    seconds, bytes_ = figures["seconds"], figures["bytes"]
    lines = [f"| ViT-Ti/16, {IMAGES} images | " + " | ".join(seconds) + " |", "|---|" + "---|" * len(seconds)]
    for who in ("keras", "ours", "remat"):
        cells = (
            f"{found[f'vit/0/{who}'] / found[f'vit/0/{NATIVE}']:.2f}, {_megabytes(bytes_[backend][f'vit/0/{who}'])}"
            for backend, found in seconds.items()
        )
        lines.append(f"| {NAMES[who]} | " + " | ".join(cells) + " |")
    native = _megabytes(bytes_[NATIVE][f"vit/0/{NATIVE}"])
    cells = (f"{1e3 * found[f'vit/0/{NATIVE}']:,.0f} ms, {native}" for found in seconds.values())
    return "\n".join([*lines, f"| {NAMES[NATIVE]} | " + " | ".join(cells) + " |"])


def table_of_layers(figures: dict) -> str:
    """Markdown: a line a size and kind, ratios of the time, then bytes; those of Keras in brackets."""
    seconds, bytes_ = figures["seconds"], figures["bytes"]
    lines = ["| tokens | | " + " | ".join(f"{b}: ours (Keras)" for b in seconds) + f" | {NAMES[NATIVE]} |"]
    lines.append("|---|---|" + "---|" * (len(seconds) + 1))
    groups = [case.rpartition("/")[0] for case in bytes_[NATIVE] if not case.startswith("vit")]
    names = {"full": "full", "windows": f"windows of {WINDOW}"}
    for what in ("time", "memory"):
        for kind, tokens in (group.split("/") for group in groups):
            case = f"{kind}/{tokens}"
            if what == "time":
                cells = [
                    f"{found[f'{case}/ours'] / found[f'{case}/{NATIVE}']:.2f} "
                    f"({found[f'{case}/keras'] / found[f'{case}/{NATIVE}']:.2f})"
                    for found in seconds.values()
                ]
                native = f"{1e3 * min(found[f'{case}/{NATIVE}'] for found in seconds.values()):,.1f} ms"
            else:
                cells = [
                    f"{_megabytes(bytes_[backend][f'{case}/ours'])} ({_megabytes(bytes_[backend][f'{case}/keras'])})"
                    for backend in seconds
                ]
                native = _megabytes(bytes_[NATIVE][f"{case}/{NATIVE}"])
            lines.append(f"| {int(tokens):,} | {names[kind]}, {what} | " + " | ".join([*cells, native]) + " |")
    return "\n".join(lines)


def _megabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:,.1f} MB" if size < 10e6 else f"{size / 1e6:,.0f} MB"


def draw(figures: dict, path: str) -> None:
    """Seconds and bytes over tokens, a column a backend, with the exponents at the right end, and lines N² and N."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
    from PIL import Image

    seconds, bytes_ = figures["seconds"], figures["bytes"]
    tokens = sorted({int(case.split("/")[1]) for case in bytes_[NATIVE] if not case.startswith("vit")})
    lines = {
        ("full", "keras"): ("Keras, full", {"color": "#d55e00", "marker": "s"}),
        ("full", NATIVE): ("plain PyTorch, full", {"color": "#555555", "marker": "D"}),
        ("full", "ours"): ("ours, full", {"color": "#0072b2", "marker": "o", "zorder": 3}),
        ("windows", "ours"): (f"ours, windows of {WINDOW}", {"color": "#009e73", "marker": "o"}),
    }
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    axes = figure.subplots(2, len(seconds), sharex=True, sharey="row", squeeze=False)
    for row, label, unit, found in zip(axes, ("time (ms)", "memory (MB)"), (1e3, 1e-6), (seconds, bytes_), strict=True):
        for axis, backend in zip(row, seconds, strict=True):
            for (kind, who), (name, style) in lines.items():
                source = found[NATIVE if who == NATIVE and found is bytes_ else backend]
                values = [unit * source[f"{kind}/{n}/{who}"] for n in tokens]
                axis.plot(tokens, values, label=name, linewidth=1.8, markersize=4.5, **style)
        heights = [line.get_ydata() for axis in row for line in axis.lines]
        lowest, highest = (f(f(values) for values in heights) for f in (min, max))
        for axis in row:
            _note_exponents(axis, tokens, (highest / lowest) ** 0.075)
            for power in (1, 2):
                axis.plot(
                    tokens,
                    [lowest / 2 * (n / tokens[0]) ** power for n in tokens],
                    ":" if power == 1 else "--",
                    label=("∝ N", "∝ N²")[power - 1],
                    color="#999999",
                    linewidth=1.1,
                    zorder=1,
                )
            axis.set(xscale="log", yscale="log", xlim=(tokens[0] / 1.25, tokens[-1] * 2.1))
            axis.set_ylim(lowest / 2.8, highest * 2)
            axis.xaxis.set_major_locator(FixedLocator(tokens))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            for ticks in (axis.xaxis, axis.yaxis):
                ticks.set_minor_locator(NullLocator())
            axis.tick_params(labelsize=9)
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(label)
    for axis, backend in zip(axes[0], seconds, strict=True):
        axis.set_title({"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}[backend])
    for axis in axes[1]:
        axis.set_xlabel("tokens N")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120)
    Image.open(drawn).convert("RGB").quantize(64).save(path, optimize=True)  # a quarter of the bytes


def _note_exponents(axis, tokens: list[int], apart: float) -> None:
    """Behind each line of the axis its exponent; notes stand by a factor of `apart` from one another."""
    before = 0
    for line in sorted(axis.lines, key=lambda line: line.get_ydata()[-1]):
        *_, last, end = line.get_ydata()
        exponent = log(end / last) / log(tokens[-1] / tokens[-2])
        before = max(end, before * apart)
        axis.text(
            tokens[-1] * 1.15, before, f"$N^{{{exponent:.1f}}}$", va="center", fontsize=10, color=line.get_color()
        )


if __name__ == "__main__":
    main()
