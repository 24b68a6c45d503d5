"""Name every pixel of a slice: seven segmentation networks, from the U-Net to transformers with windows, on one task.

The default data are 52 slices of one man's head and the lobes and nuclei of his brain. Which lobe a piece of cortex
belongs to cannot be seen at the piece: it depends on where in the head it lies, so a network needs context. The U-Net
has it by pooling; a non-local block, the self-attention of SETR, TransUNet and U-Transformer, and the windows of
Swin-Unet, with global tokens in GLAM, bring it in other ways. Beside them stand two baselines that anyone can beat
only by learning something: pixels one by one (a random forest of value and place), and the labels of the training
slice that looks most alike. It is little data, of one head.

    kseq run apps/organ_segmentation.py --model u_transformer --export
    kseq predict runs/organ_segmentation/<date>/saved_model scan.png -o mask.png

Your own data: `--data pairs --folder DIR`, with images of 8 bits in DIR/images, masks of the same names in DIR/masks
and the names of the classes, from 0, in DIR/classes.txt, one a line. The first 70 % of them in alphabetical order
train, 10 % choose the epoch, 20 % test.
"""

from pathlib import Path
from typing import Literal

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import kseq
from kseq.analysis import pixel_attention, skip_gates
from kseq.errors import InputError

UNIT = 32  # sizes of images are filled up to multiples of it, which all networks here can halve
SHOWN = 4  # test slices in the picture
PIXELS = 40_000  # from which the forest learns
LEARNING_RATES = {"swin_unet": 1e-3, "glam_swin_unet": 1e-3}  # of the others 3e-3, at which these learn less
WITHOUT_PICTURE = ("unet", "swin_unet", "glam_swin_unet")  # no attention that compares all places of a map


def main(
    run: kseq.training.Run,
    *,
    model: Literal[
        "unet", "unet_nonlocal", "setr", "transunet", "u_transformer", "swin_unet", "glam_swin_unet"
    ] = "u_transformer",
    data: Literal["brain_regions", "brain_tissue", "phantoms", "pairs"] = "brain_regions",
    folder: str = "",
    learning_rate: float = 0.0,  # 0: that of LEARNING_RATES
    weight_decay: float = 0.01,
    augment: bool = True,
    mirror: bool = True,
) -> None:
    # Data: images of which black is 0 and the deviation 1, so that zeros around an image are black as well
    images = load(data, folder)
    (x, y), validation, test = (filled_up(*part) for part in (images.train, images.validation, images.test))
    if run.quick:
        few = [part[::5][:8] for part in (x, y)], [part[:4] for part in validation], [part[::4][:4] for part in test]
        (x, y), validation, test = ([part[:, ::2, ::2] for part in parts] for parts in few)
    window, channels = x.shape[1:3], x.shape[-1]
    std = (x / 255).std(axis=(0, 1, 2)).tolist()
    encoder = kseq.data.ImageEncoder(window, channels, (0.0,) * channels, tuple(std))
    changed = kseq.data.SegmentationAugmentation(
        flip_axes=(1,) if mirror else (),  # left and right
        degrees=10,
        zoom=0.1,
        translation=0.04,
        elastic=1.5,
        gamma=0.2,
        noise=0.05,
        probability=0.7,
    )
    batches = kseq.data.Batches(encoder(x), y, run.batch_size, seed=run.seed, augment=changed if augment else None)
    held_out = kseq.data.Batches(encoder(validation[0]), validation[1], run.batch_size)

    def figures(prediction: np.ndarray) -> dict:
        """Of the test slices: the means over classes, and each class."""
        found = kseq.training.segmentation_metrics(test[1], prediction, images.class_names, images.spacing)
        return {**found["mean"], "accuracy": found["pooled"]["accuracy"], "classes": found["classes"]}

    # Baselines
    metrics = {}
    if run.baselines:
        metrics["random forest of pixels"] = figures(forest((x, y), test[0], run.seed))
        metrics["most similar slice"] = figures(most_similar((x, y), test[0]))

    # The network: cross-entropy and Dice, the epoch with the best Dice of the validation slices
    network = build(model, (*window, channels), len(images.class_names), run.quick)
    learning_rate = learning_rate or LEARNING_RATES.get(model, 3e-3)
    schedule = kseq.training.polynomial(learning_rate, run.epochs * len(batches), warmup=0.05)
    network.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=weight_decay, global_clipnorm=1.0),
        loss=kseq.training.CrossentropyDice(batch=True, background=False),
        metrics=[kseq.training.DiceScore(len(images.class_names))],
    )
    print(f"{model}: {network.count_params():,} parameters, {len(x)} slices of {window[0]} × {window[1]}", flush=True)
    network.fit(batches, validation_data=held_out, **run.fit_arguments(network, batches, monitor="val_dice"))
    run.load_best(network)
    settings = {"channels": channels, "window": window, "mean": encoder.mean, "std": encoder.std}
    path = run.save(network, {"task": "segmentation", "segmentation": settings, "class_names": images.class_names})

    # Evaluation, through the sliding window that the export has in its graph
    inputs = encoder(test[0])
    prediction = kseq.inference.SlidingWindow(network, batch_size=run.batch_size)(inputs).argmax(axis=-1)
    metrics[model] = figures(prediction)
    print_report(metrics, f"{len(inputs)} test slices")
    run.save_json("metrics.json", metrics)
    run.save_figure("history.png", kseq.training.plot_history(run.folder / "history.csv"))
    shown = np.linspace(0, len(inputs) - 1, min(SHOWN, len(inputs))).round().astype(int)
    pictures = (test[0][shown], test[1][shown], prediction[shown], images.class_names)
    run.save_figure("overlays.png", kseq.training.plot_overlays(*pictures))
    fullest = int((test[1] > 0).sum(axis=(1, 2)).argmax())
    if model not in WITHOUT_PICTURE and test[1][fullest].any():
        run.save_figure("attention.png", plot_attention(network, inputs[fullest], query(test[1][fullest])))

    # What serves the model
    if run.export:
        saved_model, record = kseq.export.export(path)
        print(f"SavedModel in {saved_model}, at most {record['largest_difference']:.1e} from the model")


