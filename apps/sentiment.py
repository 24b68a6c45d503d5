"""Read a sentence of a film review and tell praise from blame, with little data: what helps, and by how much.

The lecture's many-to-one mapping on 7,338 training sentences that people rated from -4 to 4. What a practitioner would
try first, TF-IDF and logistic regression, is hard to beat with so few. The networks, a bidirectional LSTM with
attention pooling and the encoder of a transformer, learn from the ratings themselves (a sentence rated +1 is positive
with p = 0.73, one with +3 with 0.95) and also from sentences that are neither clearly good nor bad; and each is
trained once from random weights, and once after pre-training as a language model on novels and on the same reviews
(ULMFiT). All are evaluated on the clear test sentences. Expect 0.79 to 0.83, a little more after pre-training, most
from the average of the networks, and differences that 919 sentences can hardly tell from chance.

    kseq run apps/sentiment.py --export
    kseq predict runs/sentiment/<date>/saved_model "A feel good picture in the best sense of the term."

`--data all` also evaluates on the unclear sentences. With a network `--data imdb` (there `--max-length 400` and a GPU)
reads 25,000 long reviews; published figures for such models are 0.84 to 0.88.
"""

from typing import Literal

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import kseq
from kseq.analysis import coloured_words, plot_words, word_attention, word_contributions

SHOWN = 90  # letters of the longest sentence in the pictures, where there are such short ones


