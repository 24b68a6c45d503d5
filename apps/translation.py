"""Translate: English verses of the Bible into French, by recurrent networks and by a transformer.

The lecture's many-to-many mapping, where neither the lengths nor the order of the two sides agree. On the same 10,435
verses: a recurrent encoder–decoder that has to put a whole sentence into one vector (Cho et al. 2014), one that looks
back at every word by attention (Bahdanau et al. 2015), and a transformer, which is attention alone (Vaswani et al.
2017); beside them, the translation of the most similar verse that was seen. No chapter of the test verses was seen. Few
verses make poor translators, whose French is better than their understanding.

    kseq run apps/translation.py --backend tensorflow --export
    kseq predict runs/translation/<date>/saved_model "In the beginning was the Word."

Other sentences: `--data pairs.tsv`, a pair a line with a tab between (or a zip of manythings.org/anki); with a network
`--data tatoeba`.
"""

import keras
import numpy as np
from rich.console import Console
from rich.table import Column, Table

import kseq
from kseq.inference import beam_search, decoder, translate

SAMPLES = 20  # test sentences whose translations are printed
ALIGNED = 3  # of them those whose alignments are drawn
GROUPS = 6  # of test sentences of like length, each of as many


def main(
    run: kseq.training.Run,
    *,
    data: str = "verses",
    vocabulary_size: int = 3000,
    units: int = 128,
    depth: int = 2,
    dropout: float = 0.2,
    label_smoothing: float = 0.1,
    learning_rate: float = 2e-3,
    max_length: int = 64,
    beam_size: int = 4,
    length_penalty: float = 0.6,
) -> None:
    # Data: sentences as rows of subword numbers; the target is read from START on and predicted up to END
    named = {"verses": kseq.data.verses, "tatoeba": kseq.data.tatoeba}
    corpus = named[data]() if data in named else kseq.data.read_pairs(data).split()
    train, validation, test = corpus.train, corpus.validation, corpus.test
    if run.quick:
        units, depth, vocabulary_size, max_length = 16, 1, 300, 20
        counts = (5 * run.batch_size, run.batch_size, SAMPLES)
        train, validation, test = (
            tuple(side[:count] for side in split)
            for split, count in zip((train, validation, test), counts, strict=True)
        )
    source, target = (kseq.data.Tokenizer.train(side, "subword", vocabulary_size) for side in train)

    def batched(split: tuple, batch_size: int, seed: int | None = None) -> kseq.data.Batches:
        read = source(split[0], max_length=max_length)
        written = target(split[1], start=True, end=True, max_length=max_length + 1)
        inputs, targets = (read, written[:, :-1]), written[:, 1:]
        if run.quick:  # one shape, which is compiled once
            return kseq.data.Batches(inputs, targets, batch_size, seed=seed)
        lengths = (read != 0).sum(axis=1), (targets != 0).sum(axis=1)
        return kseq.data.Batches(inputs, targets, batch_size, seed=seed, lengths=lengths, target_lengths=lengths[1])

    batches, held_out = batched(train, run.batch_size, run.seed), batched(validation, run.batch_size)
    search = {"max_length": max_length, "beam_size": beam_size, "length_penalty": length_penalty}

    def fit(model: keras.Model) -> tuple[dict, list[str]]:
        """Train a model and keep its best epoch: its figures, and its translations of the test sentences."""
        schedule = kseq.training.warmup_cosine(learning_rate, run.epochs * len(batches), warmup=0.1)
        model.compile(
            optimizer=keras.optimizers.AdamW(schedule, weight_decay=1e-2, global_clipnorm=1.0),
            loss=kseq.training.SequenceCrossentropy(label_smoothing),
            metrics=[kseq.training.BitsPerToken(), kseq.training.SequenceAccuracy()],
        )
        print(f"{model.name}: {model.count_params():,} parameters", flush=True)
        model.fit(batches, validation_data=held_out, **run.fit_arguments(model, batches, name=model.name))
        run.load_best(model, model.name)
        bits = model.evaluate(held_out, return_dict=True, verbose=0)["bits"]
        found = translate(model, test[0], source, target, source_length=max_length, **search)
        return {"parameters": model.count_params(), "validation_bits": bits, **scores(found, test)}, found

    def recurrent(attention: str | None, name: str) -> keras.Model:
        return kseq.models.RecurrentTranslator(
            source.vocabulary_size,
            target.vocabulary_size,
            attention=attention,
            feed_context=attention is None,
            embed_dim=units,
            units=units,
            tie_embeddings=True,
            dropout=dropout,
            name=name,
        )

    # Models: the main one, and what it is compared with
    metrics, translations, models = {}, {}, {}
    if run.baselines:
        for name, found in (("the source itself", test[0]), ("most similar verse", most_similar(train, test[0]))):
            metrics[name], translations[name] = scores(found, test), list(found)
        models["recurrent, one vector"] = recurrent(None, "one_vector")
        models["transformer"] = kseq.models.TransformerTranslator(
            source.vocabulary_size,
            target.vocabulary_size,
            embed_dim=units,
            hidden_dim=2 * units,
            num_heads=4,
            depth=depth,
            norm_first=True,
            dropout=dropout,
            name="transformer",
        )
    models["recurrent, attention"] = recurrent("bahdanau", "model")
    for name, model in models.items():
        metrics[name], translations[name] = fit(model)

    # Evaluation
    shown = np.linspace(0, len(test[0]) - 1, SAMPLES).astype(int)
    samples = [
        {"source": test[0][i], "reference": test[1][i]} | {name: found[i] for name, found in translations.items()}
        for i in shown
    ]
    print_report(metrics, samples, f"{len(test[0]):,} test sentences, trained on {len(train[0]):,}")
    run.save_json("metrics.json", metrics)
    run.save_json("samples.json", samples)
    run.save_figure("history.png", kseq.training.plot_history(run.folder / "history.csv"))
    run.save_figure("length.png", plot_lengths({name: metrics[name]["by_length"] for name in models}))
    near = sorted(shown, key=lambda i: abs(len(test[0][i].split()) - 10))[:ALIGNED]  # not too long for a picture
    attentive = {name: model for name, model in models.items() if name != "recurrent, one vector"}
    figure = plot_alignments(attentive, [test[0][i] for i in near], source, target, search)
    run.save_figure("alignment.png", figure)

    # The model file, and what serves it
    best = min(models, key=lambda name: metrics[name]["validation_bits"])
    tokenizers = {"source": source.get_config(), "target": target.get_config()}
    path = run.save(models[best], {"task": "translation", "translation": tokenizers | search})
    print(f"best on the validation sentences: {best}")
    if run.export:
        folder, record = kseq.export.export(path)
        print(f"SavedModel in {folder}, at most {record['largest_difference']:.1e} from the model")


