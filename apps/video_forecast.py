"""Tell how a video goes on: ten frames of bouncing digits are given, the ten that follow are to be drawn.

Moving MNIST, as Shi et al. made it in "Convolutional LSTM network" (NIPS 2015), and the models of its table 1: an LSTM
of which all products are convolutions, in one, two and three layers, beside the fully connected LSTM, which has to
learn anew at every place of the frame what moving means. (It is the ConvLSTM of which the only patch is the whole
frame.) With them stands what is no model at all: the last frame once more, and the mean of training frames.

The figure is the paper's: cross-entropy of the pixels, summed over the ten frames of a sequence, in nats. Pixels are
grey, so that the truth itself does not get 0: the table begins with what it gets.

    kseq run apps/video_forecast.py

That has a quarter of the paper's filters, smaller kernels, and as many steps as a core does in half an hour: no figures
to put beside the paper's. Its sizes are for a GPU: `--width 256 --kernel-size 5 --units 2048 --sequences 10000
--test-sequences 3000 --epochs 100 --batch-size 16 --optimizer rmsprop --learning-rate 1e-3`.
"""

from typing import Literal

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import kseq
from kseq.atomic import atomic_file
from kseq.errors import InputError

SIZE, FRAMES = 64, 10  # pixels of a frame on a side; frames that are given, and as many to be told
CLIPS = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)  # how sure of the last frame one may be
MAIN = "ConvLSTM, 3 layers"
SHOWN = 3  # test sequences in the animation


