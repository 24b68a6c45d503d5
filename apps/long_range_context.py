"""How far does a segmentation model see? The right label of a spot is told by a bubble at a distance that we choose.

Two equal discs lie at the two sides of a spine. One is the organ, the other only looks like it, and all that tells them
apart is a small dark bubble on the organ's side, d pixels above it (`kseq.data.context_phantoms`). Seven small models
learn from the same images of all distances, and are then tested at each distance on its own. Expect the U-Net to fall
to chance where the bubble leaves its receptive field, models with attention over the whole image to hold, and the
Swin-Unet, which sees windows, to lie between.

    kseq run apps/long_range_context.py
    kseq run apps/long_range_context.py --models unet,u_transformer --seeds 3 --size 96x64 --distances 4,12,20,28,36,44

The best possible Dice is 1. Without the bubble the mean Dice of organ and look-alike is between 1/3 (both discs get the
same label) and 1/2 (a guess).
"""

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import kseq
from kseq.errors import InputError
from kseq.training.history import read_history

MEAN, STD = 0.35, 0.25  # of the pixels, scaled to 0–1
SHOWN = ("unet", "u_transformer")  # in the picture of phantoms
MAIN = "u_transformer"
PARAMETERS = "parameters"

UNET = {"channels": (12, 24, 48), "normalization": "batch"}
SWIN = {
    "patch_size": 2,
    "embed_dim": 32,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "window_size": 4,  # 8 and 16 pixels
    "mlp_ratio": 2,
    "drop_path": 0,
    "kernel_initializer": "lecun_normal",  # for 32 channels
}


def unet(shape, classes, name):
    return kseq.models.UNet(shape, classes, **UNET, name=name)


def unet_nonlocal(shape, classes, name):
    return kseq.models.UNet(shape, classes, **UNET, non_local=True, name=name)


def u_transformer(shape, classes, name):
    return kseq.models.UTransformer(shape, classes, **UNET, num_heads=2, max_positions=256, name=name)


