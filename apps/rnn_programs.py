"""What recurrent networks can compute, and what they can learn: two programs written by hand, and the adding problem.

Part 1, the lecture's programs. A linear recurrent unit h_t = U x_t + W h_{t−1} with U = W = 1 is the running sum; with
U = [1, −1] and a step behind it, it tells whether the sum of feature 1 is larger than that of feature 2. Written by
hand, both are exact at any length. Then the same networks learn their weights from sequences of 20 steps. Expect the
running sum to be right at 1,000 steps too, the comparison nearly so at 20 and worse the longer the sequence.

Part 2, the adding problem: among T numbers two are marked, and their sum is asked for. A vanilla network, the IRNN
(ReLU, W = I), GRU and LSTM are trained at growing T, with clipped gradients and without. Expect GRU and LSTM to solve
it up to T = 400, the GRU in 600 steps; the IRNN to learn it less exactly, and at large T only with clipping; the
vanilla network to stay at chance from T = 200. Clipping is an argument of every Keras optimizer:
`keras.optimizers.Adam(global_clipnorm=1.0)`.

    kseq run apps/rnn_programs.py --backend jax
    kseq run apps/rnn_programs.py --lengths 50,100 --clip-norm 0.5

It takes about half an hour on one core. An epoch is 100 steps of fresh sequences, of which none comes twice; the adding
problem ends early once the validation error is below 0.001. `--export` and `--no-baselines` mean nothing here.
"""

from collections.abc import Callable

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import kseq
from kseq.data.adding_problem import adding_problem
from kseq.errors import InputError, shorten
from kseq.training.history import read_history

SHORT, LONG = 20, 1000  # the programs are learnt at the one length and tested at both
CHANCE = 1 / 6  # mean squared error of answering 1, the mean, in the adding problem
LEARNT = CHANCE / 10  # below it a network counts as having learnt the problem
SOLVED = 1e-3  # below it training ends
STEPS = 100  # in an epoch
TRAINING, VALIDATION, TEST = range(3)  # no sequence of one is in another: part of the seed
CELLS = ("RNN", "IRNN", "GRU", "LSTM")


def main(run: kseq.training.Run, *, lengths: str = "50,100,200,400", units: int = 100, clip_norm: float = 1.0) -> None:
    lengths = parse_lengths(lengths)
    if not clip_norm > 0:
        raise InputError(f"--clip-norm {clip_norm}: give the norm above which gradients are clipped, more than 0")
    if run.quick:
        lengths, units = [min(lengths[0], 8)], min(units, 8)

    def fit(model: keras.Model, task: Callable, length: int, name: str, until: float = 0.0) -> dict:
        """Train a compiled model on a task, keep its best epoch, return its history."""
        train = FreshBatches(task, length, run.batch_size, STEPS, run.seed)
        arguments = run.fit_arguments(model, train, name=name)
        arguments["callbacks"] += [keras.callbacks.TerminateOnNaN(), StopBelow(until)]
        path = run.folder / f"history_{name}.csv"
        if not (path.exists() and is_over(read_history(path)["val_loss"], until)):
            print(f"\n{name}", flush=True)
            validation = task(500, length, (run.seed, VALIDATION))
            model.fit(train, validation_data=validation, validation_batch_size=500, **arguments)
        history = read_history(path)
        if np.isfinite(history["val_loss"]).any():
            run.load_best(model, name)
        return history

    # Part 1: programs, written by hand and learnt
    programs, models = {}, {}
    for name, (task, network, weights, loss, errors) in PROGRAMS.items():
        written, learnt = network(), network(run.seed)
        written.set_weights([np.array(weight, "float32") for weight in weights])
        schedule = keras.optimizers.schedules.CosineDecay(0.03, run.epochs * STEPS)
        learnt.compile(keras.optimizers.Adam(schedule), loss)
        fit(learnt, task, SHORT, name.replace(" ", "_"))
        models[name] = {"written": written, "learnt": learnt}
        programs[name] = {
            key: {
                "weights": [weight.tolist() for weight in model.get_weights()],
                "errors": {length: errors(model, length, (run.seed, TEST)) for length in (SHORT, LONG)},
            }
            for key, model in models[name].items()
        }
    print_programs(programs)

    # Part 2: the adding problem
    rows = []
    for length in lengths:
        test = adding_problem(500 if run.quick else 2000, length, (run.seed, TEST))
        for cell in CELLS:
            for clip in (clip_norm, None):
                name = f"T{length}_{cell}_{'clipped' if clip else 'free'}".lower()
                model = adding_network(cell, units, length, run.seed)
                model.compile(keras.optimizers.Adam(learning_rate(cell, length), global_clipnorm=clip), "mse")
                history = fit(model, adding_problem, length, name, until=SOLVED)
                mse = float(model.evaluate(*test, batch_size=500, verbose=0))
                validation = [loss if np.isfinite(loss) else None for loss in history["val_loss"]]
                row = {"length": length, "cell": cell, "clip_norm": clip, "steps": STEPS * len(validation)}
                row |= {"test_mse": mse if np.isfinite(mse) else None, "learnt": mse < LEARNT}
                rows.append(row | {"validation_mse": validation})
    print_adding(rows)

    run.save_json("metrics.json", {"programs": programs, "chance": CHANCE, "adding_problem": rows})
    run.save_figure("rnn_programs.png", plot_programs(models, (run.seed, TEST)))
    run.save_figure("rnn_programs_adding.png", plot_adding(rows))