def load(data: str, folder: str) -> kseq.data.SegmentationSet:
    """The slices with their labels, split."""
    if data == "phantoms":
        return kseq.data.context_phantoms()
    if data != "pairs":
        return kseq.data.brain_slices("tissue" if data == "brain_tissue" else "regions")
    if not Path(folder, "classes.txt").is_file():
        raise InputError(f"--folder {folder!r}: holds no classes.txt; give a folder with it, images and masks")
    names = tuple(line.strip() for line in Path(folder, "classes.txt").read_text().splitlines() if line.strip())
    samples = list(kseq.data.image_pairs(Path(folder, "images"), Path(folder, "masks"), names))
    first, last = int(0.7 * len(samples)), int(0.8 * len(samples))
    if not 0 < first < last < len(samples):
        raise InputError(f"--folder {folder}: {len(samples)} images; give 10 or more")
    if any(sample.image.dtype != "uint8" or sample.labels.ndim != 2 for sample in samples):
        raise InputError(f"--folder {folder}: gives volumes or images of more than 8 bits; save slices with 8 bits")
    if len({sample.image.shape[2:] for sample in samples}) > 1:
        raise InputError(f"--folder {folder}: holds grey and coloured images; save all as one of these")
    size = np.max([sample.labels.shape for sample in samples], axis=0)
    x = np.stack([centred(sample.image, size) for sample in samples])
    y = np.stack([centred(sample.labels, size) for sample in samples])
    parts = ((x[rows], y[rows]) for rows in (slice(first), slice(first, last), slice(last, None)))
    return kseq.data.SegmentationSet(*parts, names, (1.0, 1.0), folder)


