"""The README is true: every command and program in it runs, and its table of models is the registry."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kseq.cli import main
from kseq.models.registry import variants
from tests.conftest import tensorflow_only, torch_only, whole_only

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "saved_models" / "README.md",
    *(ROOT / "docs").glob("*.md"),
]
SMALL = "--quick --no-baselines --units 8"


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A folder that looks like the repository, where commands may write."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("apps", "docs", "saved_models"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def is_run_by_a_test_of_its_app(words: str) -> bool:
    """Whether it runs an app with no flags but those that the app's own test gives."""
    match = re.fullmatch(r"run apps/(\w+)\.py(?: --backend \w+)?((?: [^ ]+)*)", words)
    test = ROOT / "tests" / "apps" / f"test_{match[1]}.py" if match else None
    return bool(match) and all(f'"{flag}"' in test.read_text() for flag in match[2].split())


@tensorflow_only
def test_every_command_runs(clone, monkeypatch):
    monkeypatch.chdir(clone)
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("kseq ")]
    assert len(commands) >= 10
    others = {"make demo", "make test", "source .venv/bin/activate"}
    others |= {f"python benchmarks/{name}.py" for name in ("recurrent", "attention", "text", "segmentation", "video")}
    assert set(lines) - set(commands) == others
    for command in commands:
        words = command.removeprefix("kseq ")
        if is_run_by_a_test_of_its_app(words) or words.startswith("compare "):  # tests/compare compares
            continue
        if words.startswith("run "):
            if "--help" not in words and "--resume" not in words:  # which takes its settings from the first
                words += f" {SMALL}"
            done = subprocess.run(
                [sys.executable, "-m", "kseq", *shlex.split(words)],
                cwd=clone,
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        else:  # in this process, which has TensorFlow already
            monkeypatch.setattr(sys, "argv", ["kseq", *shlex.split(words)])
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code in (0, None), command


def rows_of_benchmark(name: str, backend: str, *flags: str) -> list[str]:
    """The lines of its tables, of tiny shapes and on one backend; the figures say nothing then."""
    command = [sys.executable, f"benchmarks/{name}.py", "--quick", "--rounds", "1", "--backends", backend, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [row for row in done.stdout.strip().splitlines() if row]


@whole_only
def test_the_benchmark_of_recurrent_layers_runs():
    rows = rows_of_benchmark("recurrent", "torch")
    assert len(rows) == 2 + 5 * 2 * 2  # layers, masked or not, inference and training
    assert all(float(row.split("|")[2].split()[0]) > 0 for row in rows[2:])


@whole_only
def test_the_benchmark_of_segmentation_runs():
    rows = rows_of_benchmark("segmentation", "tensorflow", "--models", "UNet,Swin")
    models, layers = rows[:4], rows[4:]
    assert all(float(ratio) > 0 for row in models[2:] for ratio in row.split("|")[3].split(","))
    assert len(layers) == 2 + 4
    assert all(float(row.split("|")[3].split()[0].replace(",", "")) >= 0 for row in layers[2:])


@whole_only
def test_the_benchmark_of_attention_runs():
    models, layers = (rows_of_benchmark("attention", "torch")[part] for part in (slice(0, 6), slice(6, None)))
    assert len(models) == 2 + 4
    assert all(float(row.split("|")[2].split(",")[0]) > 0 for row in models[2:-1])
    assert len(layers) == 2 + 2 * 2  # whole and in windows, time and memory
    assert all(float(row.split("|")[3].split()[0]) > 0 for row in layers[2:4])


@whole_only
def test_the_benchmark_of_texts_runs():
    rows = rows_of_benchmark("text", "torch", "--parts", "training,decoding")  # what is served, tests/export tests
    training, decoding = rows[:7], rows[7:]
    assert len(training) == 2 + 5
    assert len(decoding) == 2 + 2
    assert all(float(row.split("|")[2].split()[0]) > 0 for row in training[2:] + decoding[2:])


@whole_only
def test_the_benchmark_of_video_runs():
    rows = rows_of_benchmark("video", "torch")
    assert len(rows) == 2 + 2  # inference and training
    assert all(float(row.split("|")[2].split(",")[0]) > 0 for row in rows[2:])


@tensorflow_only
def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "install"):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize(
    "page", [path.name for path in sorted((ROOT / "docs").glob("*.md")) if blocks("python", path.read_text())]
)
@torch_only
def test_the_programs_of_a_page_run(page, tmp_path, monkeypatch):
    """In this process: a start of a backend for each program would take longer than the programs."""
    monkeypatch.chdir(tmp_path)
    for i, program in enumerate(blocks("python", (ROOT / "docs" / page).read_text())):
        exec(compile(program, f"{page}, program {i}", "exec"), {"__name__": "__main__"})


@tensorflow_only
def test_the_program_runs(clone):
    (program,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", program], cwd=clone, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (clone / "tagger" / "saved_model.pb").is_file()
    for name in ("tagger.keras", "tagger"):
        (clone / name).rename(clone / f"{name}.done")


@tensorflow_only
def test_the_program_beside_the_saved_models_runs():
    (program,) = blocks("python", (ROOT / "saved_models" / "README.md").read_text())
    program += '\nprint(answer["label"].numpy())'
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "[b'adjective' b'adverb']", done.stderr


def test_the_table_of_models_is_the_registry():
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| ([\d,]+) \|", README, flags=re.MULTILINE)
    expected = [(name, v.model.__name__, f"{v.parameters:,}") for name, v in sorted(variants().items())]
    assert sorted(rows) == expected


@pytest.mark.parametrize("page", [str(path.relative_to(ROOT)) for path in PAGES])
def test_every_link_and_picture_is_there(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target