def main(
    run: kseq.training.Run,
    *,
    width: int = 64,
    kernel_size: int = 3,
    units: int = 256,
    sequences: int = 360,
    test_sequences: int = 400,
    optimizer: Literal["adam", "rmsprop"] = "adam",
    learning_rate: float = 3e-3,
) -> None:
    if width < 4 or width % 4:
        raise InputError(f"--width {width}: deeper models have a half and a quarter of it; give a multiple of 4")
    # Data: other sequences in every epoch
    count = (sequences, max(test_sequences // 5, 1), test_sequences)
    if run.quick:
        width, units, count = 8, 16, (8, 4, 8)
    digits = kseq.data.moving_digits(count, batch_size=run.batch_size, size=SIZE, seed=run.seed)
    batches, (given, truth) = digits.train, digits.test
    held_out = kseq.data.Batches(*digits.validation, run.batch_size)
    first = np.concatenate([np.concatenate(batches[i], axis=1) for i in range(min(len(batches), 50))])
    mean = first.mean(axis=(0, 1))  # (height, width, 1)
    ink = np.log(mean.mean() / (1 - mean.mean()))

    def fit(name: str, layers: dict) -> keras.Model:
        """Train a forecaster and keep its best epoch."""
        key = "model" if name == MAIN else name.lower().replace(", ", "_").replace(" ", "_")
        model = kseq.models.ConvLSTMForecaster(given.shape[1:], horizon=FRAMES, peepholes="channel", **layers)
        kernel, bias = model.get_layer("patch_logits").get_weights()  # begin with how much ink there is
        model.get_layer("patch_logits").set_weights([kernel, np.full_like(bias, ink)])
        schedule = kseq.training.warmup_cosine(learning_rate, run.epochs * len(batches), warmup=0.1)
        rules = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}
        model.compile(
            optimizer=rules[optimizer](learning_rate=schedule),
            loss=keras.losses.BinaryCrossentropy(from_logits=True),  # the mean over pixels
            jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
        )
        print(f"{name}: {model.count_params():,} parameters", flush=True)
        model.fit(batches, validation_data=held_out, **run.fit_arguments(model, batches, name=key))
        run.load_best(model, key)
        return model

    # Models: what is none, the fully connected LSTM, and convolutional ones
    forecasts = {}  # pixels of the test sequences, from 0 to 1
    if run.baselines:
        forecasts["last frame"] = repeat_last(*digits.validation, given)
        forecasts["mean frame"] = np.broadcast_to(mean, truth.shape)
    half, quarter = width // 2, width // 4
    networks = {
        "FC-LSTM": {"filters": (units, units), "kernel_size": 1, "patch_size": SIZE},
        "ConvLSTM, 1 layer": {"filters": (width,), "kernel_size": kernel_size},
        "ConvLSTM, 2 layers": {"filters": (half, half), "kernel_size": kernel_size},
        MAIN: {"filters": (half, quarter, quarter), "kernel_size": kernel_size},
    }
    parameters = {}
    for name, layers in networks.items() if run.baselines else [(MAIN, networks[MAIN])]:
        model = fit(name, layers)
        parameters[name] = model.count_params()
        forecasts[name] = sigmoid(model.predict(given, batch_size=run.batch_size, verbose=0))

    # Evaluation
    metrics = {"truth itself": figures(truth, truth)} | {name: figures(truth, p) for name, p in forecasts.items()}
    for name, number in parameters.items():
        metrics[name]["parameters"] = number
    print_report(metrics, f"{len(given)} test sequences of {FRAMES} frames, {SIZE} × {SIZE} pixels")
    run.save_json("metrics.json", metrics)
    run.save_figure("history.png", kseq.training.plot_history(run.folder / "history.csv"))
    run.save_figure("by_frame.png", plot_by_frame(metrics))
    run.save_figure("frames.png", plot_frames(given[0], truth[0], {name: p[0] for name, p in forecasts.items()}))
    shown = {name: forecast[:SHOWN] for name, forecast in forecasts.items()}
    save_animation(run.folder / "forecast.gif", given[:SHOWN], {"truth": truth[:SHOWN]} | shown)

    # The model file, and what serves it
    path = run.save(model, {"task": "video forecast"})
    if run.export:
        folder, record = kseq.export.export(path)
        print(f"SavedModel in {folder}, at most {record['largest_difference']:.1e} from the model")


def crossentropy(truth: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Cross-entropy of each frame, -∑ T ln P + (1 - T) ln(1 - P) over its pixels, `(samples, time)`."""
    p = np.clip(forecast.astype("float64"), 1e-7, 1 - 1e-7)
    return -(truth * np.log(p) + (1 - truth) * np.log1p(-p)).sum(axis=(2, 3, 4))


def figures(truth: np.ndarray, forecast: np.ndarray) -> dict:
    """Means over the sequences: cross-entropy of all frames and of each, squared error a frame, sum over pixels."""
    by_frame = crossentropy(truth, forecast).mean(axis=0)
    return {
        "cross_entropy": float(by_frame.sum()),
        "squared_error": float(np.square(truth - forecast).sum(axis=(2, 3, 4)).mean()),
        "by_frame": by_frame.tolist(),
    }


def repeat_last(known: np.ndarray, followed: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The last frame for all that follow, its values kept from 0 and 1 by what is best on the validation sequences."""

    def forecast(frames: np.ndarray, clip: float) -> np.ndarray:
        return np.repeat(np.clip(frames[:, -1:], clip, 1 - clip), FRAMES, axis=1)

    best = min(CLIPS, key=lambda clip: crossentropy(followed, forecast(known, clip)).mean())
    print(f"last frame: values from {best} to {1 - best:g}", flush=True)
    return forecast(given, best)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Pixels of logits; by tanh, which does not overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * logits)


def print_report(metrics: dict[str, dict], title: str) -> None:
    """The models beside each other."""
    table = Table("", "parameters", "cross-entropy, nats a sequence", "squared error a frame", title=title)
    for name, row in metrics.items():
        count = f"{row['parameters']:,}" if "parameters" in row else "–"
        table.add_row(name, count, f"{row['cross_entropy']:,.1f}", f"{row['squared_error']:.1f}")
    Console().print(table)


def plot_by_frame(metrics: dict[str, dict]):
    """Draw the cross-entropy of each frame over how far ahead it lies."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for name, row in metrics.items():
        style = {"color": "0.5", "linestyle": ":"} if name == "truth itself" else {"marker": "o", "markersize": 4}
        axis.plot(range(1, FRAMES + 1), row["by_frame"], label=name, **style)
    axis.set(
        xlabel="frames ahead", ylabel="cross-entropy of a frame, nats", ylim=(0, None), xticks=range(1, FRAMES + 1)
    )
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def plot_frames(given: np.ndarray, truth: np.ndarray, forecasts: dict[str, np.ndarray]):
    """Draw one sequence as the paper does: what is given, what follows, and below it the forecasts."""
    from matplotlib.figure import Figure

    rows = {"given": given, "truth": truth} | forecasts
    figure = Figure(figsize=(FRAMES + 1.6, len(rows)), layout="constrained")
    for line, (axes, (name, frames)) in enumerate(zip(figure.subplots(len(rows), FRAMES), rows.items(), strict=True)):
        for t, (axis, frame) in enumerate(zip(axes, frames[..., 0], strict=True)):
            axis.imshow(frame, cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if line < 2:
                axis.set_title(t + 1 + line * FRAMES, fontsize=9, color="0.4", pad=2)
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    return figure


def save_animation(path, given: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    """Write the frames that are given, and after them the forecasts beside the truth, as an animated GIF."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(1.25 * len(columns), 1.2 * len(given) + 0.55), dpi=100, layout="constrained")
    canvas, grid = FigureCanvasAgg(figure), figure.subplots(len(given), len(columns), squeeze=False)
    panels = [[axis.imshow(np.zeros((SIZE, SIZE)), cmap="gray", vmin=0, vmax=1) for axis in axes] for axes in grid]
    for axis, name in zip(grid[0], columns, strict=True):
        axis.set_title(name.replace(", ", ",\n"), fontsize=9)
    for axis in grid.flat:
        axis.set(xticks=[], yticks=[])
    pictures = []
    for t in range(2 * FRAMES):
        ahead = t - FRAMES
        for sample, row in enumerate(panels):
            for panel, forecast in zip(row, columns.values(), strict=True):
                panel.set_data((given[sample, t] if ahead < 0 else forecast[sample, ahead])[..., 0])
                panel.axes.spines[:].set(color="0.8" if ahead < 0 else "#D55E00", linewidth=2)
        figure.suptitle(f"given: frame {t + 1}" if ahead < 0 else f"forecast: {ahead + 1} ahead", fontsize=10)
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(32))
    with atomic_file(path) as temporary:
        durations = [200] * (2 * FRAMES - 1) + [1000]
        pictures[0].save(temporary, save_all=True, append_images=pictures[1:], duration=durations, loop=0)


if __name__ == "__main__":
    kseq.training.launch(main, epochs=10, batch_size=4)
