"""Classify images with a vision transformer, and see what it costs to assume less.

A convolution knows that neighbouring pixels belong together and that an object is the same wherever it stands; a
transformer has to learn both. So it is the more flexible model, and needs more data: this app trains a small ViT and a
small ConvNet, beside a support-vector machine, on 3,500 handwritten digits, and then on fewer and fewer of them. The
best epoch is chosen on all 500 validation digits each time.

    kseq run apps/image_classification.py --export
    kseq predict runs/image_classification/<date>/saved_model digit.png

With a network, `--data fashion_mnist` and `--data cifar10` (there `--patch-size 4 --embed-dim 192 --depth 9` is a
sensible size, on a GPU with `--mixed-precision`).
"""

from typing import Literal

import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table

import kseq

FEWER = (100, 350, 1000)  # training images of the curve, before all
SHOWN = 10  # test images of the picture of attention


def main(
    run: kseq.training.Run,
    *,
    data: Literal["handwritten_digits", "small_digits", "fashion_mnist", "cifar10"] = "handwritten_digits",
    patch_size: int = 4,
    embed_dim: int = 64,
    depth: int = 6,
    num_heads: int = 4,
    drop_path: float = 0.1,
    learning_rate: float = 2e-3,
    label_smoothing: float = 0.1,
    augment: bool = True,
    curve: bool = True,
    mixed_precision: bool = False,
) -> None:
    if mixed_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")

    # Data: images as floats of mean 0 and variance 1, classes as unit vectors
    images = getattr(kseq.data, data)()
    (x, y), validation, test = images.train, images.validation, images.test
    if run.quick:
        (x, y), validation, test = ((a[::20], b[::20]) for a, b in ((x, y), validation, test))
    pixels = x.reshape(-1, x.shape[-1]) / 255
    mean, std = tuple(map(float, pixels.mean(axis=0))), tuple(map(float, pixels.std(axis=0)))
    encoder = kseq.data.ImageEncoder(x.shape[1:3], x.shape[-1], mean, std)
    classes = np.eye(len(images.class_names), dtype="float32")
    held_out = kseq.data.Batches(encoder(validation[0]), classes[validation[1]], 500)
    moved = kseq.data.RandomAffine(
        degrees=15,
        zoom=0.15,
        shear=0.15,
        translation=0.1,
        mirror=not data.endswith("digits"),
        fill_value=-mean[0] / std[0],  # black
    )

    def fit(model: keras.Model, name: str, count: int = len(x)) -> dict:
        """Train a model on the first `count` images, keep its best epoch, return its figures on the test images."""
        seen = np.tile(np.arange(count), round((len(x) / count) ** 0.5))  # fewer images are seen more often
        batches = kseq.data.Batches(
            encoder(x[seen]), classes[y[seen]], run.batch_size, seed=run.seed, augment=moved if augment else None
        )
        schedule = kseq.training.warmup_cosine(learning_rate, run.epochs * len(batches), warmup=0.1)
        model.compile(
            optimizer=keras.optimizers.AdamW(schedule, weight_decay=0.05, global_clipnorm=1.0),
            loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing),
            metrics=["accuracy"],
        )
        print(f"{model.name} on {count:,} images", flush=True)
        model.fit(
            batches,
            validation_data=held_out,
            **run.fit_arguments(model, batches, name=name, monitor="val_accuracy"),
        )
        run.load_best(model, name)
        predictions = model.predict(encoder(test[0]), batch_size=500, verbose=0).argmax(axis=-1)
        return kseq.training.classification_metrics(test[1], predictions, images.class_names)

    def vit(name: str) -> keras.Model:
        return kseq.models.ViT(
            x.shape[1:],
            len(classes),
            patch_size=patch_size,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=2,
            drop_path=drop_path,
            name=name,
        )

    # Models: the ViT, and what it is compared with
    model = vit("vit")
    metrics = {}
    if run.baselines:
        metrics["support-vector machine"] = support_vectors((x, y), test, images.class_names)
        metrics["ConvNet"] = fit(conv_net(x.shape[1:], len(classes)), "conv_net")
    metrics["ViT"] = fit(model, "model")

    # The same with fewer images
    accuracies = {name: {len(x): row["accuracy"]} for name, row in metrics.items()}
    for count in FEWER if curve and run.baselines else ():
        if count < len(x):
            few = support_vectors((x[:count], y[:count]), test, images.class_names)
            accuracies["support-vector machine"][count] = few["accuracy"]
            small = conv_net(x.shape[1:], len(classes))
            accuracies["ConvNet"][count] = fit(small, f"conv_net_{count}", count)["accuracy"]
            accuracies["ViT"][count] = fit(vit(f"vit_{count}"), f"model_{count}", count)["accuracy"]

    # Evaluation
    print_report(metrics, accuracies, f"{len(test[1]):,} test images, trained on {len(x):,}")
    run.save_json("metrics.json", metrics | {"accuracy by training images": accuracies})
    run.save_figure("history.png", kseq.training.plot_history(run.folder / "history.csv"))
    run.save_figure("confusion.png", kseq.training.plot_confusion(metrics["ViT"], "ViT"))
    run.save_figure("attention.png", plot_attention(model, encoder(test[0][:SHOWN])))
    if curve and run.baselines:
        run.save_figure("curve.png", plot_curve(accuracies))

    # The model file, and what serves it
    card = {"task": "image classification", "images": encoder.get_config(), "class_names": images.class_names}
    path = run.save(model, card)
    if run.export:
        folder, record = kseq.export.export(path)
        print(f"SavedModel in {folder}, at most {record['largest_difference']:.1e} from the model")


