"""Texts: training beside PyTorch, decoding, serving. `python benchmarks/text.py` prints the tables of docs/text.md.

The first is whole steps of training (forward, backward, AdamW) of classifier, language models and translators, by
`train_on_batch`, which compiles as `fit` does, beside the same models in plain PyTorch: layers of `torch.nn`, and for
the recurrent translator a loop over `GRUCell` with Bahdanau's attention. Sizes, dropout, batches and the loss over
valid tokens are the same. Rows have 70 to 100 % of the length, padded on the right; `torch.nn` reads the padding too,
ours passes it by. Language models have no padding.

The second is beam search with caches beside `kseq.inference.UncachedDecoder`, which computes all positions again at
each step. A search that computed only those so far would take about half of its time, for which there is a column.

The third, under TensorFlow, is the SavedModel of a translator from strings to strings beside the same model by
`kseq.inference.translate`. The weights are random, and nothing ends before the most tokens: trained models answer
sooner.

Contenders take turns in one process a backend; figures are medians, on `--threads` threads. With one thread it is the
time of the processor that is measured, which other processes leave alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from math import ceil, log, sqrt
from pathlib import Path

SOURCES = {"source_vocabulary_size": 4000, "target_vocabulary_size": 4000}
ATTENTIVE = {"embed_dim": 128, "num_heads": 4}
MODELS = {  # title: function of kseq.models, its arguments, batch size, length of rows
    "classifier, BiLSTM": (
        "TextClassifier",
        {"vocabulary_size": 4000, "num_classes": 2, "embed_dim": 128, "units": 128, "depth": 1},
        (64, 48),
    ),
    "language model, LSTM": (
        "LanguageModel",
        {"vocabulary_size": 84, "embed_dim": 128, "units": 256, "depth": 2, "mask_zero": False},
        (32, 64),
    ),
    "language model, transformer": (
        "LanguageModel",
        {"vocabulary_size": 84, "cell": "transformer", "depth": 4, "mask_zero": False, **ATTENTIVE},
        (32, 64),
    ),
    "translator, GRU and Bahdanau": ("RecurrentTranslator", {"embed_dim": 256, "units": 256, **SOURCES}, (64, 20)),
    "translator, transformer": (
        "TransformerTranslator",
        {"hidden_dim": 256, "depth": 3, "norm_first": True, "logits_bias": True, **ATTENTIVE, **SOURCES},
        (64, 20),
    ),
}
TRANSLATORS = [title for title, (function, *_) in MODELS.items() if "Translator" in function]
SMALL = {  # for --quick
    "vocabulary_size": 300,
    "source_vocabulary_size": 300,
    "target_vocabulary_size": 300,
    "embed_dim": 8,
    "units": 8,
    "hidden_dim": 8,
    "depth": 1,
}
SENTENCES, LENGTH, BEAM = 8, 64, 4  # of the second table
SERVED = (1, 32)  # batches of the third
TOKENS = 32  # of a sentence there, and of its translation
NATIVE = "native"  # plain PyTorch
WARM_UP = 2
BLOCK = 0.05  # seconds: shorter steps are repeated for as long, and timed together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default="tensorflow,jax,torch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9, help="of training and serving; a third of them of decoding")
    parser.add_argument("--parts", default="training,decoding,serving")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all works")
    parser.add_argument("--json", action="store_true", help="print the figures: seconds by case")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given)))
        return
    figures = {backend: run(given, backend) for backend in given.backends.split(",")}
    print(json.dumps(figures, indent=1) if given.json else "\n\n".join(tables(figures, given.quick)))


def run(given, backend: str) -> dict:
    """Median seconds by part and case on a backend, in a process of its own."""
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "OMP_NUM_THREADS": str(given.threads),
        "TF_NUM_INTRAOP_THREADS": str(given.threads),
        "TF_NUM_INTEROP_THREADS": str(given.threads),
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={'true' if given.threads > 1 else 'false'}",
    }
    command = [sys.executable, __file__, "--rounds", str(given.rounds), "--threads", str(given.threads)]
    command += ["--parts", given.parts, "--measure"] + ["--quick"] * given.quick
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(given) -> dict:
    """Median seconds by part and case, on the backend of this process."""
    import keras
    import torch

    torch.set_num_threads(given.threads)
    parts = {}
    for part in given.parts.split(","):
        if part == "training":
            groups = ((title, lambda title=title: training(title, given.quick)) for title in MODELS)
        elif part == "decoding":
            groups = ((title, lambda title=title: decoding(title, given.quick)) for title in TRANSLATORS)
        elif keras.backend.backend() == "tensorflow":
            groups = ((title, lambda title=title: serving(title, given.quick)) for title in TRANSLATORS)
        else:
            continue
        rounds = ceil(given.rounds / 3) if part == "decoding" else given.rounds
        parts[part] = {}
        for title, contenders in groups:
            keras.utils.set_random_seed(0)
            parts[part] |= {f"{title}/{who}": seconds for who, seconds in medians(contenders(), rounds, given).items()}
            keras.backend.clear_session()
            print({case: found for case, found in parts[part].items() if case.startswith(title)}, file=sys.stderr)
    return parts


def medians(contenders: dict, rounds: int, given) -> dict:
    """Median seconds of each; they take turns."""
    import numpy as np

    clock = time.process_time if given.threads == 1 else time.perf_counter
    counts, found = {}, {name: [] for name in contenders}
    names = list(contenders)
    for number in range(WARM_UP + rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:  # whom one follows matters
            began = clock()
            for _ in range(counts.get(name, 1)):
                contenders[name]()
            each = (clock() - began) / counts.get(name, 1)
            if number < WARM_UP:  # the first compile
                counts[name] = ceil(BLOCK / each) if number and not given.quick else 1
            else:
                found[name].append(each)
    return {name: float(np.median(values)) for name, values in found.items()}


def settings(title: str, quick: bool) -> tuple[str, dict, tuple[int, int]]:
    """The function of a model, its arguments, and the shape of a batch."""
    function, arguments, shape = MODELS[title]
    if quick:
        arguments, shape = {name: SMALL.get(name, value) for name, value in arguments.items()}, (4, 6)
    return function, arguments, shape


def batch(function: str, arguments: dict, shape: tuple[int, int]):
    """Inputs of a model and targets; tokens from 4 on, padded with 0 on the right."""
    import numpy as np

    random = np.random.default_rng(0)

    def rows(vocabulary: int):
        tokens = random.integers(4, vocabulary, shape).astype("int32")
        lengths = random.integers(ceil(0.7 * shape[1]), shape[1] + 1, shape[0])
        lengths[0] = shape[1]
        return np.where(np.arange(shape[1]) < lengths[:, None], tokens, 0)

    if "Translator" in function:
        source, target = (rows(arguments[f"{side}_vocabulary_size"]) for side in ("source", "target"))
        return [source, np.pad(target, ((0, 0), (1, 0)), constant_values=2)[:, :-1]], target
    if function == "TextClassifier":
        return rows(arguments["vocabulary_size"]), random.integers(0, arguments["num_classes"], shape[0])
    stream = random.integers(4, arguments["vocabulary_size"], (shape[0], shape[1] + 1)).astype("int32")
    return stream[:, :-1], stream[:, 1:]


# Training


def training(title: str, quick: bool) -> dict:
    """A step of ours and of plain PyTorch."""
    import keras

    import kseq

    function, arguments, shape = settings(title, quick)
    inputs, targets = batch(function, arguments, shape)
    model = getattr(kseq.models, function)(**arguments)
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if targets.ndim == 1
        else kseq.training.SequenceCrossentropy(),
    )
    return {
        "ours": lambda: model.train_on_batch(inputs, targets),
        NATIVE: native_step(native_model(function, arguments), inputs, targets),
    }


def native_step(model, inputs, targets):
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-2)
    inputs = [torch.tensor(array) for array in (inputs if isinstance(inputs, list) else [inputs])]
    targets = torch.tensor(targets, dtype=torch.int64)
    ignored = 0 if targets.ndim > 1 else -100

    def one():
        optimizer.zero_grad()
        logits = model(*inputs)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=ignored)
        loss.backward()
        optimizer.step()
        return loss.item()

    return one


def native_model(function: str, arguments: dict):
    """The same model in plain PyTorch, with the dropout that is the default of ours."""
    import torch
    from torch import nn

    class Tokens(nn.Module):
        """Vectors of tokens, scaled, for a transformer with sinusoidal positions; backwards the logits."""

        def __init__(self, size, dim, *, positions=False, logits=True, dropout=0.0):
            super().__init__()
            self.table, self.scale = nn.Embedding(size, dim), sqrt(dim)
            nn.init.normal_(self.table.weight, std=dim**-0.5)
            self.bias = nn.Parameter(torch.zeros(size)) if logits else None
            self.drop = nn.Dropout(dropout)
            angles = torch.arange(128)[:, None] * torch.exp(torch.arange(0, dim, 2) * (-log(10_000.0) / dim))
            waves = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
            self.register_buffer("waves", waves if positions else None)

        def forward(self, tokens):
            x = self.scale * self.table(tokens)
            return self.drop(x if self.waves is None else x + self.waves[: x.shape[1]])

        def logits(self, x):
            return nn.functional.linear(x, self.table.weight, self.bias)

    def stack(kind, dropout, activation, hidden_dim, **options):
        """Blocks of a transformer without dropout of the attention, which ours has not by default."""
        dim, heads, depth = (arguments[name] for name in ("embed_dim", "num_heads", "depth"))
        layer = getattr(nn, f"Transformer{kind}Layer")(
            dim, heads, hidden_dim, dropout, activation, batch_first=True, norm_first=True
        )
        blocks = getattr(nn, f"Transformer{kind}")(layer, depth, nn.LayerNorm(dim), **options)
        for part in blocks.modules():
            if isinstance(part, nn.MultiheadAttention):
                part.dropout = 0.0
        return blocks

    class Classifier(nn.Module):
        def __init__(self, vocabulary_size, num_classes, embed_dim, units, depth, dropout=0.3):
            super().__init__()
            self.tokens = Tokens(vocabulary_size, embed_dim, logits=False)
            between = dropout if depth > 1 else 0.0
            self.encoder = nn.LSTM(embed_dim, units, depth, bidirectional=True, batch_first=True, dropout=between)
            self.hidden, self.context = nn.Linear(2 * units, 2 * units), nn.Linear(2 * units, 1, bias=False)
            self.drop, self.head = nn.Dropout(dropout), nn.Linear(2 * units, num_classes)

        def forward(self, tokens):
            h, _ = self.encoder(self.tokens(tokens))
            scores = self.context(self.hidden(h).tanh())[..., 0].masked_fill(tokens == 0, -1e30)
            pooled = (scores.softmax(-1)[:, None] @ h)[:, 0]
            return self.head(self.drop(pooled))

    class RecurrentLanguageModel(nn.Module):
        def __init__(self, vocabulary_size, embed_dim, units, depth, mask_zero, dropout=0.2):
            super().__init__()
            self.tokens = Tokens(vocabulary_size, embed_dim)
            between = dropout if depth > 1 else 0.0
            self.recurrent = nn.LSTM(embed_dim, units, depth, batch_first=True, dropout=between)
            self.drop, self.projection = nn.Dropout(dropout), nn.Linear(units, embed_dim)

        def forward(self, tokens):
            return self.tokens.logits(self.projection(self.drop(self.recurrent(self.tokens(tokens))[0])))

    class TransformerLanguageModel(nn.Module):
        def __init__(self, vocabulary_size, embed_dim, dropout=0.2, **_):
            super().__init__()
            self.tokens = Tokens(vocabulary_size, embed_dim, positions=True, dropout=dropout)
            self.blocks = stack("Encoder", dropout, "gelu", 4 * embed_dim, enable_nested_tensor=False)

        def forward(self, tokens):
            mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
            return self.tokens.logits(self.blocks(self.tokens(tokens), mask, is_causal=True))

    class RecurrentTranslator(nn.Module):
        def __init__(self, source_vocabulary_size, target_vocabulary_size, embed_dim, units, dropout=0.2):
            super().__init__()
            self.source, self.target = (
                nn.Embedding(size, embed_dim) for size in (source_vocabulary_size, target_vocabulary_size)
            )
            self.encoder = nn.GRU(embed_dim, units, bidirectional=True, batch_first=True)
            self.first = nn.Linear(2 * units, units)
            self.keys, self.query = nn.Linear(2 * units, units), nn.Linear(units, units, bias=False)
            self.v, self.cell = nn.Linear(units, 1, bias=False), nn.GRUCell(embed_dim + 2 * units, units)
            self.drop, self.logits = nn.Dropout(dropout), nn.Linear(3 * units + embed_dim, target_vocabulary_size)

        def forward(self, source, target):
            memory, last = self.encoder(self.drop(self.source(source)))
            memory, s = self.drop(memory), self.first(torch.cat([*last], -1)).tanh()
            keys, padding, x, outputs = self.keys(memory), source == 0, self.drop(self.target(target)), []
            for t in range(target.shape[1]):
                scores = self.v((keys + self.query(s)[:, None]).tanh())[..., 0].masked_fill(padding, -1e9)
                context = (scores.softmax(-1)[:, None] @ memory)[:, 0]
                s = self.cell(torch.cat([x[:, t], context], -1), s)
                outputs.append(torch.cat([s, context, x[:, t]], -1))
            return self.logits(self.drop(torch.stack(outputs, 1)))

    class TransformerTranslator(nn.Module):
        def __init__(self, source_vocabulary_size, target_vocabulary_size, embed_dim, hidden_dim, dropout=0.1, **_):
            super().__init__()
            options = {"positions": True, "dropout": dropout}
            self.source = Tokens(source_vocabulary_size, embed_dim, logits=False, **options)
            self.target = Tokens(target_vocabulary_size, embed_dim, **options)
            self.encoder = stack("Encoder", dropout, "relu", hidden_dim, enable_nested_tensor=False)
            self.decoder = stack("Decoder", dropout, "relu", hidden_dim)

        def forward(self, source, target):
            padding = source == 0
            memory = self.encoder(self.source(source), src_key_padding_mask=padding)
            mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
            x = self.decoder(self.target(target), memory, mask, memory_key_padding_mask=padding, tgt_is_causal=True)
            return self.target.logits(x)

    recurrent = "recurrent" if "units" in arguments else "transformer"
    models = {
        "TextClassifier": Classifier,
        "RecurrentTranslator": RecurrentTranslator,
        "TransformerTranslator": TransformerTranslator,
        "LanguageModel": {"recurrent": RecurrentLanguageModel, "transformer": TransformerLanguageModel}[recurrent],
    }
    return models[function](**arguments)


# Decoding and serving


def decoding(title: str, quick: bool) -> dict:
    """A beam search with caches and without, of exactly `LENGTH` tokens."""
    import kseq
    from kseq.inference import UncachedDecoder, beam_search, decoder

    function, arguments, (_, width) = settings(title, quick)
    model = getattr(kseq.models, function)(**arguments)
    (source, _), _ = batch(function, arguments, (SENTENCES, width))
    length = 8 if quick else LENGTH
    return {
        name: lambda driven=driven: beam_search(driven, source, length, beam_size=BEAM, end=None)
        for name, driven in {"cached": decoder(model), "uncached": UncachedDecoder(model)}.items()
    }


def serving(title: str, quick: bool) -> dict:
    """The SavedModel and `translate`, on the same sentences, by their number."""
    import numpy as np
    import tensorflow as tf

    import kseq
    from kseq.export.saved_model import write

    verses, length = kseq.data.verses(), 8 if quick else TOKENS
    function, arguments, _ = settings(title, quick)
    tokenizers = [
        kseq.data.Tokenizer.train(texts[::30] if quick else texts, "subword", arguments[f"{side}_vocabulary_size"])
        for side, texts in zip(("source", "target"), verses.train, strict=True)
    ]
    for side, tokenizer in zip(("source", "target"), tokenizers, strict=True):
        arguments = arguments | {f"{side}_vocabulary_size": tokenizer.vocabulary_size}
    model = getattr(kseq.models, function)(**arguments)
    layers = {layer.name: layer for layer in model.layers}
    bias = layers.get("logits", layers["target_embedding"]).bias
    bias.assign(np.where(np.arange(bias.shape[0]) == kseq.data.tokenizer.END, -100.0, 0.0))
    card = {"source": tokenizers[0].get_config(), "target": tokenizers[1].get_config(), "max_length": length}
    with tempfile.TemporaryDirectory() as folder:
        write(model, {"translation": card | {"beam_size": BEAM}}, Path(folder))
        loaded = tf.saved_model.load(folder)
    runs = {}
    for count in SERVED:
        texts = [str(text) for text in verses.test[0][:count]]
        runs[f"{count}/saved_model"] = lambda texts=texts: loaded.signatures["serving_default"](tf.constant(texts))[
            "text"
        ].numpy()
        runs[f"{count}/keras"] = lambda texts=texts: kseq.inference.translate(
            model, texts, *tokenizers, max_length=length, source_length=length, beam_size=BEAM
        )
    return runs


# Tables


def tables(figures: dict, quick: bool) -> list[str]:
    """Markdown of the parts that were measured."""
    tokens = {title: valid_tokens(title, quick) for title in MODELS}
    parts = {"training": partial(training_table, tokens), "decoding": decoding_table, "serving": serving_table}
    found = {part: {b: by[part] for b, by in figures.items() if part in by} for part in parts}
    return [parts[part](seconds) for part, seconds in found.items() if seconds]


def valid_tokens(title: str, quick: bool) -> int:
    """How many tokens that are not padding a batch has, source and target together."""
    inputs, _ = batch(*settings(title, quick))
    return sum(int((array != 0).sum()) for array in (inputs if isinstance(inputs, list) else [inputs]))


def training_table(tokens: dict, seconds: dict) -> str:
    """A line a model: the ratio to plain PyTorch in the same process, and tokens a second."""
    first = "| tokens per second in training "
    lines = [first + "".join(f"| {backend}: to PyTorch (each second) " for backend in seconds) + "| plain PyTorch |"]
    lines.append("|---|" + "---|" * (len(seconds) + 1))
    for title in MODELS:
        ours, native = ([found[f"{title}/{who}"] for found in seconds.values()] for who in ("ours", NATIVE))
        cells = [f"{n / o:.2f} ({tokens[title] / o:,.0f})" for o, n in zip(ours, native, strict=True)]
        lines.append(f"| {title} | " + " | ".join([*cells, f"{tokens[title] / min(native):,.0f}"]) + " |")
    return "\n".join(lines)


def decoding_table(seconds: dict) -> str:
    """A line a translator: how often the cached search runs in the time of the other, and of half of that time."""
    lines = [f"| beam of {BEAM} " + "".join(f"| {backend}: to uncached (half), time " for backend in seconds) + "|"]
    lines.append("|---|" + "---|" * len(seconds))
    for title in TRANSLATORS:
        cells = []
        for found in seconds.values():
            cached, uncached = (found[f"{title}/{who}"] for who in ("cached", "uncached"))
            cells.append(f"{uncached / cached:.1f} ({uncached / 2 / cached:.1f}), {1e3 * cached:,.0f} ms")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def serving_table(seconds: dict) -> str:
    """A line a translator and batch: sentences a second."""
    (found,) = seconds.values()
    lines = ["| sentences per second | batch | SavedModel | `translate` |", "|---|---|---|---|"]
    for title in TRANSLATORS:
        for count in SERVED:
            cells = (f"{count / found[f'{title}/{count}/{who}']:,.1f}" for who in ("saved_model", "keras"))
            lines.append(f"| {title} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
