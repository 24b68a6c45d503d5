"""One job on several backends: what they measure, and what happens when one is missing, fails or computes otherwise."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kseq.compare import compare, print_comparison
from kseq.errors import InputError
from kseq.training.measurement import Measurement, without_dropout
from tests.conftest import tensorflow_only

JOB = Path(__file__).parents[1] / "training" / "job.py"


@tensorflow_only
def test_three_backends_agree(tmp_path, capsys):
    flags = ["--epochs", "3"]
    comparison = compare(JOB, ["tensorflow", "jax", "torch"], tmp_path / "report", quick=True, flags=flags)
    rows = comparison["backends"]
    assert [row["status"] for row in rows.values()] == ["ok"] * 3
    assert comparison["agrees"]
    for name, row in rows.items():
        assert row["logits_difference"] <= 1e-5
        assert row["step_difference"] <= 1e-4
        assert (row["logits_difference"] == 0) == (name == "tensorflow")  # three really different computations
        assert row["import_seconds"] > 0
        assert row["first_step_seconds"] > row["step_seconds"] > 0
        assert row["peak_memory_bytes"] > 1e8
        assert row["steps"] == 3 * 4
        assert len(row["history"]["loss"]) == 3
        assert np.isfinite(row["metrics"]["loss"])
    assert json.loads((tmp_path / "report" / "comparison.json").read_text()) == comparison
    page = (tmp_path / "report" / "report.html").read_text()
    assert "All backends that ran agree." in page
    assert "<svg" in page
    assert "http" not in page.split("<svg")[0]  # nothing is loaded from elsewhere
    print_comparison(comparison)
    assert "job --epochs 3 on 3 backends" in capsys.readouterr().out


@tensorflow_only
def test_a_missing_and_a_failing_backend_are_rows(tmp_path, monkeypatch, capsys):
    script = tmp_path / "job.py"
    script.write_text(
        "import keras\nif keras.backend.backend() == 'torch':\n    raise SystemExit('error: out of <memory>')\n"
        + JOB.read_text()
    )
    find_spec = sys.modules["kseq.backend.choice"].find_spec
    monkeypatch.setattr("kseq.backend.choice.find_spec", lambda name: None if name == "jax" else find_spec(name))
    comparison = compare(script, ["torch", "jax", "tensorflow"], tmp_path / "report", quick=True)
    statuses = {name: row["status"] for name, row in comparison["backends"].items()}
    assert statuses == {"torch": "failed: error: out of <memory>", "jax": "not installed", "tensorflow": "ok"}
    assert not comparison["agrees"]
    assert "out of &lt;memory&gt;" in (tmp_path / "report" / "report.html").read_text()
    print_comparison(comparison)
    assert "not installed" in capsys.readouterr().out


def test_the_probe_takes_the_common_weights_and_sees_a_difference(tagger, tmp_path, monkeypatch):
    """The same backend twice, the second time with other weights at first and other targets."""
    from kseq.compare.compare import _add_differences
    from kseq.data import Batches

    model, inputs, targets = tagger
    for backend, shift in (("tensorflow", 0), ("jax", 1)):
        batches = Batches(inputs, (targets + shift) % 4, 8, seed=0)
        model.set_weights([weight + 0.1 for weight in model.get_weights()])
        monkeypatch.setattr(keras.backend, "backend", lambda backend=backend: backend)
        probe = Measurement(tmp_path, model, batches)
        monkeypatch.undo()
        model.fit(batches, verbose=0, shuffle=False, callbacks=[probe])
    rows = {"tensorflow": {"status": "ok"}, "jax": {"status": "ok"}}
    _add_differences(rows, tmp_path)
    assert rows["jax"]["logits_difference"] == 0  # the same weights, although the model had others
    assert rows["jax"]["step_difference"] > 1e-2
    with np.load(tmp_path / "tensorflow.npz") as stepped, np.load(tmp_path / "initial.npz") as initial:
        for index in range(len(initial.files)):  # a step that changes nothing would compare nothing
            assert not np.array_equal(stepped[f"weight_{index}"], initial[f"arr_{index}"])


def test_nothing_is_dropped_in_the_silent_copy(tagger):
    model, inputs, _ = tagger
    silent = without_dropout(model)
    silent.set_weights(model.get_weights())
    training, inference = (keras.ops.convert_to_numpy(silent(inputs, training=flag)) for flag in (True, False))
    np.testing.assert_allclose(training, inference, atol=1e-6)
    assert not np.allclose(keras.ops.convert_to_numpy(model(inputs, training=True)), inference, atol=1e-3)


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        compare(tmp_path / "missing.py", ["jax"], tmp_path / "report")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("")
    with pytest.raises(InputError, match="exists and is not empty"):
        compare(JOB, ["jax"], tmp_path / "old")
    with pytest.raises(InputError, match="backend 'theano'"):
        compare(JOB, ["jax", "theano"], tmp_path / "report")
    for flag in ("--backend=jax", "--no-baselines"):
        with pytest.raises(InputError, match=f"flag '{flag}': compare sets it"):
            compare(JOB, ["jax"], tmp_path / "report", flags=[flag])
    assert not (tmp_path / "report").exists()
