"""Figures of phases that are recognised in held-out videos: of frames, of phases and of segments."""

from collections.abc import Sequence

import numpy as np

from kseq.errors import InputError

FIGURES = ("precision", "recall", "jaccard")
OVERLAPS = (10, 25, 50)  # per cent


def phase_metrics(true: Sequence[np.ndarray], predicted: Sequence[np.ndarray], class_names: Sequence[str]) -> dict:
    """Of every video and phase, with T the frames that have it truly and A those for which it is predicted:

        precision  |T ∩ A| / |A|        recall  |T ∩ A| / |T|        jaccard  |T ∩ A| / |T ∪ A|

    **Averages**, as those of the evaluation of Cholec80: first over the videos for each phase, then over the phases,
    and the deviation is that among the phases. A video in which a phase does not occur has no figures of it and counts
    in none of its means, even if the phase is predicted there; `invented` counts such videos. Where a phase occurs but
    is never predicted, recall and jaccard are 0 and the precision, 0/0, does not count; `missed` counts them. So read a
    precision together with `missed` and `invented`. The accuracy is the mean over videos of the share of right frames,
    with its deviation among the videos; `frame_accuracy` is the share among all frames together. Boundaries are strict:
    the 10 seconds around a change that the evaluation of the M2CAI challenge forgives are not forgiven.

    **Segments** are maximal runs of one phase. With L the Levenshtein distance of their sequences of phases,

        edit = 1 - L(true, predicted) / max(segments of true, of predicted), mean over the videos

    so it is about order and about splitting, not about time. For f1@k, each predicted segment in turn is compared with
    the true one of its phase that it overlaps most: it is right if their intersection over union is k % or more and no
    segment before took that one. Right, wrong and missed segments of all videos are counted together, as in MS-TCN:
    f1 = 2 right / (2 right + wrong + missed).

    Sources: Twinanda et al., "EndoNet", IEEE TMI 2017 (arXiv 1602.03012), and the evaluation of the M2CAI 2016
    challenge; Funke, Rivoir & Speidel, "Metrics matter in surgical phase recognition", 2023 (arXiv 2305.13961); Lea et
    al., "Temporal convolutional networks for action segmentation and detection", CVPR 2017 (arXiv 1611.05267); Abu
    Farha & Gall, "MS-TCN", CVPR 2019 (arXiv 1903.01945).

    Args:
        true: phases of each video, integers `(time,)`, indices into `class_names`.
        predicted: the same.
        class_names: of the phases.

    Returns:
        `{"accuracy", "accuracy_deviation", "frame_accuracy", "edit", "f1@10", "f1@25", "f1@50", "phases": {name:
        {"precision", "recall", "jaccard", "videos", "missed", "invented"}}, "mean": {figure: mean of the phases'},
        "deviation": {figure: …}, "videos": {"accuracy": [one a video], "edit": […]}}`, shares from 0 to 1, deviations
        those of a sample (divided by n - 1). `None` stands where a figure has no value.

    Raises:
        InputError: if the numbers of videos or frames differ, or a phase is none of `class_names`.
    """
    if len(true) != len(predicted) or len(true) == 0:
        raise InputError(f"true, predicted: {len(true)} and {len(predicted)} videos; give as many, at least one")
    videos = [tuple(map(np.asarray, pair)) for pair in zip(true, predicted, strict=True)]
    for number, (truth, answer) in enumerate(videos):
        _check(number, truth, answer, len(class_names))
    right = [truth == answer for truth, answer in videos]
    accuracies = [float(frames.mean()) for frames in right]
    values = np.array([_figures(*video, len(class_names)) for video in videos])  # (videos, phases, figures)
    there, seen = (
        np.array([[(video[which] == phase).any() for phase in range(len(class_names))] for video in videos])
        for which in range(2)
    )  # (videos, phases)
    phases = {
        name: {figure: _mean(values[:, phase, i]) for i, figure in enumerate(FIGURES)}
        | {
            "videos": int(there[:, phase].sum()),
            "missed": int((there & ~seen)[:, phase].sum()),
            "invented": int((~there & seen)[:, phase].sum()),
        }
        for phase, name in enumerate(class_names)
    }
    of_phases = {figure: [row[figure] for row in phases.values() if row[figure] is not None] for figure in FIGURES}
    segments = [tuple(map(_segments, video)) for video in videos]
    edits = [_edit_score(*(phases for phases, _, _ in pair)) for pair in segments]
    return {
        "accuracy": _mean(accuracies),
        "accuracy_deviation": _deviation(accuracies),
        "frame_accuracy": float(np.concatenate(right).mean()),
        "edit": _mean(edits),
        **{f"f1@{overlap}": _f1(segments, overlap / 100) for overlap in OVERLAPS},
        "phases": phases,
        "mean": {figure: _mean(row) for figure, row in of_phases.items()},
        "deviation": {figure: _deviation(row) for figure, row in of_phases.items()},
        "videos": {"accuracy": accuracies, "edit": edits},
    }


