"""The `kseq` command: the map of the product. Keras loads only in the commands that need it."""

import json
import os
import runpy
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Column, Table

import kseq
from kseq.backend import BACKENDS, choose_backend
from kseq.errors import InputError, KseqError

MOST_COLUMNS = 6  # classes that a table has room for; of more, the most probable are shown

app = typer.Typer(
    help="kseq: sequence and attention models in Keras 3, the same on TensorFlow, JAX and PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; a `KseqError` is one line on standard error and its exit code."""
    try:
        app()
    except KseqError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def run(
    context: typer.Context,
    script: Annotated[Path | None, typer.Argument(metavar="APP", help="the app, as apps/char_tagging.py")] = None,
    backend: Annotated[str | None, typer.Option(help="tensorflow, jax or torch [KERAS_BACKEND, or tensorflow]")] = None,
) -> None:
    """Train an app on a backend. All other flags go to the app: kseq run APP --help lists them."""
    if script is None or str(script) in ("--help", "-h"):
        print(context.get_help())
        return
    if not script.is_file():
        raise InputError(f"APP {str(script)!r}: no such file; give a script such as apps/char_tagging.py")
    choose_backend(backend)
    began = time.perf_counter()
    with quiet():
        import keras  # noqa: F401
    os.environ["KSEQ_IMPORTED"] = str(time.perf_counter() - began)
    sys.argv = [str(script), *context.args]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def compare(
    context: typer.Context,
    script: Annotated[Path, typer.Argument(metavar="APP", help="the app, for example apps/char_tagging.py")],
    backends: Annotated[str, typer.Option(help="which, separated by commas")] = ",".join(BACKENDS),
    output: Annotated[Path | None, typer.Option(help="folder of the report [runs/compare/<app>-<date>]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="a few samples and epochs")] = False,
) -> None:
    """Run the same job on several backends and set their numbers, speed and memory side by side.

    All other flags go to the app: kseq run APP --help lists them.
    """
    from kseq.compare import compare as compare_backends
    from kseq.compare import print_comparison

    chosen = [name.strip() for name in backends.split(",")]
    comparison = compare_backends(script, chosen, output, quick=quick, flags=context.args)
    print_comparison(comparison)
    raise typer.Exit(0 if comparison["agrees"] else 1)


@app.command()
def export(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_MODEL", help="a run folder or a .keras file")],
    format: Annotated[str, typer.Option(help="saved_model or onnx")] = "saved_model",
    output: Annotated[Path | None, typer.Option(help="what to write [saved_model or model.onnx beside it]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the record of the verification")] = False,
) -> None:
    """Write a trained model as SavedModel or ONNX, run it, and compare it with the model."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with quiet():
        from kseq.export import export as export_model

        path, record = export_model(source, output, format=format)
    if as_json:
        print(json.dumps(record))
        return
    table = Table("signature", "input shape", "largest difference", title=str(path))
    for check in record["checks"]:
        table.add_row(check["signature"], "×".join(map(str, check["shape"])), f"{check['difference']:.1e}")
    Console().print(table)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a SavedModel, a run folder or a .keras file")],
    given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUTS",
            help="what the model reads: words, texts in quotation marks, PNG and JPEG files, or videos; "
            "- reads them from standard input, one a line",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="of a model that segments: the mask to write, or a folder")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs: a list of objects")] = False,
    temperature: Annotated[float | None, typer.Option(min=0, help="of a language model [that of its card]")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="of a language model [another each time]")
    ] = None,
) -> None:
    """Classify words, texts or images, segment images, tag videos, translate texts or continue them, by any model."""
    given = given or []
    if given == ["-"]:
        text = sys.stdin.read()
        given = text.removesuffix("\n").split("\n") if text else []  # not splitlines, which cuts at more
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    drawn = {name: value for name, value in (("temperature", temperature), ("seed", seed)) if value is not None}
    with quiet() as terminal:
        from kseq.export import Answer, LabelMap, Timeline, stream
        from kseq.export import predict as predict_all

        pieces = None if as_json else stream(model, given, **drawn)
        answers = predict_all(model, given, output, track=progress_bar(terminal), **drawn) if pieces is None else []
    if pieces is not None:
        for piece in pieces:
            print(piece, end="", flush=True)
        print()
        return
    if as_json:
        fields = (
            {"text": a.given, a.kind: a.text}
            if isinstance(a, Answer)
            else {a.kind: a.given, "shares": a.shares, "mask": a.mask}
            if isinstance(a, LabelMap)
            else {a.kind: a.given, "intervals": [asdict(interval) for interval in a.intervals], "error": a.error}
            if isinstance(a, Timeline)
            else {a.kind: a.given, "label": a.label, "probabilities": a.probabilities}
            for a in answers
        )
        print(json.dumps(list(fields), ensure_ascii=False))
    elif isinstance(answers[0], Answer):
        table = Table(Column("text", overflow="fold"), Column(answers[0].kind, overflow="fold"))
        for row in answers:
            table.add_row(escape(row.given), escape(row.text))
        Console().print(table)
    elif isinstance(answers[0], LabelMap):
        print_shares(answers)
    elif isinstance(answers[0], Timeline):
        print_intervals(answers)
    else:
        print_classes(answers)
    if errors := [answer.error for answer in answers if isinstance(answer, Timeline) and answer.error]:
        raise InputError("\nerror: ".join(errors))


def print_classes(predictions: list) -> None:
    """A table of the most probable classes."""
    names = list(predictions[0].probabilities)
    few = len(names) <= MOST_COLUMNS
    table = Table(Column(predictions[0].kind, overflow="fold"), "class", *(names if few else ("probability", "then")))
    for row in predictions:
        shares = [f"{value:.1%}" for value in row.probabilities.values()]
        if not few:
            ranked = sorted(zip(row.probabilities.values(), names, shares, strict=True), key=lambda x: -x[0])
            shares = [ranked[0][2], ", ".join(f"{name} {share}" for _, name, share in ranked[1:4])]
        table.add_row(escape(row.given), f"[bold]{row.label}[/bold]", *shares)
    Console().print(table)


def print_shares(maps: list) -> None:
    """A table of the share of the pixels that each class has, the largest first, and of the masks written."""
    written = maps[0].mask is not None
    table = Table(Column(maps[0].kind, overflow="fold"), "pixels", *[Column("mask", overflow="fold")] * written)
    for row in maps:
        shares = sorted(((share, name) for name, share in row.shares.items() if share), reverse=True)
        text = ", ".join(f"{name} {share:.1%}" for share, name in shares)
        table.add_row(escape(row.given), escape(text), *[escape(row.mask or "")] * written)
    Console().print(table)


def print_intervals(timelines: list) -> None:
    """A table of the phases of each video, in hours, minutes and seconds."""
    for timeline in timelines:
        table = Table("start", "end", Column("phase", overflow="fold"), "probability", title=escape(timeline.given))
        layout = "02.0f" if all(row.end.is_integer() for row in timeline.intervals) else "05.2f"
        for row in timeline.intervals:
            times = (clock(seconds, layout) for seconds in (row.start, row.end))
            table.add_row(*times, escape(row.phase), f"{row.probability:.1%}")
        if timeline.intervals:
            Console().print(table)


def clock(seconds: float, layout: str) -> str:
    """A time as h:mm:ss, the seconds as `layout` formats them, to hundredths."""
    minutes, rest = divmod(round(seconds, 2), 60)
    return f"{minutes // 60:.0f}:{minutes % 60:02.0f}:{rest:{layout}}"


def progress_bar(terminal: TextIO) -> Callable:
    """What shows on a terminal, and nowhere else, how many frames of a video have been read."""
    console = Console(file=terminal)

    def show(frames: Iterable, count: int | None, path: str) -> Iterable:
        name = escape(Path(path).name)
        return track(frames, name, count, console=console, transient=True, disable=not console.is_terminal)

    return show


@app.command()
def models() -> None:
    """List the models and their published sizes."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with quiet():
        from kseq.models.registry import variants
    table = Table(Column("name", no_wrap=True), "function", "parameters", "paper")
    for name, variant in sorted(variants().items()):
        table.add_row(name, variant.model.__name__, f"{variant.parameters:,}", variant.source)
    Console().print(table)


@app.command()
def data() -> None:
    """List the data sets, their sources and licences."""
    table = Table(Column("name", no_wrap=True), "task", "size", "source", "licence")
    for entry in kseq.data.CATALOGUE:
        table.add_row(entry.name, entry.task, entry.size, entry.source, entry.licence)
    Console().print(table)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    """Print the version if it is asked for."""
    if show:
        print(f"kseq {kseq.__version__}")
        raise typer.Exit


@contextmanager
def quiet() -> Iterator[TextIO]:
    """Hide what is printed on standard error, but not in the stream that it gives; exceptions come through."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        with open(kept, "w", closefd=False) as terminal:
            yield terminal
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
