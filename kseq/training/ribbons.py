"""Pictures of phases over time: the truth and the predictions of several models below each other."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kseq.errors import InputError
from kseq.training.overlay import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THICKNESS = 0.8  # of a ribbon, the rest is the gap to the next


def plot_ribbons(
    true: Sequence[np.ndarray],
    predicted: Mapping[str, Sequence[np.ndarray]],
    class_names: Sequence[str],
    *,
    titles: Sequence[str] | None = None,
    frame_rate: float | None = None,
    colours: Sequence[str] = COLOURS,
) -> "Figure":
    """Draw for each video a ribbon of its true phases over time, and below it one for each model.

    The share of right frames stands behind each prediction. All videos have the same scale.

    Args:
        true: phases of each video, integers `(time,)`, indices into `class_names`.
        predicted: for each name of a model its phases, the same shapes.
        class_names: of the phases.
        titles: of the videos.
        frame_rate: frames a second; time is then in minutes, without it in frames.
        colours: of the phases, from the first again if there are more.

    Raises:
        InputError: if the numbers of videos or frames differ, or a phase has no name.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    _check(true, predicted, class_names, titles, frame_rate)
    palette = np.array([to_rgb(colours[phase % len(colours)]) for phase in range(len(class_names))])
    unit = 1.0 if frame_rate is None else 1 / (60 * frame_rate)
    longest = max(map(len, true)) * unit
    rows = ("truth", *predicted)
    height = 0.26 * len(rows) + (0.42 if titles is None else 0.62)
    figure = Figure(figsize=(9, len(true) * height + 0.9), layout="constrained")
    axes = figure.subplots(len(true), 1, squeeze=False, sharex=True)[:, 0]
    for video, axis in enumerate(axes):
        for row, phases in enumerate((true[video], *(answers[video] for answers in predicted.values()))):
            phases = np.asarray(phases)
            extent = (0, len(phases) * unit, row + THICKNESS / 2, row - THICKNESS / 2)
            axis.imshow(palette[phases][None], extent=extent, aspect="auto", interpolation="nearest")
            if row:
                share = np.mean(phases == np.asarray(true[video]))
                axis.text(len(phases) * unit + 0.008 * longest, row, f"{share:.1%}", va="center", fontsize=8)
        axis.set(xlim=(0, 1.07 * longest), ylim=(len(rows) - 0.5, -0.5), yticks=range(len(rows)))
        axis.set_yticklabels(rows, fontsize=9)
        axis.tick_params(left=False)
        axis.spines[["top", "right", "left"]].set_visible(False)
        if titles is not None:
            axis.set_title(titles[video], fontsize=10, loc="left")
    axes[-1].set_xlabel("frame" if frame_rate is None else "minutes")
    handles = [Patch(facecolor=palette[phase], label=name) for phase, name in enumerate(class_names)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 7), fontsize=9, frameon=False)
    return figure


def _check(true, predicted, class_names, titles, frame_rate) -> None:
    if len(true) == 0 or min(map(len, true)) == 0:
        raise InputError("true: no videos, or one without frames; give at least one of each")
    if titles is not None and len(titles) != len(true):
        raise InputError(f"titles: {len(titles)} for {len(true)} videos; give one for each")
    if frame_rate is not None and not frame_rate > 0:
        raise InputError(f"frame_rate {frame_rate!r}: give frames a second, above 0, or None")
    for name, answers in (("true", true), *predicted.items()):  # a model may be called "true" as well
        shapes = [np.shape(phases) for phases in answers]
        if shapes != [(len(phases),) for phases in true]:
            raise InputError(f"{name}: phases of shapes {shapes}; give one for each frame of each video, as in true")
        values = np.concatenate([np.asarray(phases) for phases in answers])
        if values.dtype.kind not in "iu" or not 0 <= values.min() <= values.max() < len(class_names):
            raise InputError(f"{name}: give phases as integers from 0 to {len(class_names) - 1}")
