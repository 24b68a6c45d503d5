"""Segmentation beside PyTorch: `python benchmarks/segmentation.py` prints the tables of docs/segmentation.md.

The first is inference and whole steps of training (forward, backward, gradient descent on the cross-entropy) beside the
same models in plain PyTorch, `native_model`, and where they can be imported those of MONAI and of transformers. Nothing
is dropped. Ours run by `predict_on_batch` and `train_on_batch`, which compile as `predict` and `fit` do. A figure is
how often ours runs in the time of the other.

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
from itertools import pairwise
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


def native_model(function: str, arguments: dict):
    """The same model in plain PyTorch, channels first, as the originals are written; `None` for MONAI's own."""
    import torch
    from torch import nn
    from torch.nn import functional

    size = arguments["input_shape"][0]

    def convolutions(inputs, filters, count):
        """3 × 3, each with batch normalisation and ReLU."""
        parts = []
        for i in range(count):
            parts += [nn.Conv2d(filters if i else inputs, filters, 3, padding=1, bias=False)]
            parts += [nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
        return nn.Sequential(*parts)

    def resized(x, scale=2, align_corners=False):
        return functional.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=align_corners)

    def tokens(x):
        return x.flatten(2).transpose(1, 2)  # (batch, places, channels)

    def encoder(embed_dim, depth, num_heads):
        options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        block = nn.TransformerEncoderLayer(embed_dim, num_heads, 4 * embed_dim, **options)
        return nn.TransformerEncoder(block, depth, nn.LayerNorm(embed_dim), enable_nested_tensor=False)

    class Gate(nn.Module):
        """Of a U-Transformer."""

        def __init__(self, side, dim, deep, heads):
            super().__init__()
            self.skip, self.deep = nn.Conv2d(dim, dim, 1, bias=False), nn.Conv2d(deep, dim, 1, bias=False)
            self.norms = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(3))
            self.register_buffer("positions", torch.randn(dim, side, side))
            self.attention = nn.MultiheadAttention(dim, heads, bias=False, batch_first=True)

        def forward(self, skip, deep):
            value = self.norms[0](self.skip(functional.max_pool2d(skip, 2))).relu() + self.positions
            query = self.norms[1](self.deep(deep)).relu() + self.positions
            query, value = tokens(query), tokens(value)
            y, _ = self.attention(query, query, value, need_weights=False)
            y = y.transpose(1, 2).unflatten(2, self.positions.shape[1:])
            return resized(self.norms[2](y).sigmoid())

    class UNet(nn.Module):
        """With `num_heads` the U-Transformer."""

        def __init__(self, channels, num_heads=0):
            super().__init__()
            self.encoder = nn.ModuleList(convolutions(a, b, 2) for a, b in pairwise((1, *channels)))
            self.decoder = nn.ModuleList(convolutions(2 * a, a, 2) for a in channels[:-1])
            self.ups = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairwise(channels))
            self.head = nn.Conv2d(channels[0], arguments["num_classes"], 1)
            self.attention, self.gates, dim = None, None, channels[-1]
            if num_heads:
                sides = [size // 2 ** (level + 1) for level in range(len(channels) - 1)]
                self.gates = nn.ModuleList(
                    Gate(side, a, b, num_heads) for side, (a, b) in zip(sides, pairwise(channels), strict=True)
                )
                self.attention = nn.MultiheadAttention(dim, num_heads, bias=False, batch_first=True)
                self.register_buffer("positions", torch.randn(dim, sides[-1], sides[-1]))

        def forward(self, x):
            skips = []
            for level, block in enumerate(self.encoder):
                x = block(functional.max_pool2d(x, 2) if level else x)
                skips.append(x)
            x = skips.pop()
            if self.gates:
                y = tokens(x + self.positions)
                y, _ = self.attention(y, y, y, need_weights=False)
                x = x + y.transpose(1, 2).unflatten(2, x.shape[2:])
            for level in reversed(range(len(skips))):
                skip = skips[level]
                skip = skip * self.gates[level](skip, x) if self.gates else skip
                x = self.decoder[level](torch.cat([skip, self.ups[level](x)], 1))
            return self.head(x)

    class SETR(nn.Module):
        def __init__(self, decoder, patch_size, channels, **sizes):
            super().__init__()
            dim, grid = sizes["embed_dim"], size // patch_size
            self.patches = nn.Conv2d(3, dim, patch_size, patch_size)
            self.token, self.positions = (nn.Parameter(torch.zeros(1, n, dim)) for n in (1, 1 + grid**2))
            self.encoder = encoder(**sizes)
            self.decoder = nn.ModuleList(convolutions(channels if i else dim, channels, 1) for i in range(4))
            self.head = nn.Conv2d(channels, arguments["num_classes"], 1)

        def forward(self, x):
            x = self.patches(x)
            grid = x.shape[2:]
            x = torch.cat([self.token.expand(len(x), -1, -1), tokens(x)], 1) + self.positions
            x = self.encoder(x)[:, 1:].transpose(1, 2).unflatten(2, grid)
            for step, block in enumerate(self.decoder):
                x = block(resized(x) if step else x)
            return resized(self.head(x), size // x.shape[-1])

    class Standardized(nn.Conv2d):
        def forward(self, x):
            variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True, correction=0)
            return self._conv_forward(x, (self.weight - mean) * (variance + 1e-5).rsqrt(), None)

    def standardized(inputs, filters, kernel, stride=1, groups=32):
        convolution = Standardized(inputs, filters, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(convolution, nn.GroupNorm(groups, filters))

    class Bottleneck(nn.Module):
        def __init__(self, inputs, width, stride, first):
            super().__init__()
            self.convolutions = nn.Sequential(
                *(standardized(inputs, width, 1), nn.ReLU(inplace=True)),
                *(standardized(width, width, 3, stride), nn.ReLU(inplace=True)),
                standardized(width, 4 * width, 1),
            )
            self.shortcut = standardized(inputs, 4 * width, 1, stride, 4 * width) if first else nn.Identity()

        def forward(self, x):
            return (self.shortcut(x) + self.convolutions(x)).relu()

    class TransUNet(nn.Module):
        def __init__(self, resnet_width, resnet_depths, dropout, **sizes):
            super().__init__()
            dim, inputs, self.stages = sizes["embed_dim"], resnet_width, nn.ModuleList()
            self.root = nn.Sequential(standardized(3, inputs, 7, 2), nn.ReLU(inplace=True))
            for stage, depth in enumerate(resnet_depths):
                width, blocks = resnet_width * 2**stage, []
                for block in range(depth):
                    blocks += [Bottleneck(inputs, width, 2 if stage and not block else 1, not block)]
                    inputs = 4 * width
                self.stages.append(nn.Sequential(*blocks))
            self.patches, self.encoder = nn.Conv2d(inputs, dim, 1), encoder(**sizes)
            self.positions = nn.Parameter(torch.zeros(1, (size // 16) ** 2, dim))
            self.bridge, outputs = convolutions(dim, 512, 1), (512, 256, 128, 64, 16)
            skips = (8 * resnet_width, 4 * resnet_width, resnet_width, 0)
            self.decoder = nn.ModuleList(
                convolutions(a + skip, b, 2) for (a, b), skip in zip(pairwise(outputs), skips, strict=True)
            )
            self.head = nn.Conv2d(16, arguments["num_classes"], 3, padding=1)

        def forward(self, x):
            x = self.root(x)
            skips, x = [x], functional.max_pool2d(x, 3, 2)
            for stage in self.stages:
                x = stage(x)
                skips.append(x)
            skips[1] = functional.pad(skips[1], (0, 1, 0, 1))
            x = self.patches(skips.pop())
            x = self.encoder(tokens(x) + self.positions).transpose(1, 2).unflatten(2, x.shape[2:])
            x = self.bridge(x)
            for block in self.decoder:
                x = resized(x, align_corners=True)
                x = block(torch.cat([x, skips.pop()], 1) if skips else x)
            return self.head(x)

    class SwinBlock(nn.Module):
        def __init__(self, dim, heads, side, shift):
            super().__init__()
            self.heads, self.window = heads, min(7, side)
            self.shift = self.window // 2 if shift and side > self.window else 0
            self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
            self.qkv, self.output = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
            self.network = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
            span = 2 * self.window - 1
            self.table = nn.Parameter(0.02 * torch.randn(span**2, heads))
            places = torch.cartesian_prod(*[torch.arange(self.window)] * 2)
            offsets = places[:, None] - places[None] + self.window - 1
            self.register_buffer("index", offsets[..., 0] * span + offsets[..., 1])
            part = torch.arange(side)
            part = (part >= side - self.window).int() + (part >= side - self.shift).int()
            part = self.cut((3 * part[:, None] + part[None])[None, ..., None])[0, ..., 0]  # (windows, tokens)
            mask = -100.0 * (part[:, :, None] != part[:, None]).float()
            self.register_buffer("mask", mask[:, None] if self.shift else None)

        def cut(self, x):
            batch, side, *_, dim = x.shape
            x = x.unflatten(2, (-1, self.window)).unflatten(1, (-1, self.window))
            return x.transpose(2, 3).reshape(batch, (side // self.window) ** 2, self.window**2, dim)

        def forward(self, x):
            batch, side, _, dim = x.shape
            y = self.norms[0](x)
            y = self.cut(y.roll((-self.shift, -self.shift), (1, 2)) if self.shift else y)
            q, k, v = self.qkv(y).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
            bias = self.table[self.index].permute(2, 0, 1)
            bias = bias if self.mask is None else bias + self.mask
            y = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2) + bias).softmax(-1) @ v
            y = self.output(y.transpose(2, 3).reshape(batch, -1, self.window**2, dim))
            y = y.reshape(batch, side // self.window, side // self.window, self.window, self.window, dim)
            y = y.transpose(2, 3).reshape(x.shape)
            x = x + (y.roll((self.shift, self.shift), (1, 2)) if self.shift else y)
            return x + self.network(self.norms[1](x))

    class Merging(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.norm, self.product = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

        def forward(self, x):
            parts = [x[:, row::2, column::2] for column in range(2) for row in range(2)]
            return self.product(self.norm(torch.cat(parts, -1)))

    class Expanding(nn.Module):
        def __init__(self, inputs, dim, scale):
            super().__init__()
            self.scale, self.norm = scale, nn.LayerNorm(dim)
            self.product = nn.Linear(inputs, dim * scale**2, bias=False)

        def forward(self, x):
            batch, side, *_ = x.shape
            x = self.product(x).unflatten(-1, (self.scale, self.scale, -1)).transpose(2, 3)
            return self.norm(x.reshape(batch, side * self.scale, side * self.scale, -1))

    class Swin(nn.Module):
        def __init__(self, embed_dim, depths, num_heads, **_):
            super().__init__()
            self.dims = [embed_dim * 2**i for i in range(len(depths))]
            self.patches, self.norm = nn.Conv2d(3, embed_dim, 4, 4), nn.LayerNorm(embed_dim)
            self.stages, self.last = self.stack(depths, num_heads), nn.LayerNorm(self.dims[-1])
            self.merging = nn.ModuleList(Merging(dim) for dim in self.dims[:-1])
            self.add_decoder(depths, num_heads)

        def stack(self, depths, num_heads):
            return nn.ModuleList(
                nn.Sequential(*(SwinBlock(self.dims[i], heads, size // 2 ** (i + 2), j % 2) for j in range(depth)))
                for i, (depth, heads) in enumerate(zip(depths, num_heads, strict=True))
            )

        def add_decoder(self, depths, num_heads):
            self.head = nn.Linear(self.dims[-1], arguments["num_classes"])

        def encode(self, x):
            x, skips = self.norm(self.patches(x).permute(0, 2, 3, 1)), []
            for stage, block in enumerate(self.stages):
                skips.append(x)
                x = block(x)
                x = self.merging[stage](x) if stage < len(self.merging) else self.last(x)
            return x, skips[:-1]

        def forward(self, x):
            return self.head(self.encode(x)[0].mean((1, 2)))

    class SwinUnet(Swin):
        def add_decoder(self, depths, num_heads):
            first = self.dims[0]
            self.decoder = self.stack(depths[:-1], num_heads[:-1])
            self.expanding = nn.ModuleList(Expanding(2 * dim, dim, 2) for dim in self.dims[:-1])
            self.reduction = nn.ModuleList(nn.Linear(2 * dim, dim) for dim in self.dims[:-1])
            self.norms, self.final = nn.LayerNorm(first), Expanding(first, first, 4)
            self.head = nn.Linear(first, arguments["num_classes"], bias=False)

        def forward(self, x):
            x, skips = self.encode(x)
            for i in reversed(range(len(skips))):
                x = self.decoder[i](self.reduction[i](torch.cat([self.expanding[i](x), skips[i]], -1)))
            return self.head(self.final(self.norms(x))).permute(0, 3, 1, 2)

    kinds = {"UTransformer": UNet} | {kind.__name__: kind for kind in (UNet, SETR, TransUNet, Swin, SwinUnet)}
    others = {"input_shape", "num_classes", "normalization"}
    sizes = {name: value for name, value in arguments.items() if name not in others}
    return kinds[function](**sizes) if function in kinds else None


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
