"""From the command line of an app to its `Run`: the flags that all apps share, seeds, and errors as one line."""

import argparse
import inspect
import sys
import typing
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import keras

import kseq
from kseq.atomic import remove_partial
from kseq.errors import InputError, KseqError
from kseq.training.folder import CONFIG, new_folder, read_config, resumed_folder
from kseq.training.run import Run


def launch(main: Callable[..., None], *, epochs: int = 0, batch_size: int = 0, quick_epochs: int = 2) -> None:
    """Run an app: `launch(main, epochs=12, batch_size=128)` under `if __name__ == "__main__"`.

    `main(run, **options)` receives a `Run`; its keyword arguments with defaults become flags of the app
    (`units: int = 128` is `--units`; a `Literal` type lists the choices). The flags that every app has are
    `--seed --quick --output`, and those that train something also
    `--epochs --batch-size --resume --export --tensorboard --no-baselines`.

    A `KseqError` or a failed write ends the process with one line and the exit code 2 or 1.

    Args:
        main: the app; the docstring of its module is its help.
        epochs: default of `--epochs`; 0 if the app trains nothing.
        batch_size: default of `--batch-size`.
        quick_epochs: default of `--epochs` with `--quick`.
    """
    app = Path(inspect.getfile(main)).stem
    options = {name: parameter.default for name, parameter in _options(main).items()}
    given = vars(_parser(main, epochs, batch_size).parse_args())
    resume, output = given.pop("resume", False), given.pop("output", None)
    rest = {name: given.pop(name) for name in ("export", "tensorboard", "measure") if name in given}  # not of training
    settings = {
        "epochs": quick_epochs if epochs and given.get("quick") else epochs,
        "batch_size": batch_size,
        "seed": 0,
        "quick": False,
        "baselines": True,
    }
    run = None
    try:
        if "measure" in rest and not epochs:
            raise InputError(f"APP {app}: trains nothing, so there is nothing to compare; give an app that trains")
        if resume:
            folder = resumed_folder(app, output)
            config = read_config(folder, app)
            settings, options = {name: config[name] for name in settings}, config["options"]
            _refuse_changes(given, settings | options, folder)
            remove_partial(folder)
        else:
            folder = new_folder(app, output)
            settings |= {name: given[name] for name in settings if name in given}
            options |= {name: given[name] for name in options if name in given}
        keras.utils.set_random_seed(settings["seed"])
        run = Run(app=app, folder=folder, **settings, **rest)
        if not resume:
            run.save_json(CONFIG, {"app": app, **settings, "options": options, **_provenance()})
        print(f"{'resuming' if resume else 'run folder'} {folder} ({keras.backend.backend()})", flush=True)
        main(run, **options)
    except KseqError as error:
        _fail(error, error.exit_code)
    except OSError as error:
        hint = f"; when that is mended, continue with --resume --output {run.folder}" if run and epochs else ""
        _fail(f"cannot write or read {error.filename or 'a file'}: {error.strerror or error}{hint}", 1)
    except KeyboardInterrupt:
        _fail(f"interrupted; continue with --resume --output {run.folder}" if run and epochs else "interrupted", 130)


def _parser(main: Callable[..., None], epochs: int, batch_size: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=main.__globals__.get("__doc__"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # so that only flags really given are seen
    )
    job = parser.add_argument_group("the job")
    job.add_argument("--seed", type=int, help="of weights, dropout and data order [0]")
    job.add_argument("--quick", action="store_true", help="small and short, to see that all works")
    job.add_argument("--output", type=Path, metavar="FOLDER", help="run folder [runs/<app>/<date>]")
    if epochs:
        job.add_argument("--epochs", type=_positive, help=f"passes over the training data [{epochs}]")
        job.add_argument("--batch-size", type=_positive, help=f"samples in an optimizer step [{batch_size}]")
        job.add_argument("--resume", action="store_true", help="continue the run in --output, or the latest one")
        job.add_argument("--export", action="store_true", help="write a verified SavedModel into the run folder")
        job.add_argument("--tensorboard", action="store_true", help="also write TensorBoard logs")
    job.add_argument(
        "--no-baselines",
        dest="baselines",
        action="store_false",
        help="train the main model only" if epochs else argparse.SUPPRESS,
    )
    job.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # set by `kseq compare`, with the one before
    own = parser.add_argument_group("this app")
    for name, parameter in _options(main).items():
        choices = typing.get_args(parameter.annotation) or None
        kind = type(parameter.default)
        flag = f"--{name.replace('_', '-')}"
        if kind is bool:
            own.add_argument(flag, action=argparse.BooleanOptionalAction, help=f"[{parameter.default}]")
        else:
            own.add_argument(flag, type=kind, choices=choices, help=f"[{parameter.default}]")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give 1 or more")
    return value


def _options(main: Callable[..., None]) -> dict[str, inspect.Parameter]:
    return {n: p for n, p in inspect.signature(main).parameters.items() if p.default is not p.empty}


def _refuse_changes(given: dict, known: dict, folder: Path) -> None:
    for name, value in given.items():
        if value != known.get(name):
            raise InputError(
                f"--{name.replace('_', '-')} {value}: the run in {folder} has {known.get(name)} and keeps it; "
                "leave the flag out, or start a new run with another --output"
            )


def _provenance() -> dict:
    return {
        "backend": keras.backend.backend(),
        "keras": keras.__version__,
        "kseq": kseq.__version__,
        "started": datetime.now().isoformat(timespec="seconds"),
    }


def _fail(message: object, code: int) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(code)
