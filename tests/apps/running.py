import contextlib
import io
import runpy
import sys
from pathlib import Path
from unittest import mock

APPS = Path(__file__).parents[2] / "apps"


def run_app_here(name: str, folder: Path, *flags: str) -> str:
    """Run an app at `--quick` size in this process, which has the backend already, and give what it prints.

    To start one takes as long as many of these runs; the tests of `kseq run` do.
    """
    arguments = [f"{name}.py", "--quick", "--output", str(folder), *flags]
    printed = io.StringIO()
    with (
        mock.patch.object(sys, "argv", arguments),
        mock.patch.object(sys, "path", [str(APPS), *sys.path]),
        contextlib.redirect_stdout(printed),
    ):
        runpy.run_path(str(APPS / arguments[0]), run_name="__main__")
    return printed.getvalue()