def conv_net(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Three convolutions with batch normalisation and pooling, dropout, a linear classifier."""
    images = x = keras.Input(input_shape, name="images")
    for channels in (32, 64, 128):
        x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D(padding="same")(x)
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, layers.Dense(num_classes, name="logits")(x), name="conv_net")


def support_vectors(train: tuple, test: tuple, class_names: tuple[str, ...]) -> dict:
    """A support-vector machine with the kernel exp(−γ ‖x − x'‖²) on pixels, C = 10."""
    from sklearn.svm import SVC

    flat = [images.reshape(len(images), -1) / 255 for images in (train[0], test[0])]
    machine = SVC(C=10).fit(flat[0], train[1])
    return kseq.training.classification_metrics(test[1], machine.predict(flat[1]), class_names)


def print_report(metrics: dict[str, dict], accuracies: dict[str, dict], title: str) -> None:
    """The models beside each other, then their accuracy by the number of training images."""
    console = Console()
    table = Table("model", "accuracy", "macro-F1", title=title)
    for name, row in metrics.items():
        table.add_row(name, f"{row['accuracy']:.4f}", f"{row['macro_f1']:.4f}")
    console.print(table)
    counts = sorted(accuracies["ViT"])
    if len(counts) > 1:
        table = Table("model", *(f"{count:,}" for count in counts), title="test accuracy by number of training images")
        for name, row in accuracies.items():
            table.add_row(name, *(f"{row[count]:.4f}" for count in counts))
        console.print(table)


def plot_curve(accuracies: dict[str, dict]):
    """Draw the error on the test images over the number of training images, both logarithmic."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator, PercentFormatter, ScalarFormatter

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for name, row in accuracies.items():
        counts = sorted(row)
        axis.loglog(counts, [1 - row[count] for count in counts], marker="o", label=name)
    axis.set(xlabel="training images", ylabel="test error", title="More flexible, needs more data")
    axis.set_xticks(counts)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.yaxis.set_minor_formatter(PercentFormatter(1, decimals=0))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.grid(alpha=0.3, which="both")
    axis.legend(frameon=False)
    return figure


def plot_attention(model: keras.Model, images: np.ndarray):
    """Draw attention rollout over test images, how far each head looks, and how alike the learned positions are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.1))
    axis = above.subplots()
    kseq.analysis.attention_rollout(model, images, axis=axis)
    axis.set_title("attention rollout: what the class token may have read")
    left, right = below.subplots(1, 2)
    kseq.analysis.attention_distance(model, images, axis=left)
    left.set_title("how far the heads look")
    kseq.analysis.position_similarity(model.get_layer("position_encoding"), cosine=True, axis=right)
    right.set_title("how alike the learned positions are")
    return figure


if __name__ == "__main__":
    kseq.training.launch(main, epochs=75, batch_size=64)
