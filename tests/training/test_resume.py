"""A run that is killed continues exactly where it was."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kseq import saving
from kseq.training.checkpoint import Checkpoint
from tests.conftest import torch_only

JOB = Path(__file__).parent / "job.py"
EPOCHS = 6


def start(folder: Path, *flags: str, **options) -> subprocess.Popen:
    command = [sys.executable, str(JOB), "--output", str(folder), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def rows(folder: Path) -> list[dict]:
    with open(folder / "history.csv", newline="") as file:
        return [{key: row[key] for key in ("epoch", "loss", "val_loss")} for row in csv.DictReader(file)]


def kill_when(process: subprocess.Popen, happened, name: str) -> None:
    end = time.time() + 200
    while not happened():
        assert process.poll() is None, process.stdout.read()
        assert time.time() < end, f"never saw {name}"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@torch_only
def test_killed_runs_end_with_the_weights_of_one_never_killed(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    unharmed = start(whole)
    checkpoints = killed / "checkpoints"

    # Once in the middle of an epoch, once while a checkpoint is being written (its temporary file is there).
    process = start(killed, "--pause", "0.05")
    kill_when(process, lambda: (checkpoints / "model.last.keras").exists(), "a checkpoint")
    finished = len(saving.read_card(checkpoints / "model.last.keras")["history"])
    assert 1 <= finished < EPOCHS
    process = start(killed, "--resume")

    def is_writing():
        writing = any(checkpoints.glob(".partial-model.last-*"))
        return writing and len(saving.read_card(checkpoints / "model.last.keras")["history"]) > finished

    kill_when(process, is_writing, "a checkpoint being written")
    again = len(saving.read_card(checkpoints / "model.last.keras")["history"])  # whole and readable
    assert finished < again < EPOCHS
    finish(start(killed, "--resume"))
    finish(unharmed)

    assert rows(killed) == rows(whole)
    expected, got = saving.load(whole / "model.keras"), saving.load(killed / "model.keras")
    for one, other in zip(expected.get_weights(), got.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    optimizers = (model.optimizer.variables for model in (expected, got))
    for one, other in zip(*optimizers, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert not list(killed.rglob(".*"))  # what the kills left half-written is gone


@torch_only
def test_a_full_disk_loses_no_checkpoint(tmp_path):
    """A limit on the size of files stands for the disk: what fits no longer is refused by the system."""
    folder = tmp_path / "run"
    finish(start(folder, "--epochs", "2"))
    last = folder / "checkpoints" / "model.last.keras"
    before = last.read_bytes()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"epochs": 4}))  # two more to train

    limit = len(before) // 2

    def lower_limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    # Output goes through a pipe, which has no size; the compilation cache of JAX must not be written either.
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    process = start(folder, "--resume", preexec_fn=lower_limit, env=environment)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    assert output.strip().splitlines()[-1].startswith("error: "), output
    assert "--resume" in output.strip().splitlines()[-1]
    assert last.read_bytes() == before
    finish(start(folder, "--resume"))
    assert len(rows(folder)) == 4


@torch_only
def test_checkpoints_are_whole_models(tmp_path):
    finish(start(tmp_path / "run", "--epochs", "1"))
    for name in ("model.last.keras", "model.best.keras"):
        model = saving.load(tmp_path / "run" / "checkpoints" / name)
        assert model.predict(np.ones((2, 6), "int32"), verbose=0).shape == (2, 4)
        assert model.optimizer is not None


@pytest.mark.parametrize(
    ("monitor", "values", "best"),
    [
        ("val_loss", [2.0, 1.0, 1.5, np.nan, 0.5], [0, 1, 4]),
        ("val_bits", [4.1, 4.2, 4.0], [0, 2]),
        ("val_accuracy", [0.5, 0.5, 0.4, 0.6], [0, 1, 3]),
        ("val_loss", [np.nan, np.nan, 3.0], [0, 1, 2]),  # there is a best model whatever happens
    ],
)
def test_the_best_epoch(tmp_path, monitor, values, best):
    checkpoint = Checkpoint(tmp_path, "model", monitor)
    chosen = []
    for epoch, value in enumerate(values):
        checkpoint.history.append({monitor: value})
        chosen += [epoch] * checkpoint._is_best()
    assert chosen == best