def setr(shape, classes, name):
    sizes = {"patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 4, "mlp_ratio": 2, "channels": 32}
    return kseq.models.SETR(shape, classes, decoder="pup", **sizes, name=name)


def transunet(shape, classes, name):
    sizes = {"embed_dim": 64, "depth": 2, "num_heads": 4, "mlp_ratio": 2, "dropout": 0, "bridge_channels": 64}
    network = {"resnet_width": 32, "resnet_depths": (1, 1, 1), "decoder_channels": (64, 32, 16, 8)}
    return kseq.models.TransUNet(shape, classes, **sizes, **network, name=name)


def swin_unet(shape, classes, name):
    return kseq.models.SwinUnet(shape, classes, **SWIN, name=name)


def glam_swin_unet(shape, classes, name):
    return kseq.models.SwinUnet(shape, classes, **SWIN, global_tokens=1, name=name)


MODELS = {
    "unet": ("U-Net", unet),
    "unet_nonlocal": ("U-Net + non-local block", unet_nonlocal),
    "u_transformer": ("U-Transformer", u_transformer),
    "setr": ("SETR-PUP", setr),
    "transunet": ("TransUNet", transunet),
    "swin_unet": ("Swin-Unet", swin_unet),
    "glam_swin_unet": ("GLAM-Swin-Unet", glam_swin_unet),
}


def main(
    run: kseq.training.Run,
    *,
    models: str = "all",
    size: str = "64x32",
    distances: str = "4,8,12,16,20,25,30",
    images: int = 2000,
    seeds: int = 2,
    learning_rate: float = 3e-3,
) -> None:
    names, space, steps = parse_models(models), numbers("size", size, "x"), numbers("distances", distances, ",")
    if min(images, seeds) < 1:
        raise InputError(f"--images {images}, --seeds {seeds}: give 1 or more")
    if not run.baselines:
        names = [MAIN]
    if run.quick:
        images, seeds, steps = min(images, 64), 1, steps[:: max(len(steps) - 1, 1)]

    # Data: every distance equally often; of the test images as many of each
    count = (images, len(steps) * (4 if run.quick else 25), len(steps) * (8 if run.quick else 50))
    phantoms = kseq.data.context_phantoms(count, space, steps, seed=run.seed)
    encoder = kseq.data.ImageEncoder(space, 1, (MEAN,), (STD,))
    held_out = kseq.data.Batches(encoder(phantoms.validation[0]), phantoms.validation[1], 64)

    # Models: each is trained once for every seed, on all distances together
    rows, shown = {}, {}
    for name in names:
        results = []
        for seed in range(run.seed, run.seed + seeds):
            model, seconds = fit(run, name, seed, phantoms, encoder, held_out, learning_rate)
            result, predictions = evaluate(model, phantoms, encoder)
            results.append(result | {"seed": seed, "training_seconds": seconds})
            if seed == run.seed:
                shown[name] = predictions
                if name == (MAIN if MAIN in names else names[-1]):
                    main_model = model
            title = MODELS[name][0]
            print(f"{title}, seed {seed}: Dice", *(f"{dice:.3f}" for dice in result["dice"].values()), flush=True)
        rows[name] = {PARAMETERS: model.count_params(), "reach": reach(model, encoder(phantoms.test[0][:8]))} | {
            figure: {
                str(d): {
                    "mean": float(np.mean([r[figure][d] for r in results])),
                    "std": float(np.std([r[figure][d] for r in results])),
                }
                for d in steps
            }
            for figure in ("dice", "right_side", "cue_seen")
        }
        rows[name]["seeds"] = results

    # Evaluation
    print_report(rows, steps, f"Dice by distance of the cue; {count[2] // len(steps)} images each, {seeds} seeds")
    run.save_json("metrics.json", {"chance": [1 / 3, 1 / 2], "best": 1.0, "models": rows})
    run.save_figure("dice_by_distance.png", plot_distances(rows, steps))
    run.save_figure("phantoms.png", plot_phantoms(phantoms, shown, steps))

    # The model file, and what serves it
    reads = {"channels": 1, "window": list(space), "mean": [MEAN], "std": [STD]}
    path = run.save(main_model, {"segmentation": reads, "class_names": list(phantoms.class_names)})
    if run.export:
        folder, record = kseq.export.export(path)
        print(f"SavedModel in {folder}, at most {record['largest_difference']:.1e} from the model")


def parse_models(text: str) -> list[str]:
    """The names in a list separated by commas; all for "all"."""
    names = list(MODELS) if text == "all" else text.split(",")
    if unknown := [name for name in names if name not in MODELS]:
        raise InputError(f"--models {text}: no {', '.join(unknown)}; give all, or some of {','.join(MODELS)}")
    return list(dict.fromkeys(names))


def numbers(flag: str, text: str, separator: str) -> tuple[int, ...]:
    """The whole numbers of 1 or more in `text`; sizes keep their order, distances are sorted."""
    parts = text.split(separator)
    if not all(part.isdigit() and int(part) for part in parts):
        raise InputError(f"--{flag} {text}: give whole numbers of 1 or more, such as {separator.join(['32', '64'])}")
    values = tuple(map(int, parts))
    return values if flag == "size" else tuple(sorted(set(values)))


def fit(run, name, seed, phantoms, encoder, held_out, learning_rate) -> tuple[keras.Model, float]:
    """Train a model as all others, give it back in its best epoch, with the seconds of its epochs."""
    keras.utils.set_random_seed(seed)
    shape, classes = (*encoder.size, 1), len(phantoms.class_names)
    model = MODELS[name][1](shape, classes, name)
    images, labels = phantoms.train
    batches = kseq.data.Batches(encoder(images), labels, run.batch_size, seed=seed)
    schedule = kseq.training.warmup_cosine(learning_rate, run.epochs * len(batches), warmup=0.1)
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=0.01, global_clipnorm=1.0),
        loss=kseq.training.CrossentropyDice(squared=True, batch=True),
        metrics=[kseq.training.DiceScore(classes)],
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    print(f"{MODELS[name][0]}, seed {seed}, {model.count_params():,} parameters", flush=True)
    key = f"{name}_{seed}"
    model.fit(batches, validation_data=held_out, **run.fit_arguments(model, batches, name=key, monitor="val_dice"))
    run.load_best(model, key)
    return model, sum(read_history(run.folder / f"history_{key}.csv")["seconds"])


