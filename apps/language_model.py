"""Predict the next character, and so write text: how far back do n-grams, recurrent networks and transformers look?

A language model of characters is scored in bits per character, the mean of -log2 p(character | all before it) on
chapters that it has not seen: what a text compressed with it would take. Here are the lecture's recurrent networks
(vanilla, GRU, LSTM), trained by truncated back-propagation through time with the state carried from window to window,
and a causal transformer, all of the same number of parameters, beside Kneser-Ney n-grams, which only count. The text is
"Pride and Prejudice" and "Emma". Expect about 1.6 bits: the GRU and the LSTM a little better than the n-grams, the
vanilla network a little worse, and the transformer far behind, which needs to read more than five times a short text.

    kseq run apps/language_model.py --export
    kseq predict runs/language_model/<date>/saved_model "Mr. Darcy "

Any text file is learnt with `--data FILE` (UTF-8; its last tenth is held out).
"""

from itertools import pairwise
from typing import Literal, NamedTuple

import keras
import numpy as np
from rich.console import Console
from rich.table import Column, Table

import kseq
from kseq.atomic import write_text
from kseq.data.tokenizer import END, PADDING, START, UNKNOWN
from kseq.errors import InputError
from kseq.inference import continue_text
from kseq.training.history import read_history

TITLES = {"rnn": "vanilla RNN", "gru": "GRU", "transformer": "transformer", "lstm": "LSTM"}
RATES = {"rnn": 2e-3, "gru": 6e-3, "transformer": 3e-3, "lstm": 8e-3}  # learning rates, after a few short trials
EMBED_DIM = 64  # of the recurrent networks
LARGEST_ORDER = 9  # of the n-grams that are tried
NAMING = np.log2(0x110000)  # bits that say which one of Unicode's characters an unknown one is
TEMPERATURES = (0.4, 0.7, 1.0)