# The two programs of the lecture. Their numbers are multiples of 1/256, whose sums float32 holds without rounding.


def running_sum(samples: int, length: int, seed) -> tuple[np.ndarray, np.ndarray]:
    """Numbers in [−1, 1], `(samples, length, 1)`; targets y_t = x_1 + … + x_t, of the same shape."""
    x = np.random.default_rng(seed).integers(-256, 257, (samples, length, 1)) / 256
    return x.astype("float32"), x.cumsum(axis=1).astype("float32")


def comparison(samples: int, length: int, seed) -> tuple[np.ndarray, np.ndarray]:
    """Numbers in [0, 1], `(samples, length, 2)`; targets `(samples, 1)`, 1 where the sum of feature 1 is larger."""
    x = np.random.default_rng(seed).integers(0, 257, (samples, length, 2)) / 256
    totals = x.sum(axis=1)
    return x.astype("float32"), (totals[:, :1] > totals[:, 1:]).astype("float32")


def linear_rnn(seed: int, **arguments) -> keras.layers.Layer:
    """One unit, h_t = U x_t + W h_{t−1}; starts from U and W drawn uniformly from [−0.5, 0.5]."""
    start = [keras.initializers.RandomUniform(-0.5, 0.5, seed=2 * seed + i) for i in range(2)]
    return kseq.layers.SimpleRNN(
        1,
        activation="linear",
        use_bias=False,
        kernel_initializer=start[0],
        recurrent_initializer=start[1],
        name="recurrence",
        **arguments,
    )


def sum_network(seed: int = 0) -> keras.Model:
    """y_t = h_t. Weights: U (1, 1), W (1, 1)."""
    x = keras.Input((None, 1))
    return keras.Model(x, linear_rnn(seed, return_sequences=True)(x))


def comparison_network(seed: int = 0) -> keras.Model:
    """The logit v h_T, of which the sign is the answer. Weights: U (2, 1), W (1, 1), v (1, 1)."""
    x = keras.Input((None, 2))
    return keras.Model(x, keras.layers.Dense(1, use_bias=False, name="readout")(linear_rnn(seed)(x)))


def sum_errors(model: keras.Model, length: int, seed) -> dict[str, float]:
    """Of the running sum: the root mean square, the largest, and the root mean square of always answering 0."""
    x, y = running_sum(1000, length, seed)
    error = model.predict(x, batch_size=1000, verbose=0) - y
    rms = {"rms": error, "trivial": y}
    return {name: float(np.sqrt(np.mean(np.square(e, dtype="float64")))) for name, e in rms.items()} | {
        "largest": float(np.abs(error).max())
    }


def comparison_errors(model: keras.Model, length: int, seed) -> dict[str, float]:
    """Of the comparison: the share of wrong answers, and that of always giving the more frequent answer."""
    x, y = comparison(1000, length, seed)
    answers = model.predict(x, batch_size=1000, verbose=0) > 0  # the step
    return {"wrong": float(np.mean(answers != y)), "trivial": float(min(y.mean(), 1 - y.mean()))}


