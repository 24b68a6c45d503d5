"""The programs written by hand are exact; the app at `--quick` size leaves its run folder, its figures make sense."""

import importlib.util
import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from kseq.errors import InputError

APP = Path(__file__).parents[2] / "apps" / "rnn_programs.py"
PICTURES = ("rnn_programs.png", "rnn_programs_adding.png")
RUNS = [f"t8_{cell}_{clipping}" for cell in ("rnn", "irnn", "gru", "lstm") for clipping in ("clipped", "free")]


@pytest.fixture(scope="module")
def app():
    spec = importlib.util.spec_from_file_location("rnn_programs", APP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(run_app) -> Path:
    folder, output = run_app("rnn_programs")
    assert "Programs: error on test sequences" in output
    assert "Adding problem" in output
    return folder


def written(app, name):
    _, network, weights, _, _ = app.PROGRAMS[name]
    model = network()
    model.set_weights([np.array(weight, "float32") for weight in weights])
    return model


def test_the_running_sum_written_by_hand_is_exact_at_length_1000(app):
    x = np.random.default_rng(5).integers(-256, 257, (50, 1000, 1)) / 256
    y = written(app, "running sum").predict(x.astype("float32"), verbose=0)
    np.testing.assert_array_equal(y[:, :, 0], [np.cumsum(row) for row in x[:, :, 0]])


def test_the_larger_sum_written_by_hand_is_exact_at_length_1000(app):
    x = np.random.default_rng(5).integers(0, 257, (500, 1000, 2)) / 256
    x[:10, :, 1] = x[:10, ::-1, 0]  # a tie is not larger
    x[10:20, :, 1] = x[10:20, ::-1, 0]
    x[10:20, 0, 0] += 1 / 256  # larger by the least there is
    logits = written(app, "larger sum").predict(x.astype("float32"), verbose=0)
    np.testing.assert_array_equal(logits, x[:, :, :1].sum(axis=1) - x[:, :, 1:].sum(axis=1))
    np.testing.assert_array_equal(logits[:, 0] > 0, x[:, :, 0].sum(axis=1) > x[:, :, 1].sum(axis=1))
    assert not logits[:10].any()
    assert (logits[10:20] > 0).all()


def test_the_tasks_of_the_programs_ask_for_what_they_say(app):
    x, y = app.running_sum(20, 30, 0)
    assert x.shape == y.shape == (20, 30, 1)
    np.testing.assert_array_equal(y[:, 9], x[:, :10].sum(axis=1))
    x, y = app.comparison(400, 30, 0)
    assert (x.shape, y.shape) == ((400, 30, 2), (400, 1))
    np.testing.assert_array_equal(y[:, 0] == 1, x[:, :, 0].sum(axis=1) > x[:, :, 1].sum(axis=1))
    assert 0.4 < y.mean() < 0.6


def test_no_batch_comes_twice_and_none_depends_on_what_was_drawn_before(app):
    batches = app.FreshBatches(app.adding_problem, 10, 4, steps=3, seed=0)
    first = [batches[i][0] for i in range(len(batches))]
    batches.set_epoch(1)
    second = [batches[i][0] for i in range(len(batches))]
    assert len(np.unique(np.concatenate(first + second), axis=0)) == 24
    batches.set_epoch(0)
    np.testing.assert_array_equal(batches[2][0], first[2])


@pytest.mark.parametrize("text", ["", "50,x", "1", "50,50"])
def test_lengths_that_cannot_be_are_refused(app, text):
    with pytest.raises(InputError, match=r"--lengths .*: give different whole numbers of 2 or more, such as 50,100"):
        app.parse_lengths(text)


def test_a_threshold_that_cannot_clip_is_refused(app):
    with pytest.raises(InputError, match=r"--clip-norm 0: give the norm above which gradients are clipped"):
        app.main(None, clip_norm=0)


def test_the_run_folder_is_whole(folder):
    histories = {f"history_{name}.csv" for name in ("running_sum", "larger_sum", *RUNS)}
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "metrics.json",
        "checkpoints",
        *PICTURES,
    } | histories


def test_programs_written_by_hand_are_exact_and_the_learnt_sum_beats_the_trivial_answer(folder):
    programs = json.loads((folder / "metrics.json").read_text())["programs"]
    total, larger = programs["running sum"], programs["larger sum"]
    assert total["written"]["weights"] == [[[1]], [[1]]]
    for errors in total["written"]["errors"].values():
        assert errors["largest"] == errors["rms"] == 0
    for errors in larger["written"]["errors"].values():
        assert errors["wrong"] == 0
    assert total["learnt"]["errors"]["20"]["rms"] < 0.3 * total["learnt"]["errors"]["20"]["trivial"]
    assert larger["learnt"]["errors"]["20"]["trivial"] == pytest.approx(0.5, abs=0.05)  # 200 steps teach little here


def test_the_adding_problem_has_a_row_for_each_network_and_clipping(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["chance"] == pytest.approx(1 / 6)
    rows = metrics["adding_problem"]
    assert [(row["cell"], row["clip_norm"]) for row in rows] == [
        (cell, clip) for cell in ("RNN", "IRNN", "GRU", "LSTM") for clip in (1, None)
    ]
    for row in rows:
        assert row["length"] == 8
        assert row["steps"] == 200
        assert len(row["validation_mse"]) == 2
        assert row["learnt"] == (row["test_mse"] < 1 / 60)
        assert 0 < row["test_mse"] < 5
    assert min(row["test_mse"] for row in rows) < 1 / 6


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_are_not_empty(folder, name):
    pixels = matplotlib.image.imread(folder / name)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.05