def centred(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image or its labels in the middle of zeros: black, and background."""
    missing = [int(wanted) - have for wanted, have in zip(size, array.shape, strict=False)]
    return np.pad(array, [(n // 2, n - n // 2) for n in missing] + [(0, 0)] * (array.ndim - 2))


def filled_up(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in the middle of zeros, of sizes that all networks can halve."""
    size = tuple(-(-n // UNIT) * UNIT for n in y.shape[1:])
    return tuple(np.stack([centred(image, size) for image in part]) for part in (x, y))


def build(name: str, shape: tuple[int, ...], classes: int, quick: bool) -> keras.Model:
    """A small network of each kind, for images of `shape`."""
    levels, stages, depth = (3, 2, 1) if quick else (5, 4, 4)
    norm = "instance" if quick else "batch"  # a few steps are not enough for running statistics
    unet = {"channels": (16, 32, 48, 64, 96)[:levels], "normalization": norm}
    transformer = {"embed_dim": 96, "depth": depth, "num_heads": 4, "mlp_ratio": 2}
    swin = {
        "embed_dim": 24,
        "depths": (2,) * stages,
        "num_heads": (1, 2, 4, 8)[:stages],
        "window_size": (shape[0] // 16, shape[1] // 16),
        "drop_path": 0.0,
        "kernel_initializer": "lecun_normal",  # for 24 channels
    }
    if name == "unet":
        return kseq.models.UNet(shape, classes, **unet)
    if name == "unet_nonlocal":
        return kseq.models.UNet(shape, classes, **unet, non_local=True)
    if name == "u_transformer":
        return kseq.models.UTransformer(shape, classes, **unet, num_heads=4, max_positions=192)
    if name == "setr":
        return kseq.models.SETR(shape, classes, **transformer, decoder="pup", patch_size=8, channels=48)
    if name == "transunet":
        resnet = {"resnet_width": 32, "resnet_depths": (1, 1, 1)}
        decoder = {"bridge_channels": 96, "decoder_channels": (64, 48, 32, 16)}
        return kseq.models.TransUNet(shape, classes, **transformer, **resnet, **decoder, dropout=0.0)
    if name == "swin_unet":
        return kseq.models.SwinUnet(shape, classes, **swin)
    return kseq.models.SwinUnet(shape, classes, **swin, global_tokens=4, upsampling="non_local")


def forest(train: tuple, images: np.ndarray, seed: int) -> np.ndarray:
    """Classes of pixels by a random forest, of their value, two blurred values of what is around, and their place."""
    from scipy.ndimage import gaussian_filter
    from sklearn.ensemble import RandomForestClassifier

    def features(images: np.ndarray) -> np.ndarray:
        x = images.astype("float32")
        blurred = [gaussian_filter(x, (0, sigma, sigma, 0)) for sigma in (2, 6)]
        places = np.broadcast_to(np.stack(np.indices(x.shape[1:3]), axis=-1), (*x.shape[:3], 2))
        return np.concatenate([x, *blurred, places], axis=-1).reshape(-1, 3 * x.shape[-1] + 2)

    chosen = np.random.default_rng(seed).permutation(train[1].size)[:PIXELS]
    machine = RandomForestClassifier(50, min_samples_leaf=5, random_state=seed)
    machine.fit(features(train[0])[chosen], train[1].ravel()[chosen])
    return machine.predict(features(images)).reshape(images.shape[:3])


def most_similar(train: tuple, images: np.ndarray) -> np.ndarray:
    """The labels of the training slice with the nearest pixel values, as they are: learned by heart."""
    known, asked = (part.reshape(len(part), -1).astype("float32") for part in (train[0], images))
    return train[1][[int(((known - one) ** 2).sum(axis=1).argmin()) for one in asked]]


def query(labels: np.ndarray) -> tuple[int, int]:
    """The pixel in the middle of the smallest structure of a slice."""
    counts = np.bincount(labels.ravel())[1:]
    places = np.argwhere(labels == 1 + np.flatnonzero(counts)[counts[counts > 0].argmin()])
    return tuple(places[((places - places.mean(axis=0)) ** 2).sum(axis=1).argmin()].tolist())


def print_report(metrics: dict[str, dict], title: str) -> None:
    """The classes of the network, then its means beside those of the baselines."""

    def cells(row: dict) -> list[str]:
        formats = (("dice", ".3f"), ("iou", ".3f"), ("hd95", ".2f"), ("assd", ".2f"))
        return ["–" if row[figure] is None else f"{row[figure]:{form}}" for figure, form in formats]

    *_, model = metrics
    console, figures = Console(), ("Dice", "IoU", "HD95, mm", "ASSD, mm")
    table = Table("class", *figures, "slices with it", "missed", "invented", title=f"{model}, {title}")
    for name, row in metrics[model]["classes"].items():
        table.add_row(name, *cells(row), *(str(row[count]) for count in ("images", "missed", "invented")))
    console.print(table)
    table = Table("", *figures, title=f"means over classes, {title}")
    for name, row in metrics.items():
        table.add_row(name, *cells(row))
    console.print(table)


def plot_attention(network: keras.Model, image: np.ndarray, pixel: tuple[int, int]):
    """Draw where a pixel looks, and below, where a network has gates, what these let through."""
    from matplotlib.figure import Figure

    has_gates = any(layer.name.startswith("cross_attention") for layer in network.layers)
    figure = Figure(figsize=(8, 10 if has_gates else 6), layout="constrained")
    above, *below = figure.subplots(1 + has_gates, 1, squeeze=False, height_ratios=(2, 1)[: 1 + has_gates])[:, 0]
    pixel_attention(network, image, pixel, axis=above)
    above.set_title("where the pixel with the cross looks")
    for axis in below:
        skip_gates(network, image, axis=axis)
        axis.set_title("what the gates let through, mean of the channels")
    return figure


if __name__ == "__main__":
    kseq.training.launch(main, epochs=40, batch_size=4)
