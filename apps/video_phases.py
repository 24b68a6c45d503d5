"""Name the phase of every frame of a procedure: what one frame tells, what came before adds, and what comes after.

The videos are simulated procedures of seven phases, in which digits stand for the tools in view. Most views occur in
several phases, so a frame does not tell its own; how often the best observers of a single frame, of all frames so far
and of the whole video are right is computed exactly. Beside them stand a framewise ConvNet, a CNN-LSTM trained end to
end, the same in both directions, and temporal convolutions over what the framewise network sees, causal as in TeCNO and
looking both ways as in MS-TCN. Then only a share of the videos keeps its labels: does it help to have learnt before,
from all videos and without labels, how long a procedure will still last?

    kseq run apps/video_phases.py --export
    kseq predict runs/video_phases/<date>/saved_model runs/video_phases/<date>/example.mp4

Expect the framewise network below 0.58, the others within a few points of 0.915, or of 0.964 if they look ahead. Those
that do not are also run frame by frame, as behind a camera, and must give the same answers. `--no-label-shares` leaves
the study of labels out.
"""

from collections.abc import Sequence

import keras
import numpy as np
from rich.console import Console
from rich.table import Column, Table

import kseq

OBSERVERS = {  # of `kseq.data.WorkflowModel`
    "framewise": "best observer of one frame",
    "online": "best observer of the past",
    "offline": "best observer of all",
}
TITLE = "CNN-LSTM"  # the main model
ARMS = ("from random weights", "pre-trained")  # of the study of labels
CLOCK = "remaining_duration"  # the head that is pre-trained
MEAN = "mean_with_sample_weight"  # over frames that are there
SHARES = (0.1, 0.25, 0.5, 1.0)  # of the videos that keep their labels
FEW, STRETCH = 0.5, 2  # below this share there are so many times as many epochs, as each has few steps
FRAMES = 64  # in a batch of the framewise network
UNIT = 50  # frames that count 1 in the remaining duration
SHOWN = 3  # test videos in the picture
FRAME_RATE = 1.0  # frames a second, in the file and in the picture