def main(
    run: kseq.training.Run,
    *,
    data: str = "austen",
    cell: Literal["lstm", "gru", "rnn", "transformer"] = "lstm",
    parameters: int = 250_000,
    blocks: int = 3,
    context: int = 128,
    dropout: float = 0.0,
    prompt: str = "She was ",
) -> None:
    # Data: a chapter is START, its characters, END; to train on, one behind the other
    corpus = kseq.data.austen() if data == "austen" else kseq.data.read_text(data)
    splits = corpus.train, corpus.validation, corpus.test
    if run.quick:
        splits = [tuple(text[:2000] for text in texts[:8]) for texts in splits]
        parameters, blocks, context = min(parameters, 10_000), 1, min(context, 50)
    if (least := min(sum(map(len, texts)) for texts in splits)) < context:
        raise InputError(
            f"--data {data}: {least:,} characters in a split; give a text with {context:,} or more in each"
        )
    tokenizer = kseq.data.Tokenizer.train(splits[0], "character", 300)
    train, validation, test = ([tokenizer([text], start=True, end=True)[0] for text in texts] for texts in splits)
    stream, held_out = ([np.concatenate(part) for part in pairs(passages)] for passages in (train, validation))

    def build(cell: str, **options) -> keras.Model:
        sizes = sizes_for(cell, parameters, tokenizer.vocabulary_size, blocks)
        return kseq.models.LanguageModel(
            tokenizer.vocabulary_size, cell=cell, dropout=dropout, mask_zero=False, **sizes, **options
        )

    def fit(cell: str, name: str) -> keras.Model:
        """Train a model, keep its best epoch; the weights come back in one that keeps no state between calls."""
        if cell == "transformer":
            model, callbacks = build(cell), []
            batches = ShiftedWindows(*stream, run.batch_size, context, run.seed)
            watched = sliding_windows(validation, context)
        else:
            model = build(cell, stateful=True, batch_size=run.batch_size)
            batches, watched = (
                kseq.training.Windows.from_stream(*part, run.batch_size, context) for part in (stream, held_out)
            )
            callbacks = [kseq.training.CarryState(batches, watched)]
        schedule = kseq.training.warmup_cosine(RATES[cell], run.epochs * len(batches))
        model.compile(
            optimizer=keras.optimizers.AdamW(schedule, weight_decay=1e-2, global_clipnorm=1.0),
            loss=kseq.training.SequenceCrossentropy(),
            metrics=[kseq.training.BitsPerToken()],
        )
        print(f"\n{TITLES[cell]}, {model.count_params():,} parameters", flush=True)
        arguments = run.fit_arguments(model, batches, name=name)
        arguments["callbacks"] += callbacks
        model.fit(batches, validation_data=watched, validation_batch_size=run.batch_size, **arguments)
        run.load_best(model, name)
        trained = build(cell)
        trained.set_weights(model.get_weights())
        return trained

    def bits_of(cell: str, model: keras.Model, passages: list[np.ndarray]) -> list[np.ndarray]:
        """The bits of each character of each passage, read from its beginning."""
        if cell == "transformer":
            return bits_by_sliding(model, passages, context)
        reader = build(cell, stateful=True, batch_size=len(passages))
        reader.set_weights(model.get_weights())
        return bits_by_carrying(reader, passages)

    # Models: the main one, and what it is compared with
    test = [passage[:-1] for passage in test]  # characters are counted, not the ends
    length = min(2 * context, max(map(len, test)) // 2)
    windows = random_windows(test, length, 100 if run.quick else 2000, run.seed)
    metrics, by_context = {}, {}
    if run.baselines:
        n_grams = KneserNey(train, tokenizer.vocabulary_size, LARGEST_ORDER)
        chosen = [mean(n_grams.bits([passage[:-1] for passage in validation], order)) for order in n_grams.orders]
        order, title = n_grams.orders[int(np.argmin(chosen))], "n-grams, Kneser-Ney"
        metrics[title] = {"parameters": n_grams.size(order), "order": order, "validation": [min(chosen)]}
        metrics[title] |= score(n_grams.bits(test, order))
        read = np.pad(windows, ((0, 0), (1, 0)), constant_values=START)  # the first token of a passage is not counted
        by_context[title] = {
            n - 1: float(np.mean([bits[-1] for bits in n_grams.bits(list(read[:, : n + 1]), n)]))
            for n in n_grams.orders[1:]
        }
    cells = [other for other in TITLES if other != cell] if run.baselines else []
    for kind in (*cells, cell):
        name = "model" if kind == cell else kind
        model = fit(kind, name)
        history = read_history(run.folder / ("history.csv" if kind == cell else f"history_{kind}.csv"))
        metrics[TITLES[kind]] = {"parameters": model.count_params(), "seconds per epoch": np.mean(history["seconds"])}
        metrics[TITLES[kind]] |= score(bits_of(kind, model, test)) | {"validation": history["val_bits"]}
        given = windows[:, : context + 1] if kind == "transformer" else windows
        by_context[TITLES[kind]] = by_length(model, given)

    # Evaluation
    unknown = sum(int((passage == UNKNOWN).sum()) for passage in test)
    count = sum(len(passage) - 1 for passage in test)
    print_report(metrics, f"{count:,} characters of {len(test)} held-out passages, {unknown} of them unknown")
    run.save_json("metrics.json", metrics | {"bits by characters of context": by_context})
    run.save_figure("curve.png", plot_curves(metrics, len(stream[0])))
    run.save_figure("memory.png", plot_memory(by_context, len(windows)))
    longest = context if cell == "transformer" else 400
    ends = {"start": START, "end": END}
    options = {"max_length": max(1, longest - len(prompt)), "seed": run.seed, **ends}
    samples = [
        f"[temperature {temperature}]\n{prompt}"
        + continue_text(model, prompt, tokenizer, temperature=temperature, **options)
        for temperature in TEMPERATURES
    ]
    print("\n\n".join(samples))
    write_text(run.folder / "samples.txt", "\n\n".join(samples) + "\n")

    # The model file, and what serves it
    card = {"tokenizer": tokenizer.get_config(), "max_length": longest, "temperature": 0.7, **ends}
    path = run.save(model, {"task": "language model", "continuation": card})
    if run.export:
        folder, record = kseq.export.export(path)
        print(f"SavedModel in {folder}, at most {record['largest_difference']:.1e} from the model")


# Sizes


def parameter_count(cell: str, size: int, vocabulary_size: int, blocks: int) -> int:
    """Of a `LanguageModel` with one recurrent layer of `size` units, or a transformer of this `embed_dim`."""
    if cell == "transformer":
        return (vocabulary_size + blocks * (12 * size + 13) + 2) * size + vocabulary_size
    gates, biases = {"rnn": (1, 1), "gru": (3, 2), "lstm": (4, 1)}[cell]
    recurrent = gates * size * (size + EMBED_DIM + biases)
    return recurrent + (size + 1) * EMBED_DIM + vocabulary_size * (EMBED_DIM + 1)  # and projection, table with bias


def sizes_for(cell: str, parameters: int, vocabulary_size: int, blocks: int) -> dict:
    """The arguments of a `LanguageModel` that has nearly as many parameters."""
    choices = [size for size in range(8, 4096, 8) if size != EMBED_DIM or cell == "transformer"]
    size = min(choices, key=lambda size: abs(parameter_count(cell, size, vocabulary_size, blocks) - parameters))
    if cell == "transformer":
        return {"embed_dim": size, "depth": blocks, "num_heads": 4}
    return {"embed_dim": EMBED_DIM, "units": size, "depth": 1}


# Windows of the transformer, which carries no state


def pairs(passages: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What is read and what is to be predicted, of each passage."""
    return [passage[:-1] for passage in passages], [passage[1:] for passage in passages]


class ShiftedWindows(keras.utils.PyDataset):
    """Windows of a stream in an order by chance, cut at other places in each epoch."""

    def __init__(self, inputs: np.ndarray, targets: np.ndarray, batch_size: int, length: int, seed: int):
        super().__init__()
        self.inputs, self.targets, self.batch_size, self.length, self.seed = inputs, targets, batch_size, length, seed
        self.count = len(inputs) // length - 1  # one is lost to the shift
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        random = np.random.default_rng((self.seed, epoch))
        self.starts = random.integers(self.length) + self.length * random.permutation(self.count)

    def __len__(self) -> int:
        return max(1, self.count // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        starts = self.starts[index * self.batch_size : (index + 1) * self.batch_size]
        places = starts[:, None] + np.arange(self.length)
        return self.inputs[places], self.targets[places]


def sliding_windows(passages: list[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows that overlap by half, `(windows, length)`, in which every token but the first is a target once.

    The targets of the first half of a window are 0, for they were those of the window before, but at the beginning of
    a passage. So each is predicted from at least `length // 2` tokens, or from all that there are.
    """
    rows = []
    for passage in passages:
        for start in range(0, max(1, len(passage) - 1 - length // 2), length - length // 2):
            row = np.full(length + 1, PADDING)
            piece = passage[start : start + length + 1]
            row[: len(piece)] = piece
            targets = row[1:].copy()
            targets[: length // 2 if start else 0] = PADDING
            rows.append((row[:-1], targets))
    inputs, targets = (np.array(part, "int32") for part in zip(*rows, strict=True))
    return inputs, targets


# Evaluation: every character once


def bits_by_carrying(model: keras.Model, passages: list[np.ndarray], window: int = 512) -> list[np.ndarray]:
    """The bits of each token but the first, by a stateful model with a row for each passage."""
    rows = np.full((len(passages), max(map(len, passages))), PADDING)
    for row, passage in zip(rows, passages, strict=True):
        row[: len(passage)] = passage
    windows = kseq.training.Windows(rows[:, :-1], rows[:, 1:], len(rows), window, remainder="mask")
    bits = [bits_of_tokens(model.predict_on_batch(windows[i][0]), windows[i][1]) for i in range(len(windows))]
    bits = np.concatenate(bits, axis=1)
    return [row[: len(passage) - 1] for row, passage in zip(bits, passages, strict=True)]


def bits_by_sliding(model: keras.Model, passages: list[np.ndarray], length: int) -> list[np.ndarray]:
    """The same by a model that reads at most `length` tokens."""
    bits = []
    for passage in passages:
        inputs, targets = sliding_windows([passage], length)
        parts = [slice(start, start + 64) for start in range(0, len(inputs), 64)]
        found = [bits_of_tokens(model.predict_on_batch(inputs[part]), targets[part]) for part in parts]
        bits.append(np.concatenate(found)[targets != PADDING])
    return bits


def bits_of_tokens(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log2 p of each target; an unknown character also costs what it takes to say which it is."""
    from scipy.special import log_softmax

    log_p = log_softmax(np.asarray(logits, "float64"), axis=-1)
    bits = -np.take_along_axis(log_p, targets[..., None].astype("int64"), axis=-1)[..., 0] / np.log(2)
    return bits + NAMING * (targets == UNKNOWN)


def mean(bits: list[np.ndarray]) -> float:
    """Of all characters."""
    return float(np.concatenate(bits).mean())


def score(bits: list[np.ndarray]) -> dict:
    """The mean of all characters, and of each passage."""
    return {"bits per character": mean(bits), "passages": [float(row.mean()) for row in bits]}


def random_windows(passages: list[np.ndarray], length: int, count: int, seed: int) -> np.ndarray:
    """`count` pieces of `length + 1` characters from the middle of passages."""
    places = [(passage, start) for passage in passages for start in range(1, len(passage) - length)]
    chosen = np.random.default_rng(seed).choice(len(places), count)
    return np.stack([places[i][0][places[i][1] :][: length + 1] for i in chosen])


def by_length(model: keras.Model, windows: np.ndarray) -> dict[int, float]:
    """The mean bits of a character behind 1, 2, … others of its window and nothing before; lengths in groups."""
    parts = [windows[start : start + 100] for start in range(0, len(windows), 100)]
    bits = np.concatenate([bits_of_tokens(model.predict_on_batch(part[:, :-1]), part[:, 1:]) for part in parts])
    edges = np.unique(np.geomspace(1, bits.shape[1] + 1, 3 * bits.shape[1].bit_length()).round().astype(int))
    return {
        float(np.sqrt(low * (high - 1))): float(bits[:, low - 1 : high - 1].mean()) for low, high in pairwise(edges)
    }


# The baseline


class KneserNey:
    """Interpolated Kneser-Ney n-grams of tokens, of all orders up to the largest.

        P_n(x | h) = (max(c(h x) - D_n, 0) + D_n t(h) P_{n-1}(x | h')) / c(h),   D_n = n_1 / (n_1 + 2 n_2)

    where h' is h without its first token, c(h) = Σ c(h x), t(h) is how many x follow h, and n_1 and n_2 are how many
    n-grams there are once and twice. c counts n-grams at the highest order, and below it how many different tokens
    stand in front of one. An h that was never seen has P_{n-1}; P_0 is uniform over all tokens but padding and START.
    Source: Kneser & Ney 1995, as in Chen & Goodman 1999, section 2.7.

    An n-gram is kept as one number, its tokens the digits.
    """

    def __init__(self, passages: list[np.ndarray], vocabulary_size: int, largest_order: int):
        self.base = vocabulary_size
        self.orders = range(1, min(largest_order, int(63 / np.log2(vocabulary_size))) + 1)
        grams = np.concatenate([self._grams(passage) for passage in passages])
        self.top = {n: Counts.of(grams % self.base**n, self.base) for n in self.orders}
        self.below = {n: Counts.of(self.top[n + 1].grams % self.base**n, self.base) for n in self.orders[:-1]}

    def _grams(self, passage: np.ndarray) -> np.ndarray:
        """The n-gram of the largest order that ends in each token but the first, START repeated in front."""
        order = self.orders[-1]
        padded = np.concatenate([np.full(order - 1, START), passage[1:]])
        digits = np.lib.stride_tricks.sliding_window_view(padded.astype("int64"), order)
        return digits @ self.base ** np.arange(order - 1, -1, -1)

    def probabilities(self, passage: np.ndarray, order: int) -> np.ndarray:
        """P of each token but the first, from the `order - 1` before it."""
        grams = self._grams(passage)
        p = np.full(len(grams), 1 / (self.base - 2))
        for n in range(1, order + 1):
            counts = (self.top if n == order else self.below)[n]
            gram = grams % self.base**n
            count = look_up(counts.grams, counts.numbers, gram)
            total, followers = (
                look_up(counts.heads, values, gram // self.base) for values in (counts.totals, counts.followers)
            )
            seen = np.maximum(count - counts.discount, 0) + counts.discount * followers * p
            p = np.where(total > 0, seen / np.maximum(total, 1), p)
        return p

    def bits(self, passages: list[np.ndarray], order: int) -> list[np.ndarray]:
        """The bits of each token but the first, of each passage."""
        return [NAMING * (row[1:] == UNKNOWN) - np.log2(self.probabilities(row, order)) for row in passages]

    def size(self, order: int) -> int:
        """How many n-grams the model of this order counts."""
        return sum(len((self.top if n == order else self.below)[n].grams) for n in range(1, order + 1))


class Counts(NamedTuple):
    """Distinct n-grams and their numbers c(h x); distinct h, their c(h) and t(h); all sorted; and D."""

    grams: np.ndarray
    numbers: np.ndarray
    heads: np.ndarray
    totals: np.ndarray
    followers: np.ndarray
    discount: float

    @classmethod
    def of(cls, grams: np.ndarray, base: int) -> "Counts":
        grams, numbers = np.unique(grams, return_counts=True)
        heads, first, followers = np.unique(grams // base, return_index=True, return_counts=True)
        once, twice = max(1, np.sum(numbers == 1)), np.sum(numbers == 2)
        return cls(grams, numbers, heads, np.add.reduceat(numbers, first), followers, once / (once + 2 * twice))


def look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values of sorted keys, 0 where there is none."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)


# Reports and pictures


def print_report(metrics: dict[str, dict], title: str) -> None:
    """The models beside each other."""
    table = Table(Column("model", no_wrap=True), "parameters", "bits per character", "seconds per epoch", title=title)
    for name, row in metrics.items():
        seconds = f"{row['seconds per epoch']:.0f}" if "seconds per epoch" in row else ""
        shown = f"{name}, order {row['order']}" if "order" in row else name
        count = f"{row['parameters']:,}" + (" counts" if "order" in row else "")
        table.add_row(shown, count, f"{row['bits per character']:.3f}", seconds)
    Console().print(table)


def plot_curves(metrics: dict[str, dict], characters: int):
    """Draw the bits per character of the validation text over the characters read."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for name, row in metrics.items():
        if "order" in row:
            axis.axhline(row["validation"][0], color="black", linestyle=":", label=f"{name}, order {row['order']}")
        else:
            read = characters / 1e6 * np.arange(1, len(row["validation"]) + 1)
            axis.plot(read, row["validation"], marker="o", markersize=4, label=name)
    axis.set(xlabel="million characters read", ylabel="bits per character", title="Validation text while training")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    return figure


def plot_memory(by_context: dict[str, dict], count: int):
    """Draw the bits per character over how many characters before it a model was given."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for name, row in by_context.items():
        style = {"color": "black", "linestyle": ":", "marker": "s"} if name not in TITLES.values() else {"marker": "o"}
        axis.plot(list(row), list(row.values()), markersize=4, linewidth=1.4, label=name, **style)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_locator(FixedLocator([1, 1.5, 2, 2.5, 3, 4, 5, 6]))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    title = f"How much of what came before is used, {count:,} places"
    axis.set(xlabel="characters given", ylabel="bits per character", title=title)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    return figure


if __name__ == "__main__":
    kseq.training.launch(main, epochs=5, batch_size=16)
