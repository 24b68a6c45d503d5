"""From the command line of an app to its `Run`: the flags that all apps share, seeds, and errors as one line."""

import argparse
import datetime
import inspect
import json
import sys
import typing
from collections.abc import Callable
from pathlib import Path

from kseq.atomic import remove_partial
from kseq.errors import InputError, KseqError
from kseq.training.run import CONFIG, Run

FIXED = ("epochs", "batch_size", "seed", "quick", "baselines")  # what a resumed run cannot change


def launch(main: Callable[..., None], *, epochs: int, batch_size: int, quick_epochs: int = 2) -> None:
    """Run an app: `launch(main, epochs=12, batch_size=128)` under `if __name__ == "__main__"`.

    `main(run, **options)` receives a `Run`; its keyword arguments with defaults become flags of the app
    (`units: int = 128` is `--units`; a `Literal` type lists the choices). The flags that every app has are
    `--epochs --batch-size --seed --quick --output --resume --export --tensorboard --no-baselines`.

    A `KseqError` or a failed write ends the process with one line and the exit code 2 or 1.

    Args:
        main: the app; the docstring of its module is its help.
        epochs: default of `--epochs`.
        batch_size: default of `--batch-size`.
        quick_epochs: default of `--epochs` with `--quick`.
    """
    path = Path(inspect.getfile(main))
    given = vars(_parser(main, epochs, batch_size).parse_args())
    run = None
    try:
        run, options = _prepare(path.stem, main, given, {"epochs": epochs, "batch_size": batch_size}, quick_epochs)
        main(run, **options)
    except KseqError as error:
        _fail(error, error.exit_code)
    except OSError as error:
        hint = f"; when that is mended, continue with --resume --output {run.folder}" if run else ""
        _fail(f"cannot write or read {error.filename or 'a file'}: {error.strerror or error}{hint}", 1)
    except KeyboardInterrupt:
        _fail(f"interrupted; continue with --resume --output {run.folder}" if run else "interrupted", 130)


def _parser(main: Callable[..., None], epochs: int, batch_size: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=main.__globals__.get("__doc__"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # so that only flags really given are seen
    )
    job = parser.add_argument_group("the job")
    job.add_argument("--epochs", type=_positive, help=f"passes over the training data [{epochs}]")
    job.add_argument("--batch-size", type=_positive, help=f"samples in an optimizer step [{batch_size}]")
    job.add_argument("--seed", type=int, help="of weights, dropout and data order [0]")
    job.add_argument("--quick", action="store_true", help="a few samples and epochs, to see that all works")
    job.add_argument("--output", type=Path, metavar="FOLDER", help="run folder [runs/<app>/<date>]")
    job.add_argument("--resume", action="store_true", help="continue the run in --output, or the latest one")
    job.add_argument("--export", action="store_true", help="write a verified SavedModel into the run folder")
    job.add_argument("--tensorboard", action="store_true", help="also write TensorBoard logs")
    job.add_argument("--no-baselines", dest="baselines", action="store_false", help="train the main model only")
    job.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # set by `kseq compare`
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


def _prepare(app: str, main: Callable[..., None], given: dict, defaults: dict, quick_epochs: int) -> tuple[Run, dict]:
    """The run and the options of the app: defaults, overridden by a resumed run's config, or by the flags given."""
    import keras

    if given.get("quick"):
        defaults = defaults | {"epochs": quick_epochs}
    settings = {"seed": 0, "quick": False, "baselines": True} | defaults
    options = {name: parameter.default for name, parameter in _options(main).items()}
    resume = given.pop("resume", False)
    folder = _resumed_folder(app, given.get("output")) if resume else _new_folder(app, given.get("output"))
    if resume:
        stored = _read_config(folder, app)
        remove_partial(folder)
        settings = {name: stored[name] for name in FIXED}
        options = stored["options"]
        for name, value in given.items():
            known = (settings | options).get(name, value)
            if value != known:
                raise InputError(
                    f"--{name.replace('_', '-')} {value}: the run in {folder} has {known}, and a resumed run cannot "
                    "change it; leave the flag out, or start a new run with another --output"
                )
    settings |= {name: given[name] for name in FIXED if name in given}
    options |= {name: given[name] for name in options if name in given}

    keras.utils.set_random_seed(settings["seed"])
    rest = {name: given.get(name) or default for name, default in _PLAIN.items()}
    run = Run(app=app, folder=folder, **settings, **rest)
    if not resume:
        run.save_json(CONFIG, {"app": app, **settings, "options": options, **_versions()})
    print(f"{'resuming' if resume else 'run folder'} {folder} ({keras.backend.backend()})", flush=True)
    return run, options


_PLAIN = {"export": False, "tensorboard": False, "measure": None}  # flags that do not change what is trained


def _versions() -> dict:
    import keras

    import kseq

    return {
        "backend": keras.backend.backend(),
        "keras": keras.__version__,
        "kseq": kseq.__version__,
        "started": datetime.datetime.now().isoformat(timespec="seconds"),
    }


def _new_folder(app: str, output: Path | None) -> Path:
    folder = output or Path("runs") / app / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"--output {folder}: exists and is not empty; give --resume to continue it, or another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be written ({error.strerror}); give another folder") from error
    return folder


def _resumed_folder(app: str, output: Path | None) -> Path:
    if output is not None:
        return output
    runs = sorted(path.parent for path in (Path("runs") / app).glob(f"*/{CONFIG}"))
    if not runs:
        raise InputError(f"--resume: no run in runs/{app}; leave --resume out, or name the run with --output")
    return runs[-1]


def _read_config(folder: Path, app: str) -> dict:
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"--resume: {folder} holds no run; give the folder of one, or leave --resume out")
    try:
        stored = json.loads(path.read_text())
        owner = stored["app"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"--resume: {path} is not a run's config; give the folder of a run") from error
    if owner != app:
        raise InputError(f"--output {folder}: a run of the app {owner}, not {app}; give the folder of a run of {app}")
    return stored


def _fail(message: object, code: int) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(code)
