"""A comparison of backends as a table in the terminal and as a self-contained HTML page."""

import io
from html import escape

from rich.console import Console
from rich.table import Table

ROWS = {
    "logits_difference": ("initial logits, largest difference", "{:.1e}"),
    "step_difference": ("weights after one step, largest difference", "{:.1e}"),
    "import_seconds": ("import", "{:.1f} s"),
    "first_step_seconds": ("to the first step (compile)", "{:.1f} s"),
    "step_seconds": ("a step (median)", "{:.4f} s"),
    "peak_memory_bytes": ("peak memory", "{:.0f} MB"),
}
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; margin: 1.5rem 0 }}
th, td {{ padding: .35rem .9rem; border-bottom: 1px solid #ddd; text-align: right }}
th:first-child, td:first-child {{ text-align: left }}
.bad {{ color: #b00020; font-weight: 600 }}
svg {{ max-width: 100%; height: auto }}
</style>
<h1>{title}</h1>
<p>{verdict}</p>
{table}
<p>Differences are to {reference}, measured without dropout from common weights on the first batch, the step being
gradient descent with learning rate 1; allowed are {logits:.0e} for logits and {step:.0e} for weights.
Each backend draws its own dropout, so the curves differ.</p>
{curves}
</html>
"""


def print_comparison(comparison: dict) -> None:
    """Print the comparison as a table, a column a backend."""
    names = list(comparison["backends"])
    table = Table("", *names, title=f"{_job(comparison)} on {len(names)} backends")
    for label, cells in _cells(comparison):
        table.add_row(label, *(f"[bold red]{text}[/]" if bad else text for text, bad in cells))
    console = Console()
    console.print(table)
    console.print(f"{_verdict(comparison)} Report: {comparison['folder']}/report.html")


def _job(comparison: dict) -> str:
    return " ".join([comparison["app"], *comparison["flags"]])


def html_report(comparison: dict) -> str:
    """The comparison as one HTML page with its plot inside."""
    head = "".join(f"<th>{escape(name)}</th>" for name in comparison["backends"])
    body = ""
    for label, cells in _cells(comparison):
        values = "".join(f"<td class='{'bad' if bad else ''}'>{escape(text)}</td>" for text, bad in cells)
        body += f"<tr><td>{escape(label)}</td>{values}</tr>"
    return PAGE.format(
        title=f"{escape(_job(comparison))}: one job, {len(comparison['backends'])} backends",
        verdict=_verdict(comparison),
        table=f"<table><tr><th></th>{head}</tr>{body}</table>",
        reference=_reference(comparison),
        logits=comparison["tolerances"]["logits_difference"],
        step=comparison["tolerances"]["step_difference"],
        curves=_curves(comparison),
    )


def _cells(comparison: dict) -> list[tuple[str, list[tuple[str, bool]]]]:
    """Rows of (label, [(text, whether it is bad), …]), a text a backend."""
    backends = list(comparison["backends"].values())
    table = [("status", [(row["status"], row["status"] != "ok") for row in backends])]
    for key, (label, form) in ROWS.items():
        cells = []
        for row in backends:
            value = row.get(key)
            if value is not None and key == "peak_memory_bytes":
                value /= 1e6
            bad = value is not None and value > comparison["tolerances"].get(key, float("inf"))
            cells.append(("–" if value is None else form.format(value), bad))
        table.append((label, cells))
    names = dict.fromkeys(name for row in backends for name in row.get("metrics", {}))
    for name in names:
        values = [row.get("metrics", {}).get(name) for row in backends]
        table.append((f"test {name.replace('_', ' ')}", [("–" if v is None else f"{v:.4f}", False) for v in values]))
    return table


def _reference(comparison: dict) -> str:
    return next((name for name, row in comparison["backends"].items() if row["status"] == "ok"), "none")


def _verdict(comparison: dict) -> str:
    if comparison["agrees"]:
        return "All backends that ran agree."
    return "The backends do not agree, or one failed."


def _curves(comparison: dict) -> str:
    """The losses of all backends in one SVG picture; empty if none has trained."""
    from matplotlib.figure import Figure

    trained = {name: row["history"] for name, row in comparison["backends"].items() if "history" in row}
    if not trained:
        return ""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    for colour, (name, history) in enumerate(trained.items()):
        axis.plot(history["epoch"], history["loss"], f"C{colour}o-", markersize=3, label=f"{name}, training")
        if "val_loss" in history:
            axis.plot(history["epoch"], history["val_loss"], f"C{colour}o--", markersize=3, label=f"{name}, validation")
    axis.set(xlabel="epoch", ylabel="loss")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return text.getvalue()[text.getvalue().index("<svg") :]
