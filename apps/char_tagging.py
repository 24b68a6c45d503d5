"""Read a word character by character and name its part of speech: "quickly" → adverb.

The lecture's first application of recurrent networks, on 69,263 English words of WordNet 3.0. Three models see the same
words: character n-grams with a linear classifier (what a practitioner would try first), the lecture's vanilla
recurrent network on one-hot characters, and a bidirectional LSTM. Expect about 91 % accuracy from the first and a
little more from the last; the vanilla network comes third. All three are weakest on verbs, which are rare and often
spelt like nouns.

    kseq run apps/char_tagging.py --backend tensorflow --export
    kseq predict runs/char_tagging/<date>/saved_model deep quickly

A tagger to serve need not hold words out and should know those with several parts of speech ("deep") too:

    kseq run apps/char_tagging.py --all-words --units 192 --dropout 0.1 --character-dropout 0 --epochs 20 --export
"""

from typing import Literal

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import kseq

SHOWN = ("beautify", "noisily", "actress", "accurate", "brownish", "dawdle")  # test words of the picture


def main(
    run: kseq.training.Run,
    *,
    cell: Literal["lstm", "gru", "rnn"] = "lstm",
    units: int = 160,
    depth: int = 1,
    dropout: float = 0.5,
    character_dropout: float = 0.1,
    learning_rate: float = 3e-3,
    all_words: bool = False,
) -> None:
    # Data: words as rows of character numbers, classes as integers
    words = kseq.data.parts_of_speech()
    encoder = kseq.data.CharacterEncoder("abcdefghijklmnopqrstuvwxyz", max_length=15)
    train, validation, test = words.train, words.validation, words.test
    if all_words:
        parts = (train, validation, test, kseq.data.ambiguous_words())
        train = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if run.quick:
        train, validation, test = ((x[::20], y[::20]) for x, y in (train, validation, test))
    lengths = np.strings.str_len(train[0])
    batches = kseq.data.Batches(encoder(train[0]), train[1], run.batch_size, seed=run.seed, lengths=lengths)
    held_out = kseq.data.Batches(encoder(validation[0]), validation[1], 1024)

    def fit(model: keras.Model, name: str) -> dict:
        """Train a model on the batches, keep its best epoch, return its figures on the test words."""
        schedule = kseq.training.warmup_cosine(learning_rate, run.epochs * len(batches))
        model.compile(
            optimizer=keras.optimizers.AdamW(schedule, weight_decay=1e-2, global_clipnorm=1.0),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(
            batches,
            validation_data=held_out,
            **run.fit_arguments(model, batches, name=name, monitor="val_accuracy"),
        )
        run.load_best(model, name)
        predictions = model.predict(encoder(test[0]), batch_size=1024, verbose=0).argmax(axis=-1)
        return kseq.training.classification_metrics(test[1], predictions, words.class_names)

    # Models: the strong one, and what it is compared with
    model = kseq.models.CharTagger(
        encoder.vocabulary_size,
        len(words.class_names),
        cell=cell,
        units=units,
        depth=depth,
        dropout=dropout,
        character_dropout=character_dropout,
    )
    metrics = {}
    if run.baselines:
        metrics["n-grams + logistic regression"] = n_gram_baseline(train, test, words.class_names)
        elman = kseq.models.create("char_tagger_elman", name="elman")
        metrics["vanilla RNN, one-hot"] = fit(elman, "elman")
    title = f"bidirectional {cell.upper()}"
    metrics[title] = fit(model, "model")

    # Evaluation
    print_report(metrics, f"{len(test[1]):,} test words{' (seen in training)' if all_words else ''}")
    run.save_json("metrics.json", metrics)
    run.save_figure("history.png", kseq.training.plot_history(run.folder / "history.csv"))
    run.save_figure("confusion.png", kseq.training.plot_confusion(metrics[title], title))
    run.save_figure("characters.png", plot_prefixes(model, encoder, SHOWN, words.class_names))

    # The model file, and what serves it
    card = {"task": "word classification", "characters": encoder.get_config(), "class_names": words.class_names}
    path = run.save(model, card)
    if run.export:
        folder, record = kseq.export.export(path)
        print(f"SavedModel in {folder}, at most {record['largest_difference']:.1e} from the model")


def n_gram_baseline(train: tuple, test: tuple, class_names: tuple[str, ...]) -> dict:
    """Character 1- to 5-grams, TF-IDF weights, logistic regression (C chosen on the validation words)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5))
    baseline = make_pipeline(grams, LogisticRegression(C=20, max_iter=300)).fit(*train)
    return kseq.training.classification_metrics(test[1], baseline.predict(test[0]), class_names)


def print_report(metrics: dict[str, dict], title: str) -> None:
    """The models beside each other, and the classes of the last."""
    console = Console()
    table = Table("model", "accuracy", "macro-F1", title=title)
    for name, row in metrics.items():
        table.add_row(name, f"{row['accuracy']:.4f}", f"{row['macro_f1']:.4f}")
    console.print(table)
    name, last = list(metrics.items())[-1]
    classes = Table("class", "precision", "recall", "F1", "words", title=name)
    for label, row in last["classes"].items():
        figures = (f"{row[key]:.3f}" for key in ("precision", "recall", "f1-score"))
        classes.add_row(label, *figures, f"{row['support']:,.0f}")
    console.print(classes)


def plot_prefixes(model: keras.Model, encoder, shown: tuple[str, ...], class_names: tuple[str, ...]):
    """Draw the probability of each class after each character; every prefix is read as a word of its own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.5), layout="constrained")
    axes = figure.subplots(2, (len(shown) + 1) // 2, sharey=True)
    for axis, word in zip(axes.flat, shown, strict=False):
        logits = model.predict(encoder([word[:end] for end in range(1, len(word) + 1)]), verbose=0)
        probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))  # (prefixes, classes)
        for label, line in zip(class_names, probabilities.T, strict=True):
            axis.plot(np.arange(len(word)), line, marker="o", markersize=4, label=label)
        axis.set(xticks=range(len(word)), xticklabels=list(word), ylim=(-0.03, 1.03), title=word)
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("probability")
    axes[0, 0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    kseq.training.launch(main, epochs=14, batch_size=128)