def evaluate(model: keras.Model, phantoms, encoder) -> tuple[dict, np.ndarray]:
    """Figures by distance, and the predicted labels of the test images.

    `dice` is the mean of organ and look-alike, over the pixels of all images of a distance. `right_side` is the share
    of images in which the organ's disc looks more like the organ than the other disc: a coin has 1/2. `cue_seen` is the
    share of the organ's pixels whose logits change at all when the bubble is painted over.
    """
    images, labels = phantoms.test
    logits = model.predict(encoder(images), batch_size=64, verbose=0)
    without = model.predict(encoder(without_bubble(images, phantoms.cues[2])), batch_size=64, verbose=0)
    changed = np.abs(logits - without).max(axis=-1) > 1e-4
    predictions = logits.argmax(axis=-1)
    margin = logits[..., 1] - logits[..., 2]
    sides = [np.where(labels == c, margin, 0).sum(axis=(1, 2)) / (labels == c).sum(axis=(1, 2)) for c in (1, 2)]
    figures = {"dice": {}, "right_side": {}, "cue_seen": {}}
    for d in np.unique(phantoms.distances[2]).tolist():
        chosen = phantoms.distances[2] == d
        true, found = labels[chosen], predictions[chosen]
        scores = [2 * ((true == c) & (found == c)).sum() / ((true == c).sum() + (found == c).sum()) for c in (1, 2)]
        figures["dice"][d] = float(np.mean(scores))
        figures["right_side"][d] = float((sides[0] > sides[1])[chosen].mean())
        figures["cue_seen"][d] = float(changed[chosen][true == 1].mean())
    return figures, predictions


def without_bubble(images: np.ndarray, cues: np.ndarray) -> np.ndarray:
    """The images with the dark pixels around each bubble's centre made grey as tissue."""
    images = images.copy()
    for image, (y, x) in zip(images, cues, strict=True):
        near = image[max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5]
        near[near < 60] = 110
    return images


def reach(model: keras.Model, images: np.ndarray) -> int:
    """How many rows from a pixel of the image the farthest logits lie that it changes, along its column."""
    row, column = images.shape[1] // 2, images.shape[2] // 2
    before, farthest = model.predict(images, verbose=0), 0
    for y in range(row - 2, row + 2):  # pooling makes it differ from row to row
        other = images.copy()
        other[:, y, column] += 20
        changed = np.abs(model.predict(other, verbose=0) - before).max(axis=(0, 2, 3)) > 1e-5  # (height,)
        farthest = max(farthest, int(np.abs(np.flatnonzero(changed) - y).max(initial=0)))
    return farthest


def print_report(rows: dict, distances: tuple[int, ...], title: str) -> None:
    """The Dice of the models by distance, then how often they choose the right disc."""
    console = Console(width=140)
    headings = ("dice", title), ("right_side", "share of images in which the right disc is chosen (a coin: 0.50)")
    for figure, heading in headings:
        table = Table("model", PARAMETERS, *(f"d = {d}" for d in distances), title=heading)
        for name, row in rows.items():
            cells = [f"{row[figure][str(d)]['mean']:.2f} ± {row[figure][str(d)]['std']:.2f}" for d in distances]
            table.add_row(MODELS[name][0], f"{row[PARAMETERS]:,}", *cells)
        console.print(table)
    if "unet" in rows:
        print(f"The U-Net sees {rows['unet']['reach']} pixels far.")


COLOURS = ("#000000", "#777777", "#D55E00", "#E69F00", "#CC79A7", "#0072B2", "#009E73")  # Okabe & Ito's, for all eyes
PANELS = {
    "dice": ("mean Dice of organ and look-alike", "Labels"),
    "right_side": ("share of images", "The right disc chosen"),
    "cue_seen": ("share of the organ's pixels", "The bubble reaches the organ"),
}