def main(
    run: kseq.training.Run,
    *,
    data: Literal["movie_reviews", "all", "imdb"] = "movie_reviews",
    unit: Literal["word", "subword"] = "word",
    vocabulary_size: int = 8000,
    max_length: int = 96,
    embed_dim: int = 100,
    units: int = 100,
    dropout: float = 0.5,
    embedding_dropout: float = 0.3,
    learning_rate: float = 3e-3,
    ratings: bool = True,
    novel_epochs: int = 1,
    review_epochs: int = 3,
) -> None:
    # Data: texts as rows of token numbers, targets as the probabilities of the two classes
    reviews = kseq.data.imdb() if data == "imdb" else kseq.data.movie_reviews(clear=data == "movie_reviews")
    (labelled, labels), validation, test = reviews.train, reviews.validation, reviews.test
    classes = np.eye(2, dtype="float32")
    texts, targets = labelled, classes[labels]
    if ratings and data != "imdb":
        everything = kseq.data.movie_reviews(clear=False)
        texts, positive = everything.train[0], 1 / (1 + np.exp(-everything.ratings[0]))
        targets = np.stack([1 - positive, positive], axis=-1)
    novels = np.array([line for chapter in kseq.data.austen().train for line in chapter.split("\n") if line])
    if run.quick:
        texts, targets, vocabulary_size, max_length = texts[::30][:256], targets[::30][:256], 500, 40
        labelled, labels = labelled[::4], labels[::4]
        novel_epochs, review_epochs = 0, 1
        validation, test = ((x[::20], y[::20]) for x, y in (validation, test))
    tokenizer = kseq.data.Tokenizer.train(texts, unit, vocabulary_size, lowercase=True)

    def encode(texts: np.ndarray) -> np.ndarray:
        tokens = tokenizer(texts, max_length=max_length)
        # quick: few shapes, for nothing takes longer there than compiling
        return np.pad(tokens, ((0, 0), (0, max_length - tokens.shape[1]))) if run.quick else tokens

    def batched(texts: np.ndarray, targets: np.ndarray, seed: int | None = None) -> kseq.data.Batches:
        tokens = encode(texts)
        lengths = None if run.quick else (tokens != kseq.data.PADDING).sum(axis=1)
        return kseq.data.Batches(tokens, targets, run.batch_size, seed=seed, lengths=lengths)

    batches = batched(texts, targets, run.seed)
    held_out = batched(validation[0], classes[validation[1]])
    print(f"{len(texts):,} training sentences, {batches.padding:.0%} of their batches is padding", flush=True)

    # Pre-training: what comes next in a text, or what came before
    def language_model(cell: str, name: str, embedding: keras.layers.Layer | None = None, **sizes) -> keras.Model:
        """Train a language model on the novels, then on the reviews; backwards, if it is given an embedding."""
        model = kseq.models.LanguageModel(
            tokenizer.vocabulary_size, cell=cell, embed_dim=embed_dim, mask_zero=False, name=name, **sizes
        )
        if embedding is not None:  # both directions of the classifier read the same vectors
            model.get_layer("embedding").set_weights(embedding.get_weights())
            model.get_layer("embedding").trainable = False
        for part, lines, epochs in (("novels", novels, novel_epochs), ("reviews", texts, review_epochs)):
            if not epochs:
                continue
            pair = cut(tokenizer(lines, end=True), embedding is not None)
            windows = kseq.data.Batches(*(part[:32] if run.quick else part for part in pair), 32, seed=run.seed)
            model.compile(
                optimizer=keras.optimizers.AdamW(
                    kseq.training.warmup_cosine(4e-3, epochs * len(windows), warmup=0.1), global_clipnorm=1.0
                ),
                loss=kseq.training.SequenceCrossentropy(),
            )
            arguments = run.fit_arguments(model, windows, name=f"{name}_{part}", monitor="loss")
            model.fit(windows, **arguments | {"epochs": epochs})
        return model

    # Classifiers
    def fit(model: keras.Model, name: str) -> keras.Model:
        """Train a classifier and keep its best epoch."""
        schedule = kseq.training.warmup_cosine(learning_rate, run.epochs * len(batches), warmup=0.1)
        model.compile(
            optimizer=keras.optimizers.AdamW(schedule, weight_decay=0.01, global_clipnorm=1.0),
            loss=keras.losses.CategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.fit(
            batches,
            validation_data=held_out,
            **run.fit_arguments(model, batches, name=name, monitor="val_accuracy"),
        )
        run.load_best(model, name)
        return model

    def bilstm(name: str) -> keras.Model:
        """A bidirectional LSTM with attention pooling."""
        return kseq.models.TextClassifier(
            tokenizer.vocabulary_size,
            2,
            embed_dim=embed_dim,
            units=units,
            depth=1,
            dropout=dropout,
            embedding_dropout=embedding_dropout,
            name=name,
        )

    def transformer(name: str) -> keras.Model:
        """The encoder of a transformer with attention pooling."""
        return kseq.models.TextClassifier(
            tokenizer.vocabulary_size,
            2,
            encoder="transformer",
            embed_dim=embed_dim,
            hidden_dim=2 * embed_dim,
            depth=1 if run.quick else 2,
            dropout=0.3,
            embedding_dropout=embedding_dropout,
            name=name,
        )

    # The models beside each other: those from random weights, then the same after pre-training, the main one last
    scores = {}  # probabilities of the classes for the validation and for the test sentences
    networks = {}
    if run.baselines:
        scores["TF-IDF + logistic regression"] = tf_idf_baseline(labelled, classes[labels], validation, test)
        if ratings and data != "imdb":
            scores["the same, from the ratings"] = tf_idf_baseline(texts, targets, validation, test)
        networks["transformer"] = fit(transformer("transformer"), "transformer")
        networks["BiLSTM"] = fit(bilstm("bilstm"), "bilstm")
        if not run.quick:
            pretrained = transformer("transformer_pretrained")
            left_to_right = language_model("transformer", "transformer_lm", hidden_dim=2 * embed_dim, depth=2)
            kseq.models.copy_encoder(left_to_right, pretrained)
            networks["transformer, pre-trained"] = fit(pretrained, "transformer_pretrained")
    model = bilstm("sentiment")
    forwards = language_model("lstm", "forward_lm", units=units, depth=1)
    backwards = language_model("lstm", "backward_lm", forwards.get_layer("embedding"), units=units, depth=1)
    kseq.models.copy_encoder(forwards, model, ["embedding"])
    both = [*forwards.get_layer("recurrent_0").get_weights(), *backwards.get_layer("recurrent_0").get_weights()]
    model.get_layer("recurrent_0").set_weights(both)
    title = "BiLSTM, pre-trained"
    networks[title] = fit(model, "model")

    # Evaluation
    def probabilities(network: keras.Model, texts: np.ndarray) -> np.ndarray:
        logits = network.predict(encode(texts), batch_size=256, verbose=0)
        return keras.ops.convert_to_numpy(keras.ops.softmax(logits))

    single = {name: [probabilities(network, x) for x, _ in (validation, test)] for name, network in networks.items()}
    scores |= single
    if run.baselines:
        scores["average of the networks"] = [np.mean(parts, axis=0) for parts in zip(*single.values(), strict=True)]
    metrics = {}
    for name in [*(name for name in scores if name != title), title]:
        (chosen_on, tested) = (score.argmax(axis=-1) for score in scores[name])
        metrics[name] = kseq.training.classification_metrics(test[1], tested, reviews.class_names)
        metrics[name]["validation_accuracy"] = float(np.mean(chosen_on == validation[1]))
    print_report(metrics, f"{len(test[1]):,} test sentences, {len(texts):,} to learn from")
    run.save_json("metrics.json", metrics)
    run.save_figure("history.png", kseq.training.plot_history(run.folder / "history.csv"))
    run.save_figure("confusion.png", kseq.training.plot_confusion(metrics[title], title))

    # Which words mattered
    shown = choose(*test, scores[title][1].argmax(axis=-1))
    tokens = tokenizer(test[0][shown], max_length=max_length)
    words = [[tokenizer.surfaces[number] for number in row[row != kseq.data.PADDING]] for row in tokens]
    captions = [
        f"{reviews.class_names[label]}, read as {score[1]:.0%} positive{'' if score.argmax() == label else ': wrong'}"
        for label, score in zip(test[1][shown], scores[title][1][shown], strict=True)
    ]
    seen, added = word_attention(model, tokens), word_contributions(model, tokens, 1)
    attention, contributions = ([row[: len(part)] for row, part in zip(x, words, strict=True)] for x in (seen, added))
    console = Console()
    for caption, part, row in zip(captions, words, contributions, strict=True):
        console.print(caption, coloured_words(part, row), "", sep="\n")
    label = "contribution to the answer, red negative, blue positive; 1 is the largest of the text"
    run.save_figure("words.png", plot_words(words, contributions, captions, label=label))
    run.save_figure(
        "attention.png",
        plot_words(words, attention, captions, label="attention of the pooling; 1 is the largest of the text"),
    )

    # The model file, and what serves it
    card = {
        "task": "sentiment",
        "texts": {"tokenizer": tokenizer.get_config(), "max_length": max_length},
        "class_names": reviews.class_names,
    }
    path = run.save(model, card)
    if run.export:
        folder, record = kseq.export.export(path)
        print(f"SavedModel in {folder}, at most {record['largest_difference']:.1e} from the model")


def tf_idf_baseline(texts: np.ndarray, targets: np.ndarray, validation: tuple, test: tuple) -> list[np.ndarray]:
    """Words and pairs of words, TF-IDF weights, logistic regression with the C that is best on validation."""
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    grams = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    twice = vstack([grams.fit_transform(texts)] * 2)  # once for each class, with its probability as the weight
    seen = twice, np.repeat((0, 1), len(texts)), targets.T.reshape(-1)
    fitted = [LogisticRegression(C=C, max_iter=500).fit(*seen) for C in (1, 2, 5, 10, 20, 50)]
    best = max(fitted, key=lambda one: one.score(grams.transform(validation[0]), validation[1]))
    print(f"logistic regression: C = {best.C}", flush=True)
    return [best.predict_proba(grams.transform(x)) for x, _ in (validation, test)]


def cut(tokens: np.ndarray, backwards: bool, length: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Texts behind each other as windows `(windows, length)`, and what comes behind each of their tokens."""
    stream = tokens[tokens != kseq.data.PADDING]
    stream = stream[::-1] if backwards else stream
    windows = (len(stream) - 1) // length
    return tuple(stream[i : i + windows * length].reshape(windows, length) for i in (0, 1))


def choose(texts: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Indices of up to eight short texts: the first two of each class that were read right, and of each read wrong."""
    letters = np.array([len(text) for text in texts])
    short = letters <= max(SHOWN, np.quantile(letters, 0.1))  # all reviews of IMDB are longer
    groups = [short & (labels == label) & (predictions == answer) for label in (1, 0) for answer in (label, 1 - label)]
    return np.concatenate([np.flatnonzero(group)[:2] for group in groups])


def print_report(metrics: dict[str, dict], title: str) -> None:
    """The models beside each other."""
    table = Table("model", "validation accuracy", "test accuracy", "macro-F1", title=title)
    for name, row in metrics.items():
        table.add_row(name, *(f"{row[key]:.4f}" for key in ("validation_accuracy", "accuracy", "macro_f1")))
    Console().print(table)


if __name__ == "__main__":
    kseq.training.launch(main, epochs=6, batch_size=64)
