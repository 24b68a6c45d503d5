"""The app at `--quick` size leaves its run folder, with figures and pictures that show what its page says."""

import json
from pathlib import Path

import matplotlib.image
import pytest

PICTURES = ("gradient_flow.png", "gradient_flow_bound.png", "gradient_flow_loss.png", "gradient_flow_lstm.png")


@pytest.fixture(scope="module")
def folder(run_app) -> Path:
    folder, output = run_app("gradient_flow")
    assert "20 steps, 16 units, 2 random sequences" in output
    assert "never in 19 steps" in output
    return folder


def test_the_run_folder_is_whole(folder):
    assert {path.name for path in folder.iterdir()} == {"config.json", "metrics.json", *PICTURES}


def test_the_metrics_are_of_seven_networks_and_what_the_page_says(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    small, large, saturated, irnn, gru, lstm, chrono = metrics.values()
    assert list(metrics)[:3] == ["RNN, small W", "RNN, large W", "RNN, large W, strong inputs"]
    assert list(metrics)[3:] == ["IRNN", "GRU", "LSTM", "LSTM, chrono biases"]
    assert [row["beta_w"] for row in (small, large, saturated, irnn)] == pytest.approx([0.9, 1.5, 1.5, 1])
    assert gru["beta_w"] is lstm["beta_w"] is None

    left = {name: row["norm_at_the_first_step"] for name, row in metrics.items()}
    assert left["RNN, small W"] < 0.9**19
    assert left["RNN, large W"] > 1 > left["RNN, large W, strong inputs"]
    assert left["IRNN"] == pytest.approx(1)
    assert left["GRU"] < left["LSTM"] < left["LSTM, chrono biases"]
    assert irnn["steps_to_lose_99.9%"] is chrono["steps_to_lose_99.9%"] is None
    for row in metrics.values():
        assert row["loss_gradient_at_the_last_step"] == pytest.approx(4)  # of the sum of 16 outputs


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_are_not_empty(folder, name):
    pixels = matplotlib.image.imread(folder / name)[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.05