def plot_distances(rows: dict, distances: tuple[int, ...]):
    """Draw the figures of the models over the distance, with chance, the best possible, and the reach of the U-Net."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 5), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    for axis, (key, (label, title)) in zip(axes, PANELS.items(), strict=True):
        for (name, row), dashes in zip(rows.items(), ("-", "--", "-", "-", "-", "-", "-"), strict=False):
            mean, std = (np.array([row[key][str(d)][part] for d in distances]) for part in ("mean", "std"))
            colour = COLOURS[list(MODELS).index(name)]
            axis.plot(
                distances, mean, dashes, marker="o", markersize=4, linewidth=2, color=colour, label=MODELS[name][0]
            )
            axis.fill_between(distances, mean - std, mean + std, color=colour, alpha=0.12, linewidth=0)
        if "unet" in rows and rows["unet"]["reach"] < max(distances):
            axis.axvline(rows["unet"]["reach"], color="0.4", linestyle=":", linewidth=1.5)
        axis.axhline(1, color="0.6", linewidth=0.8, zorder=0)
        axis.set(xlabel="d: pixels from bubble to organ", ylabel=label, title=title, ylim=(-0.03, 1.05))
        axis.grid(alpha=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].axhspan(1 / 3, 1 / 2, color="0.88", zorder=0)
    axes[0].text(distances[0], 0.345, "without the bubble", color="0.35", fontsize=9)
    axes[1].axhline(0.5, color="0.6", linestyle="--", linewidth=1, zorder=0)
    axes[1].text(distances[0], 0.46, "a coin", color="0.35", fontsize=9)
    if "unet" in rows and rows["unet"]["reach"] < max(distances):
        axes[0].text(
            rows["unet"]["reach"] - 0.4, 0.02, "reach of\nthe U-Net", color="0.35", fontsize=9, ha="right", va="bottom"
        )
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(rows), frameon=False)
    return figure


def plot_phantoms(phantoms, predictions: dict[str, np.ndarray], distances: tuple[int, ...]):
    """Draw images of the nearest and the farthest bubble, the truth, and what two models say."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle, Patch

    names = [name for name in SHOWN if name in predictions] or list(predictions)[:2]
    images, labels = phantoms.test
    left = phantoms.organs[2][:, 1] < phantoms.look_alikes[2][:, 1]
    at = [np.flatnonzero(phantoms.distances[2] == d) for d in (distances[0], distances[-1])]
    rows = [where[np.argmax(left[where] == side)] for where in at for side in (True, False)]  # the organ at each side
    titles = ["image", "truth", *(MODELS[name][0] for name in names)]
    colours = np.array([[0, 0, 0, 0], [0.84, 0.37, 0, 0.85], [0, 0.45, 0.7, 0.85]])
    per_row = len(titles)
    height = 1.75 * images.shape[1] / images.shape[2]
    figure = Figure(figsize=(1.8 * per_row * 2 + 0.4, 2 * height + 0.5), layout="constrained")
    axes = figure.subplots(2, 2 * per_row, squeeze=False)
    for place, i in enumerate(rows):
        cells = axes[place // 2, place % 2 * per_row : (place % 2 + 1) * per_row]
        maps = [None, labels[i], *(predictions[name][i] for name in names)]
        for axis, title, found in zip(cells, titles, maps, strict=True):
            axis.imshow(images[i, ..., 0], cmap="gray", vmin=0, vmax=255)
            if found is not None:
                axis.imshow(colours[found])
            if place < 2:
                axis.set_title(title, fontsize=10)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        y, x = phantoms.cues[2][i]
        cells[0].add_patch(Circle((x, y), 3.5, fill=False, color="#F0E442", linewidth=1.5))
        cells[0].set_ylabel(f"bubble {phantoms.distances[2][i]} pixels away", fontsize=10)
    handles = [
        Patch(color=colours[1], label="organ"),
        Patch(color=colours[2], label="look-alike"),
        Patch(facecolor="none", edgecolor="#F0E442", label="the bubble"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


if __name__ == "__main__":
    kseq.training.launch(main, epochs=8, batch_size=16)