def main(
    run: kseq.training.Run,
    *,
    units: int = 128,
    dropout: float = 0.3,
    learning_rate: float = 3e-3,
    training_videos: int = 400,
    frame_epochs: int = 3,
    duration_epochs: int = 4,
    label_shares: bool = True,
) -> None:
    # Data: videos of 8 bits, which are encoded a batch at a time
    videos = kseq.data.workflow_videos((6, 4, 3) if run.quick else (training_videos, 40, 80))
    train, validation, test = (
        tuple(zip(*part, strict=True)) for part in (videos.train, videos.validation, videos.test)
    )
    kseq.data.write_video(run.folder / "example.mp4", test[0][0], FRAME_RATE)
    shape, class_names = train[0][0].shape[1:], videos.class_names
    pixels = np.concatenate(train[0][::4]) / 255
    mean, std = (figure(axis=(0, 1, 2)).tolist() for figure in (pixels.mean, pixels.std))
    encoder = kseq.data.ImageEncoder(shape[:2], shape[2], mean, std)

    def batched(inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray], **options) -> kseq.data.PaddedVideos:
        return kseq.data.PaddedVideos(inputs, targets, run.batch_size, **{"encode": encoder} | options)

    def shuffled(inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> kseq.data.Batches:
        """Videos of one frame each: more steps in an epoch, of frames that are less alike."""
        frames, phases = (np.concatenate(part)[:, None] for part in (inputs, targets))
        return kseq.data.Batches(
            frames, phases, FRAMES, seed=run.seed, augment=lambda x, random: encoder(x[:, 0])[:, None]
        )

    # Models
    channels, layers = ((8, 8), 2) if run.quick else ((8, 16, 32, 64), 6)
    frame_epochs, duration_epochs = (1, 1) if run.quick else (frame_epochs, duration_epochs)

    def tagger(name: str, start: keras.Model | None = None, *, classes: int = len(class_names), **options):
        """A tagger of frames whose layers start from those of another by the same names.

        Phases are learnt over time with the statistics of frames from before: those of a few videos mislead.
        """
        network = kseq.models.FrameNetwork(shape, channels=channels, normalization="batch")
        options = {"encoder": network, "units": units, "dropout": dropout, "name": name} | options
        model = kseq.models.VideoTagger(shape, classes, **options)
        if start is not None:
            kseq.models.copy_encoder(start, model)
        for layer in network.layers if classes and options.get("cell", "lstm") else ():
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        return model

    def fit(
        model: keras.Model,
        batches: kseq.data.Batches,
        held_out: kseq.data.PaddedVideos,
        *,
        name: str = "",
        epochs: int = run.epochs,
        monitor: str = "val_accuracy",
        **objective,
    ) -> keras.Model:
        """Train a model, which the run folder knows as `name`, and keep its best epoch."""
        name = name or model.name
        schedule = kseq.training.warmup_cosine(learning_rate, epochs * len(batches), warmup=0.1)
        objective = {"loss": crossentropy(), "weighted_metrics": ["accuracy"]} | objective
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=1e-3, global_clipnorm=1.0)
        model.compile(optimizer=optimizer, **objective)
        print(f"\n{model.name}: {model.count_params():,} parameters, {batches.samples:,} samples", flush=True)
        arguments = run.fit_arguments(model, batches, name=name, monitor=monitor) | {"epochs": epochs}
        model.fit(batches, validation_data=held_out, **arguments)
        run.load_best(model, name)
        return model

    def fit_tcn(causal: bool, features: dict[str, list[np.ndarray]]) -> keras.Model:
        """Train temporal convolutions over the features of frames, all stages alike."""
        name = "causal_tcn" if causal else "tcn"
        sizes = {"stages": 2, "layers": layers, "filters": 32, "dropout": dropout}
        model = kseq.models.MultiStageTCN(
            channels[-1], len(class_names), **sizes, causal=causal, masked=not causal, deep_supervision=True, name=name
        )
        options = {"encode": None, "masked": not causal, "target_names": tuple(model.output)}
        batches = batched(features["train"], train[1], seed=run.seed, **options)
        held_out = batched(features["validation"], validation[1], **options)
        return fit(
            model,
            batches,
            held_out,
            monitor="val_logits_accuracy",
            weighted_metrics={"logits": ["accuracy"]},
            **kseq.training.deep_supervision(crossentropy(), model, auxiliary_weight=1.0),
        )

    def evaluate(
        title: str, model: keras.Model, inputs: Sequence[np.ndarray], *, parameters: int = 0, streams: bool, **options
    ) -> None:
        """The figures of a model on the test videos, and how far it is from them when it runs frame by frame."""
        batches = batched(inputs, test[1], **options)
        logits = answers(model, batches)
        predicted[title] = [frames.argmax(axis=-1) for frames in logits]
        metrics["models"][title] = {"parameters": parameters + model.count_params()}
        metrics["models"][title] |= kseq.training.phase_metrics(test[1], predicted[title], class_names)
        if streams:
            pairs = zip(logits, streamed(model, batches), strict=True)
            metrics["models"][title]["streamed_difference"] = max(float(np.abs(a - b).max()) for a, b in pairs)

    # The best there can be
    metrics, predicted = {"bounds": {}, "models": {}}, {}
    for observer, title in OBSERVERS.items():
        predicted[title] = [getattr(videos.model, observer)(views).argmax(axis=-1) for views in videos.views[2]]
        metrics["bounds"][title] = kseq.training.phase_metrics(test[1], predicted[title], class_names)

    # Frames by themselves, then over time: the recurrent networks start from the framewise encoder
    batches, held_out = batched(*train, seed=run.seed), batched(*validation)
    framewise = fit(tagger("framewise", cell=None), shuffled(*train), held_out, epochs=frame_epochs)
    if run.baselines:
        evaluate("framewise ConvNet", framewise, test[0], streams=True)
        reader = keras.Model(framewise.input, framewise.get_layer("encoder").output)
        features = {
            name: answers(reader, batched(*part))
            for name, part in (("train", train), ("validation", validation), ("test", test))
        }
        for causal, title in ((True, "causal TCN"), (False, "TCN")):
            options = {"parameters": reader.count_params(), "encode": None, "masked": not causal}
            evaluate(title, fit_tcn(causal, features), features["test"], streams=causal, **options)
        both = [batched(*part, seed=run.seed, masked=True) for part in (train, validation)]
        model = fit(tagger("cnn_bilstm", framewise, bidirectional=True, masked=True), *both)
        evaluate("CNN-BiLSTM", model, test[0], streams=False, masked=True)
    model = fit(tagger("cnn_lstm", framewise), batches, held_out, name="model")
    evaluate(TITLE, model, test[0], streams=True)
    settings = {"size": list(shape[:2]), "channels": shape[2], "mean": mean, "std": std, "frame_rate": FRAME_RATE}
    path = run.save(model, {"task": "video phases", "video": settings, "class_names": list(class_names)})

    # Report, pictures
    title = f"{len(test[0])} test videos"
    print_report(metrics, title)
    run.save_json("metrics.json", metrics)
    run.save_figure("history.png", kseq.training.plot_history(run.folder / "history.csv"))
    shown = np.linspace(0, len(test[0]) - 1, min(SHOWN, len(test[0]))).round().astype(int)
    chosen = {title: [phases[i] for i in shown] for title, phases in predicted.items()}
    truth, titles = [test[1][i] for i in shown], [f"test video {i}" for i in shown]
    figure = kseq.training.plot_ribbons(truth, chosen, class_names, titles=titles, frame_rate=FRAME_RATE)
    run.save_figure("ribbons.png", figure)
    pooled = (np.concatenate(phases) for phases in (test[1], predicted[TITLE]))
    confusion = kseq.training.classification_metrics(*pooled, class_names)
    run.save_figure("confusion.png", kseq.training.plot_confusion(confusion, TITLE))

    # What serves the model
    if run.export:
        saved_model, record = kseq.export.export(path)
        print(f"SavedModel in {saved_model}, at most {record['largest_difference']:.1e} from the model")

    # Few labels: a share of the training and validation videos keeps them
    def few_labels(share: float, start: keras.Model | None) -> dict:
        """The figures of a CNN-LSTM that learns from this share, the first of an order by chance."""
        name = f"labels_{100 * share:.0f}" + ("" if start is None else "_pretrained")
        chosen, stretch = [], STRETCH if share < FEW else 1
        for part in (train, validation):
            rows = np.random.default_rng(run.seed).permutation(len(part[0]))[: max(1, round(share * len(part[0])))]
            chosen.append([[values[row] for row in rows] for values in part])
        few, watched = batched(*chosen[0], seed=run.seed), batched(*chosen[1])
        frames = tagger(f"{name}_frames", start, cell=None)
        fit(frames, shuffled(*chosen[0]), watched, epochs=stretch * frame_epochs)
        model = tagger(name, start)
        kseq.models.copy_encoder(frames, model)
        fit(model, few, watched, epochs=stretch * run.epochs)
        told = [frames.argmax(axis=-1) for frames in answers(model, batched(*test))]
        return kseq.training.phase_metrics(test[1], told, class_names)

    if run.baselines and label_shares:
        clocks = [
            batched(part[0], [remaining_duration(phases) for phases in part[1]], seed=run.seed, target_names=(CLOCK,))
            for part in (train, validation)
        ]
        objective = {"loss": {CLOCK: keras.losses.Huber(reduction=MEAN)}, "weighted_metrics": None}  # smooth L1
        pretrained = tagger(CLOCK, classes=0, remaining_duration=True)
        fit(pretrained, *clocks, epochs=duration_epochs, monitor="val_loss", **objective)
        metrics["label_shares"] = []
        for share in (0.5,) if run.quick else SHARES:
            row = {"share": share, "videos": round(share * len(train[0]))}
            row[ARMS[0]] = metrics["models"][TITLE] if share == 1 else few_labels(share, None)
            metrics["label_shares"].append(row | {ARMS[1]: few_labels(share, pretrained)})
            run.save_json("metrics.json", metrics)
        print_label_shares(metrics, title)
        run.save_figure("label_shares.png", plot_label_shares(metrics))


