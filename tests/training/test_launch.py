"""The flags of an app, and every way to use them wrongly: one line, exit code 2, nothing overwritten."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from kseq.training import launch
from tests.training import job


def run(monkeypatch, *flags: object, main=job.main) -> None:
    monkeypatch.setattr(sys, "argv", ["job.py", *map(str, flags)])
    launch(main, epochs=1, batch_size=32)


def fails(monkeypatch, capsys, *flags: object, code: int = 2, main=job.main) -> str:
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, *flags, main=main)
    assert caught.value.code == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith(("error: ", "job.py: error: ")), lines
    return lines[-1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(monkeypatch, "--output", folder)
    return folder


def test_a_run_folder_holds_everything(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {"config.json", "history.csv", "metrics.json", "model.keras", "checkpoints"}
    config = json.loads((finished / "config.json").read_text())
    assert (config["app"], config["epochs"], config["batch_size"], config["seed"]) == ("job", 1, 32, 0)
    assert config["options"] == {"units": 8, "pause": 0.0}


def test_flags_reach_the_app(monkeypatch, tmp_path):
    seen = {}

    def main(run, *, units=8, pause=0.0):
        seen.update(vars(run) | {"units": units})

    run(
        monkeypatch, "--epochs", 3, "--seed", 5, "--units", 2, "--output", tmp_path / "run", "--no-baselines", main=main
    )
    assert (seen["epochs"], seen["seed"], seen["units"], seen["baselines"]) == (3, 5, 2, False)


def test_tensorboard_logs(monkeypatch, tmp_path):
    run(monkeypatch, "--output", tmp_path / "run", "--tensorboard")
    assert list((tmp_path / "run" / "tensorboard").rglob("events.out.tfevents.*"))


def test_resuming_a_finished_run_trains_no_more(monkeypatch, finished):
    before = (finished / "history.csv").read_text()
    run(monkeypatch, "--output", finished, "--resume")
    assert (finished / "history.csv").read_text() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "0"], "0: give 1 or more"),
        (["--epochs", "many"], "invalid"),
        (["--batch-size", "-3"], "-3: give 1 or more"),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_bad_flags(monkeypatch, capsys, tmp_path, flags, message):
    assert message in fails(monkeypatch, capsys, "--output", tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


def test_an_output_that_exists_is_left_alone(monkeypatch, capsys, finished):
    before = (finished / "config.json").read_text()
    assert "exists and is not empty; give --resume" in fails(monkeypatch, capsys, "--output", finished)
    assert (finished / "config.json").read_text() == before


def test_an_output_that_cannot_be_written(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in fails(monkeypatch, capsys, "--output", tmp_path / "file" / "run")


def test_nothing_to_resume(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "no run in runs/job; leave --resume out" in fails(monkeypatch, capsys, "--resume")
    assert "holds no run" in fails(monkeypatch, capsys, "--resume", "--output", tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_the_latest_run_is_resumed(monkeypatch, capsys, tmp_path, finished):
    monkeypatch.chdir(tmp_path)
    for name in ("2026-01-01_00-00-00", "2026-02-01_00-00-00"):
        shutil.copytree(finished, Path("runs/job") / name)
    run(monkeypatch, "--resume")
    assert "resuming runs/job/2026-02-01_00-00-00" in capsys.readouterr().out


def test_a_run_of_another_app(monkeypatch, capsys, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"app": "sentiment"}))
    message = fails(monkeypatch, capsys, "--resume", "--output", tmp_path)
    assert "a run of the app sentiment, not job" in message


def test_a_damaged_config(monkeypatch, capsys, tmp_path):
    (tmp_path / "config.json").write_text("{")
    assert "is not a run's config" in fails(monkeypatch, capsys, "--resume", "--output", tmp_path)


def test_a_resumed_run_keeps_its_settings(monkeypatch, capsys, finished):
    message = fails(monkeypatch, capsys, "--resume", "--output", finished, "--units", 9)
    assert "--units 9: the run in" in message
    assert "has 8" in message
    assert "--epochs 7" in fails(monkeypatch, capsys, "--resume", "--output", finished, "--epochs", 7)


def test_a_damaged_checkpoint(monkeypatch, capsys, tmp_path, finished):
    shutil.copytree(finished, tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / "model.last.keras"
    last.write_bytes(last.read_bytes()[:-500])
    message = fails(monkeypatch, capsys, "--resume", "--output", tmp_path / "run")
    assert "not a complete .keras file" in message


def test_no_room_on_the_disk(monkeypatch, capsys, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    message = fails(monkeypatch, capsys, "--output", tmp_path / "run")
    assert "0 MB free, the run writes about 1 MB; free space or give another folder" in message


def test_an_interrupt_says_how_to_continue(monkeypatch, capsys, tmp_path):
    def main(run):
        raise KeyboardInterrupt

    message = fails(monkeypatch, capsys, "--output", tmp_path / "run", code=130, main=main)
    assert f"interrupted; continue with --resume --output {tmp_path / 'run'}" in message


def test_an_app_that_trains_nothing_has_no_flags_of_training(monkeypatch, capsys, tmp_path):
    seen = {}

    def main(run, *, units=8):
        seen.update(vars(run) | {"units": units})

    monkeypatch.setattr(sys, "argv", ["job.py", "--quick", "--output", str(tmp_path / "run")])
    launch(main)
    assert (seen["epochs"], seen["quick"], seen["units"]) == (0, True, 8)
    for flags, message in (
        (["--epochs", "3"], "unrecognized arguments: --epochs 3"),
        (["--measure", str(tmp_path)], "trains nothing, so there is nothing to compare"),
    ):
        monkeypatch.setattr(sys, "argv", ["job.py", *flags])
        with pytest.raises(SystemExit) as caught:
            launch(main)
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