PROGRAMS = {  # task, network, weights written by hand, loss to learn them, errors
    "running sum": (running_sum, sum_network, ([[1]], [[1]]), "mse", sum_errors),
    "larger sum": (
        comparison,
        comparison_network,
        ([[1], [-1]], [[1]], [[1]]),
        keras.losses.BinaryCrossentropy(from_logits=True),
        comparison_errors,
    ),
}


# The adding problem


def adding_network(cell: str, units: int, length: int, seed: int) -> keras.Model:
    """A recurrent layer and a linear read-out of its last state; the same weights for the same seed."""
    keras.utils.set_random_seed(seed)
    layer = {
        "RNN": lambda: kseq.layers.SimpleRNN(units),
        "IRNN": lambda: kseq.layers.SimpleRNN(
            units,
            activation="relu",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),
            recurrent_initializer="identity",
        ),
        "GRU": lambda: kseq.layers.GRU(units),
        "LSTM": lambda: kseq.layers.LSTM(units),
    }[cell]()
    x = keras.Input((length, 2))
    return keras.Model(x, keras.layers.Dense(1)(layer(x)))


def learning_rate(cell: str, length: int) -> float:
    """The best of a few trials; the IRNN's W^T grows so fast with W that a constant one ends in overflow at T = 400."""
    return {"RNN": 1e-4, "IRNN": 1e-2 / length, "GRU": 1e-2, "LSTM": 1e-2}[cell]


class FreshBatches(keras.utils.PyDataset):
    """Batches that are never repeated: batch i of epoch e is `task(batch_size, length, (seed, TRAINING, e, i))`."""

    def __init__(self, task: Callable, length: int, batch_size: int, steps: int, seed: int):
        super().__init__()
        self.task, self.length, self.batch_size, self.steps, self.seed = task, length, batch_size, steps, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.task(self.batch_size, self.length, (self.seed, TRAINING, self.epoch, index))


class StopBelow(keras.callbacks.Callback):
    """Ends training after the epoch whose validation loss is below `threshold`."""

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = threshold

    def on_epoch_end(self, epoch, logs=None):
        if is_over([logs["val_loss"]], self.threshold):
            self.model.stop_training = True


def is_over(losses: list[float], threshold: float) -> bool:
    """Whether training with these losses has ended: solved, or not a number any more."""
    return losses[-1] < threshold or not np.isfinite(losses[-1])


def parse_lengths(text: str) -> list[int]:
    """The numbers of "50,100,200,400".

    Raises:
        InputError: if it is not that.
    """
    try:
        lengths = [int(part) for part in text.split(",")]
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 2 or len(set(lengths)) < len(lengths):
        raise InputError(f"--lengths {shorten(text)}: give different whole numbers of 2 or more, such as 50,100")
    return lengths


# Reports and pictures


def print_programs(programs: dict) -> None:
    """The weights and errors of the programs, those written by hand and those learnt."""
    table = Table("program", "", "weights", f"T = {SHORT}", f"T = {LONG:,}", title="Programs: error on test sequences")
    for name, versions in programs.items():
        for version, row in versions.items():
            weights = ", ".join(f"{w:.4g}" for weight in row["weights"] for w in np.ravel(weight))
            table.add_row(name, version, weights, *map(describe_error, row["errors"].values()))
        trivial = [describe_error(errors, "trivial") for errors in versions["written"]["errors"].values()]
        table.add_row(name, "trivial answer", "", *trivial, end_section=True)
    Console().print(table)


def describe_error(errors: dict, key: str = "") -> str:
    """As in "2.3 % wrong" or "0.51 rms"."""
    if "wrong" in errors:
        return f"{100 * errors[key or 'wrong']:.1f} % wrong"
    return f"{errors[key or 'rms']:.2g} rms"