def most_similar(train: tuple, sentences: np.ndarray) -> np.ndarray:
    """The translation of the training sentence that shares most words and pairs of words (cosine of TF-IDF)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    seen = vectorizer.fit_transform(train[0])
    nearest = (vectorizer.transform(sentences) @ seen.T).argmax(axis=1)
    return train[1][np.asarray(nearest).ravel()]


def scores(found: list[str], test: tuple) -> dict:
    """BLEU and chrF of translations by sacrebleu, BLEU also by the length of the source, `[words, BLEU]` a group."""
    from sacrebleu.metrics import BLEU, CHRF

    words = np.array([len(sentence.split()) for sentence in test[0]])
    found, bleu, chrf = np.array(found, dtype=object), BLEU(), CHRF()
    by_length = [
        [words[group].mean(), bleu.corpus_score(list(found[group]), [list(test[1][group])]).score]
        for group in np.array_split(np.argsort(words, kind="stable"), min(GROUPS, len(words)))
    ]
    references = [list(test[1])]
    return {
        "bleu": bleu.corpus_score(list(found), references).score,
        "chrf": chrf.corpus_score(list(found), references).score,
        "by_length": by_length,
        "signatures": [f"BLEU {bleu.get_signature()}", f"chrF {chrf.get_signature()}"],
    }


def print_report(metrics: dict[str, dict], samples: list[dict[str, str]], title: str) -> None:
    """Twenty sentences with all translations, then the models beside each other."""
    console = Console()
    table = Table("", Column("samples of the test sentences", overflow="fold"), show_lines=False)
    for sample in samples:
        for name, text in sample.items():
            table.add_row(name, text, style="bold" if name in ("source", "reference") else None)
        table.add_section()
    console.print(table)
    table = Table("model", "parameters", "bits per token, validation", "BLEU", "chrF", title=title)
    for name, row in metrics.items():
        trained = (f"{row['parameters']:,}", f"{row['validation_bits']:.3f}") if "parameters" in row else ("", "")
        table.add_row(name, *trained, f"{row['bleu']:.1f}", f"{row['chrf']:.1f}")
    console.print(table)
    print("\n".join(row["signatures"][i] for i in range(2)))


def plot_lengths(groups: dict[str, list]):
    """Draw BLEU over the words of a source sentence, as figure 2 of Bahdanau, Cho & Bengio 2015."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    for name, points in groups.items():
        axis.plot(*zip(*points, strict=True), marker="o", label=name)
    axis.set(xlabel="words of the source, mean of a sixth of the test sentences", ylabel="BLEU", ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    return figure


def plot_alignments(models: dict[str, keras.Model], sentences: list[str], source, target, search: dict):
    """Draw where each model looked in each sentence while it translated."""
    from matplotlib.figure import Figure

    rows = source(sentences, max_length=search["max_length"])
    figure = Figure(figsize=(6 * len(models), 5.5 * len(sentences)), layout="constrained")
    axes = figure.subplots(len(sentences), len(models), squeeze=False)
    for column, (name, model) in enumerate(models.items()):
        steps = decoder(model)
        found = beam_search(steps, rows, attention=True, **search)
        for i, axis in enumerate(axes[:, column]):
            read = [source.vocabulary[token] for token in rows[i] if token]
            written = [target.vocabulary[token] for token in found.tokens[i, 0] if token]
            kseq.analysis.plot_alignment(found.attention[i, 0], read, written, axis=axis, title=name)
    return figure


if __name__ == "__main__":
    kseq.training.launch(main, epochs=10, batch_size=32)