def _check(number: int, truth: np.ndarray, answer: np.ndarray, classes: int) -> None:
    if truth.ndim != 1 or truth.shape != answer.shape or len(truth) == 0:
        raise InputError(
            f"video {number}: true phases of shape {truth.shape}, predicted of {answer.shape}; give one phase for each "
            "frame, (time,) both, and cut padding off"
        )
    for name, phases in (("true", truth), ("predicted", answer)):
        if phases.dtype.kind not in "iu":
            raise InputError(f"video {number}: {name} of type {phases.dtype}; give integers (of scores the argmax)")
        if phases.min() < 0 or phases.max() >= classes:
            bad = next(phase for phase in phases.tolist() if not 0 <= phase < classes)
            raise InputError(f"video {number}: {name} has phase {bad}; {classes} class_names are 0 to {classes - 1}")


def _figures(truth: np.ndarray, answer: np.ndarray, classes: int) -> np.ndarray:
    """Precision, recall and Jaccard index of each phase, `(phases, 3)`, NaN where there is none."""
    counts = np.zeros((classes, classes))
    np.add.at(counts, (truth, answer), 1)
    both, true, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        figures = np.stack([both / predicted, both / true, both / (true + predicted - both)], axis=1)
    figures[true == 0] = np.nan
    return figures


def _segments(phases: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The phase of each segment, its first frame, and the one after its last, `(segments,)` each."""
    changes = np.flatnonzero(np.diff(phases)) + 1
    first = np.append(0, changes)
    return phases[first], first, np.append(changes, len(phases))


def _edit_score(true: np.ndarray, predicted: np.ndarray) -> float:
    """One minus the Levenshtein distance of two sequences of segments, over the length of the longer."""
    distances = np.arange(len(predicted) + 1)  # of the segments of `true` so far from the first 0, 1, … of `predicted`
    for phase in true:
        longer = distances + 1  # the segment of `true` is left out
        changed = distances[:-1] + (predicted != phase)  # or becomes one of `predicted`
        for i, best in enumerate(np.minimum(longer[1:], changed)):
            longer[i + 1] = min(best, longer[i] + 1)  # or one of `predicted` is put in
        distances = longer
    return float(1 - distances[-1] / max(len(true), len(predicted)))


def _f1(segments: list[tuple], overlap: float) -> float:
    right = wrong = missed = 0
    for (phases, first, end), (answers, begin, stop) in segments:
        taken = np.zeros(len(phases), bool)
        for answer, start, last in zip(answers, begin, stop, strict=True):
            both = (np.minimum(end, last) - np.maximum(first, start)).clip(0)
            shares = both / (end - first + last - start - both) * (phases == answer)
            best = shares.argmax()
            if shares[best] >= overlap and not taken[best]:
                taken[best] = True
            else:
                wrong += 1
        right, missed = right + int(taken.sum()), missed + int((~taken).sum())
    return 2 * right / (2 * right + wrong + missed)


def _mean(values: Sequence[float]) -> float | None:
    values = np.asarray(values, "float64")
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
