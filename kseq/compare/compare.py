"""Running one app on several backends, a process each, and collecting what they measured."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from kseq.atomic import write_text
from kseq.backend import require_backend
from kseq.compare.report import html_report
from kseq.errors import InputError

TOLERANCES = {"logits_difference": 1e-5, "step_difference": 1e-4}  # in float32
SET_HERE = ("--backend", "--output", "--measure", "--baselines", "--no-baselines", "--resume")  # of the app's flags


def compare(
    script: str | os.PathLike,
    backends: Sequence[str],
    output: str | os.PathLike | None = None,
    *,
    quick: bool = False,
    flags: Sequence[str] = (),
) -> dict:
    """Run an app on each backend, one process after the other, and compare them.

    All start from the same weights and see the same batches in the same order. One forward pass and one step of
    gradient descent on the first batch, without dropout, tell whether they compute the same; dropout makes the training
    curves differ, for each backend draws its own random numbers. A backend that is missing or fails is a row that says
    so.

    Args:
        script: an app, for example `apps/char_tagging.py`.
        backends: of "tensorflow", "jax", "torch"; differences are to the first that succeeds.
        output: new folder for the runs, `comparison.json` and `report.html`.
        quick: whether the app uses little data.
        flags: others of the app, as on its command line: `["--model", "setr"]`.

    Returns:
        The content of `comparison.json`: for every backend its `status` ("ok" or what went wrong) and, if ok, the
        largest difference of logits and weights, the seconds to import, to the first step and per step (median), the
        peak memory in bytes, the history and the test metrics; and whether all that ran agree (`agrees`).

    Raises:
        InputError: for a script or an output folder that cannot be used, an unknown backend, or a flag that is for
            `compare` to set.
    """
    script = Path(script)
    if not script.is_file():
        raise InputError(f"APP {str(script)!r}: no such file; give a script such as apps/char_tagging.py")
    for flag in flags:
        if flag.split("=")[0] in SET_HERE:
            raise InputError(f"flag {flag!r}: compare sets it for each backend; leave it out")
    reasons = {backend: _reason_to_skip(backend) for backend in dict.fromkeys(backends)}
    date = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = Path(output) if output else Path("runs") / "compare" / f"{script.stem}-{date}"
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"output {folder}: exists and is not empty; give another folder with --output")
    folder.mkdir(parents=True, exist_ok=True)

    rows, given = {}, [*flags, *["--quick"] * quick]
    for backend, reason in reasons.items():
        began = time.perf_counter()
        print(f"{backend}: ", end="", flush=True)
        rows[backend] = {"status": reason} if reason else _run(script, backend, folder, given)
        print(f"{rows[backend]['status']} ({time.perf_counter() - began:.0f} s)", flush=True)
    _add_differences(rows, folder)

    comparison = {
        "app": script.stem,
        "quick": quick,
        "flags": list(flags),
        "date": date,
        "folder": str(folder),
        "tolerances": TOLERANCES,
        "agrees": _agree(rows),
        "backends": rows,
    }
    write_text(folder / "comparison.json", json.dumps(comparison, indent=2) + "\n")
    write_text(folder / "report.html", html_report(comparison))
    return comparison


def _reason_to_skip(backend: str) -> str:
    try:
        require_backend(backend)
    except InputError as error:
        if "not installed" not in str(error):
            raise
        return "not installed"
    return ""


def _run(script: Path, backend: str, folder: Path, flags: list[str]) -> dict:
    command = [sys.executable, "-m", "kseq", "run", str(script), "--backend", backend]
    command += ["--output", str(folder / backend), "--measure", str(folder), "--no-baselines"]
    with open(folder / f"{backend}.log", "w") as log:
        done = subprocess.run(command + flags, stdout=log, stderr=subprocess.STDOUT)
    measured = folder / f"{backend}.json"
    if done.returncode or not measured.is_file():
        lines = (folder / f"{backend}.log").read_text(errors="replace").strip().splitlines() or ["no output"]
        return {"status": f"failed: {lines[-1][:200]}"}
    metrics = json.loads((folder / backend / "metrics.json").read_text())
    main = list(metrics.values())[-1]
    return {
        "status": "ok",
        **json.loads(measured.read_text()),
        "metrics": {name: value for name, value in main.items() if isinstance(value, float)},
    }


def _add_differences(rows: dict[str, dict], folder: Path) -> None:
    """Add the largest differences of logits and weights to those of the first backend that succeeded.

    That of the logits is a share of the largest logit, if above 1, as in the check of an export.
    """
    finished = [backend for backend, row in rows.items() if row["status"] == "ok"]
    if not finished:
        return
    with np.load(folder / f"{finished[0]}.npz") as reference:
        for backend in finished:
            with np.load(folder / f"{backend}.npz") as arrays:
                largest = {name: float(np.max(np.abs(arrays[name] - reference[name]))) for name in reference.files}
            scale = max(1.0, float(np.max(np.abs(reference["logits"]))))
            rows[backend]["logits_difference"] = largest.pop("logits") / scale
            rows[backend]["step_difference"] = max(largest.values())


def _agree(rows: dict[str, dict]) -> bool:
    """Whether no backend failed and all that ran are within the tolerances."""
    finished = [row for row in rows.values() if row["status"] == "ok"]
    failed = [row for row in rows.values() if row["status"].startswith("failed")]
    within = all(row[key] <= tolerance for row in finished for key, tolerance in TOLERANCES.items())
    return bool(finished) and not failed and within