def crossentropy() -> keras.losses.Loss:
    """The mean over the frames that are there."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=MEAN)


def remaining_duration(phases: np.ndarray) -> np.ndarray:
    """How long a video goes on after each frame, `(time, 1)`."""
    return np.arange(len(phases), dtype="float32")[::-1, None] / UNIT


def answers(model: keras.Model, batches: kseq.data.PaddedVideos) -> list[np.ndarray]:
    """What a model says of each frame of each video, in the order of the videos."""
    found = {}
    for index, rows in enumerate(batches.batches):
        said = logits_of(model.predict_on_batch(batches[index][0]))
        found |= {row: frames[: batches.frames[row]] for row, frames in zip(rows.tolist(), said, strict=True)}
    return [found[row] for row in range(batches.samples)]


def streamed(model: keras.Model, batches: kseq.data.PaddedVideos) -> list[np.ndarray]:
    """The same, frame by frame, all videos side by side; those that are over go on with zeros."""
    tagger = kseq.inference.online(model)
    inputs, said = batches.inputs[0], []
    states = tagger.begin(batches.samples)
    for t in range(inputs.shape[1]):
        frames = inputs[:, t] if batches.encode is None else batches.encode(inputs[:, t])
        logits, states = tagger.step(frames, states)
        said.append(keras.ops.convert_to_numpy(logits_of(logits)))
    return [frames[:count] for frames, count in zip(np.stack(said, axis=1), batches.frames, strict=True)]


def logits_of(output):
    """Of a model with one head or several."""
    return output["logits"] if isinstance(output, dict) else output


def print_report(metrics: dict, title: str) -> None:
    """The models between their bounds."""
    rows, console = metrics["bounds"] | metrics["models"], Console()
    columns = (Column(name, no_wrap=True) for name in ("model", "parameters", "of frames", "of videos", "streamed"))
    table = Table(*columns, title=f"accuracy, {title}")
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['parameters']:,}" if "parameters" in row else "",
            f"{row['frame_accuracy']:.3f}",
            f"{row['accuracy']:.3f}±{row['accuracy_deviation']:.3f}",  # 80 characters a line, without spaces
            f"{row['streamed_difference']:.0e}" if "streamed_difference" in row else "",
        )
    console.print(table)
    table = Table("model", "precision", "recall", "Jaccard", "edit", "F1@50", title=f"phases, {title}")
    for name, row in rows.items():
        means = [row["mean"][figure] for figure in ("precision", "recall", "jaccard")]
        table.add_row(name, *(f"{figure:.3f}" for figure in (*means, row["edit"], row["f1@50"])))
    console.print(table)


def print_label_shares(metrics: dict, title: str) -> None:
    """What labels are worth, with and without what was learnt before."""
    table = Table("labels", "videos", *ARMS, title=f"accuracy of the {TITLE}, {title}")
    for row in metrics["label_shares"]:
        accuracies = [f"{row[arm]['accuracy']:.3f} ± {row[arm]['accuracy_deviation']:.3f}" for arm in ARMS]
        table.add_row(f"{row['share']:.0%}", str(row["videos"]), *accuracies)
    Console().print(table)


def plot_label_shares(metrics: dict):
    """Draw the accuracy over the share of videos with labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axis = figure.subplots()
    shares = [row["share"] for row in metrics["label_shares"]]
    for arm in ARMS:
        axis.plot(shares, [row[arm]["accuracy"] for row in metrics["label_shares"]], marker="o", label=arm)
    bound = metrics["bounds"][OBSERVERS["online"]]["accuracy"]
    axis.axhline(bound, color="black", linestyle=":", label=OBSERVERS["online"])
    axis.set_xscale("log")
    axis.set_xticks(shares, [f"{share:.0%}" for share in shares], minor=False)
    axis.minorticks_off()
    axis.set(xlabel="training and validation videos with labels", ylabel="accuracy, mean of the test videos")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    return figure


if __name__ == "__main__":
    kseq.training.launch(main, epochs=10, batch_size=4)
