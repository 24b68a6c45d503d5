"""The folder of a run: made for a new one, found and checked for one that is resumed."""

import json
from datetime import datetime
from pathlib import Path

from kseq.errors import InputError

CONFIG = "config.json"
RUNS = Path("runs")


def new_folder(app: str, output: Path | None) -> Path:
    """Make the folder of a new run, `runs/<app>/<date>` unless `output` names another.

    Raises:
        InputError: if it holds something or cannot be written.
    """
    folder = output or RUNS / app / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
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


def resumed_folder(app: str, output: Path | None) -> Path:
    """The folder of the run to resume: `output`, or the latest run of the app.

    Raises:
        InputError: if there is none.
    """
    if output is not None:
        return output
    runs = sorted(path.parent for path in (RUNS / app).glob(f"*/{CONFIG}"))
    if not runs:
        raise InputError(f"--resume: no run in {RUNS / app}; leave --resume out, or name the run with --output")
    return runs[-1]


def read_config(folder: Path, app: str) -> dict:
    """The `config.json` of a run of `app`.

    Raises:
        InputError: if `folder` holds no run, or that of another app.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"--resume: {folder} holds no run; give the folder of one, or leave --resume out")
    try:
        config = json.loads(path.read_text())
        owner = config["app"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"--resume: {path} is not a run's config; give the folder of a run") from error
    if owner != app:
        raise InputError(f"--output {folder}: a run of the app {owner}, not {app}; give the folder of a run of {app}")
    return config