def print_adding(rows: list[dict]) -> None:
    """Test error of each network at each length."""
    lengths = list(dict.fromkeys(row["length"] for row in rows))
    title = f"Adding problem: test MSE; chance {CHANCE:.4f}, ✓ below a tenth of it"
    table = Table("network", "clipping", *(f"T = {length}" for length in lengths), title=title)
    for cell in CELLS:
        for clipped in (True, False):
            mine = [row for row in rows if row["cell"] == cell and (row["clip_norm"] is not None) == clipped]
            table.add_row(cell, f"norm ≤ {mine[0]['clip_norm']:g}" if clipped else "none", *map(describe_row, mine))
    Console().print(table)


def describe_row(row: dict) -> str:
    """As in "0.0009 ✓, 600 steps"; "overflow" if training ended so, whatever the best epoch before it."""
    mse = "overflow" if row["validation_mse"][-1] is None else f"{row['test_mse']:.4f}"
    return f"{mse}{' ✓' if row['learnt'] else ''}\n{row['steps']:,} steps"


def plot_programs(models: dict, seed):
    """Draw a running sum far beyond the lengths trained on, and how often the larger sum is wrong at each length."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    x, y = running_sum(1, LONG, seed)
    steps = np.arange(1, LONG + 1)
    left.plot(steps, y[0, :, 0], color="black", linewidth=5, alpha=0.2, label="the sum")
    for (version, model), style in zip(models["running sum"].items(), ("-", "--"), strict=True):
        left.plot(steps, model.predict(x, verbose=0)[0, :, 0], linewidth=1.2, linestyle=style, label=version)
    left.set(xlabel="step", ylabel="sum so far", title="Running sum of one sequence")

    lengths = np.unique(np.geomspace(5, LONG, 12).astype(int))
    for version, model in models["larger sum"].items():
        wrong = [comparison_errors(model, int(length), seed)["wrong"] for length in lengths]
        right.plot(lengths, wrong, marker="o", markersize=4, label=version)
    right.set(xscale="log", xlabel="length", ylabel="wrong answers", title="Which sum is larger")
    right.set_ylim(bottom=-0.002)
    right.xaxis.set_major_formatter("{x:g}")
    right.yaxis.set_major_formatter(PercentFormatter(1))
    for axis, start in ((left, 0), (right, lengths[0])):
        axis.axvspan(start, SHORT, color="black", alpha=0.07, linewidth=0, label="lengths trained on")
        axis.margins(x=0.02)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    return figure


def plot_adding(rows: list[dict]):
    """Draw the validation error of each network as it trains, one panel a length and way of clipping."""
    from matplotlib.figure import Figure

    lengths = list(dict.fromkeys(row["length"] for row in rows))
    figure = Figure(figsize=(1.5 + 3.1 * len(lengths), 6), layout="constrained")
    axes = figure.subplots(2, len(lengths), sharex=True, sharey=True, squeeze=False)
    for row in rows:
        axis = axes[int(row["clip_norm"] is None), lengths.index(row["length"])]
        losses = np.array(row["validation_mse"], float)
        x = STEPS * np.arange(1, len(losses) + 1)
        (line,) = axis.plot(x, losses, linewidth=1.6, label=row["cell"])
        if losses[-1] < SOLVED:
            axis.plot(x[-1], losses[-1], marker="o", markersize=6, color=line.get_color())
        elif np.isnan(losses[-1]) and len(losses) > 1:
            axis.plot(x[-2], losses[-2], marker="X", markersize=9, color=line.get_color(), mec="black", zorder=5)
    clip_norm = max(row["clip_norm"] or 0 for row in rows)
    for axis in axes.flat:
        axis.axhline(CHANCE, color="black", linestyle="--", linewidth=1, label="chance, 1/6")
        axis.axhline(SOLVED, color="black", linestyle=":", linewidth=1, label=f"solved, {SOLVED:g}")
        axis.set(yscale="log", ylim=(3e-4, 3))
        axis.grid(alpha=0.3)
    for axis, length in zip(axes[0], lengths, strict=True):
        axis.set_title(f"T = {length}")
    for axis in axes[-1]:
        axis.set_xlabel("optimizer step")
    for axis, label in zip(axes[:, 0], (f"gradient norm ≤ {clip_norm:g}", "gradient not clipped"), strict=True):
        axis.set_ylabel(f"{label}\nmean squared error")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
    return figure


if __name__ == "__main__":
    kseq.training.launch(main, epochs=80, batch_size=32)
