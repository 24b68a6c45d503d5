"""Pictures of the gradient flow through recurrent layers, each drawn as the median of the samples."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from kseq.analysis.gradient_flow import GradientFlow
from kseq.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_DECADES = 6  # colours from 1e-6 (blue) by 1 (white) to 1e6 (red)
_LOWEST, _HIGHEST = 1e-12, 1e12  # where the axis of the curves ends at the latest
_LOST = 1e-3  # 99.9 % lost
_COLOURS = ("#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000")  # Okabe & Ito's, for all eyes


def plot_heat_map(flow: GradientFlow, title: str = "") -> "Figure":
    """Draw log₁₀ ‖∂s_t/∂s_k‖₂ over k (across) and t (down): blue has vanished, white is 1, red explodes.

    The black line is 10⁻³, where 99.9 % of the gradient is lost; the colours end at 10⁻⁶ and 10⁶.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    axis = figure.subplots()
    image = _draw_map(axis, flow)
    axis.set(xlabel="k: the step it arrives at", ylabel="t: the step it comes from", title=title)
    _draw_scale(figure, image, axis)
    return figure


def plot_decay(flows: Mapping[str, GradientFlow]) -> "Figure":
    """Draw ‖∂s_T/∂s_{T−n}‖₂ of the last step T over the distance n, a panel a network, with the bound (β_w β_h)^n.

    The band holds all samples. Where h is not the whole state, ‖∂h_T/∂h_{T−n}‖₂ is drawn too.

    Args:
        flows: the networks by their names, which become the titles.
    """
    from matplotlib.figure import Figure

    _require_some(flows)
    figure = Figure(figsize=(1 + 4 * len(flows), 3.8), layout="constrained")
    axes = figure.subplots(1, len(flows), sharey=True, squeeze=False)[0]
    for axis, (name, flow) in zip(axes, flows.items(), strict=True):
        n = np.arange(flow.decay.shape[1])
        axis.fill_between(n, *map(_drawable, (flow.decay.min(axis=0), flow.decay.max(axis=0))), alpha=0.25, linewidth=0)
        axis.plot(n, _median(flow.decay), linewidth=2, label=r"$\|\partial s_T/\partial s_{T-n}\|$")
        if not np.array_equal(flow.norms, flow.hidden_norms, equal_nan=True):
            hidden = _median(flow.hidden_norms[:, -1, ::-1])
            axis.plot(n, hidden, linewidth=1.5, linestyle="-.", label=r"$\|\partial h_T/\partial h_{T-n}\|$")
        if flow.bound is not None:
            label = rf"bound $({flow.beta_w * flow.beta_h:.2f})^n$"
            axis.plot(n, _median(flow.bound[:, -1, ::-1]), color="black", linestyle="--", linewidth=1.2, label=label)
        axis.set(xlabel="n: steps back from the last", title=name)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, frameon=False, columnspacing=1.2)
    axes[0].set_ylabel("largest singular value")
    _show_decades(axes)
    _mark_levels(axes)
    return figure


def plot_loss_gradients(flows: Mapping[str, GradientFlow]) -> "Figure":
    """Draw ‖∂L/∂s_t‖₂ over t, a line a network: what a loss of the last output tells each earlier step."""
    from matplotlib.figure import Figure

    _require_some(flows)
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.set_prop_cycle(color=_COLOURS)
    for name, flow in flows.items():
        axis.plot(np.arange(flow.loss_gradients.shape[1]), _median(flow.loss_gradients), linewidth=2, label=name)
    axis.set(
        xlabel="t: step",
        ylabel=r"$\|\partial L/\partial s_t\|$",
        title="What a loss of the last output tells each step",
    )
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    _show_decades([axis])
    return figure


def plot_comparison(flows: Mapping[str, GradientFlow]) -> "Figure":
    """Draw several networks in one figure: ‖∂s_T/∂s_{T−n}‖₂ over n above, a line a network, and their maps below.

    The lines are those of `plot_decay`, the maps those of `plot_heat_map`.

    Args:
        flows: the networks by their names.
    """
    from matplotlib.figure import Figure

    _require_some(flows)
    figure = Figure(figsize=(max(10, 1.75 * len(flows)), 8.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.35, 1))
    axis = above.subplots()
    axis.set_prop_cycle(color=_COLOURS)
    for name, flow in flows.items():
        axis.plot(np.arange(flow.decay.shape[1]), _median(flow.decay), linewidth=2.2, label=name)
    axis.set(
        xlabel="n: steps back from the last step T",
        ylabel=r"$\|\partial s_T/\partial s_{T-n}\|$",
        title="What is left of the gradient n steps back",
    )
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    _show_decades([axis])
    _mark_levels([axis])

    axes = below.subplots(1, len(flows), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (name, flow) in zip(axes, flows.items(), strict=True):
        image = _draw_map(axis, flow)
        axis.set_title(name.replace(", ", ",\n"), fontsize="medium")
        axis.set_xlabel("k")
    axes[0].set_ylabel("t")
    _draw_scale(below, image, axes, location="bottom", aspect=60, shrink=0.6)
    return figure


def _draw_map(axis: "Axes", flow: GradientFlow) -> "AxesImage":
    logarithms = np.log10(_median(flow.norms))  # (t, k), NaN where k > t
    image = axis.imshow(logarithms, cmap="RdBu_r", vmin=-_DECADES, vmax=_DECADES, interpolation="nearest")
    lowest, highest = np.nanmin(logarithms), np.nanmax(logarithms)
    if lowest < np.log10(_LOST) < highest:
        axis.contour(logarithms, levels=[np.log10(_LOST)], colors="black", linewidths=1, linestyles="solid")
    axis.set_facecolor("0.8")
    return image


def _draw_scale(figure, image: "AxesImage", axes, **place) -> None:
    label = r"$\log_{10}\,\|\partial s_t/\partial s_k\|$; the line: 99.9 % lost"
    bar = figure.colorbar(image, ax=axes, extend="both", label=label, **place)
    bar.add_lines([np.log10(_LOST)], ["black"], [1])


def _show_decades(axes) -> None:
    """Logarithmic axes that show what the curves reach, 1 and 10⁻³, but no more than `_LOWEST` to `_HIGHEST`."""
    values = np.concatenate([line.get_ydata() for axis in axes for line in axis.lines])
    for axis in axes:
        axis.set_yscale("log")
        axis.set_ylim(max(min(values.min(), _LOST) / 3, _LOWEST), min(max(values.max(), 1) * 3, _HIGHEST))
        axis.margins(x=0.01)
        axis.grid(alpha=0.25)


def _mark_levels(axes) -> None:
    for axis in axes:
        axis.axhline(1, color="0.5", linewidth=0.8, zorder=1)
        axis.axhline(_LOST, color="0.5", linewidth=0.8, linestyle=":", zorder=1)
        place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
        axis.annotate("99.9 % lost", (0.995, _LOST), color="0.4", **place)


def _median(norms: np.ndarray) -> np.ndarray:
    return _drawable(np.median(norms, axis=0))


def _drawable(norms: np.ndarray) -> np.ndarray:
    return np.clip(norms, 1e-100, 1e100)  # a logarithmic axis has no 0 and no infinity


def _require_some(flows: Mapping[str, GradientFlow]) -> None:
    if not flows:
        raise InputError('flows {}: give one network or more, such as {"LSTM": gradient_flow(layer, inputs)}')
