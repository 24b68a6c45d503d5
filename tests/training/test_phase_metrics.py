from functools import cache
from itertools import groupby

import numpy as np
import pytest

from kseq.errors import InputError
from kseq.training.phase_metrics import phase_metrics

NAMES = ("preparation", "dissection", "clipping", "packaging")
TRUE = [np.array([0, 0, 1, 1, 1, 1, 2, 2, 2, 2]), np.array([1, 1, 1, 1, 2, 2, 2, 2])]
PREDICTED = [np.array([0, 1, 1, 1, 1, 1, 1, 2, 2, 3]), np.array([1, 1, 2, 1, 1, 1, 1, 1])]


def test_hand_computed_figures():
    metrics = phase_metrics(TRUE, PREDICTED, NAMES)
    assert metrics["videos"]["accuracy"] == [7 / 10, 3 / 8]
    assert metrics["accuracy"] == pytest.approx((0.7 + 0.375) / 2)
    assert metrics["accuracy_deviation"] == pytest.approx((0.7 - 0.375) / 2**0.5)
    assert metrics["frame_accuracy"] == pytest.approx(10 / 18)
    expected = {
        "preparation": (1, 1 / 2, 1 / 2),  # in the first video only
        "dissection": ((4 / 6 + 3 / 7) / 2, (1 + 3 / 4) / 2, (4 / 6 + 3 / 8) / 2),
        "clipping": ((1 + 0) / 2, (2 / 4 + 0) / 2, (2 / 4 + 0) / 2),
        "packaging": (None, None, None),  # in no video, though predicted in one
    }
    for name, figures in expected.items():
        row = metrics["phases"][name]
        assert [row[figure] for figure in ("precision", "recall", "jaccard")] == pytest.approx(figures)
    numbers = {name: (row["videos"], row["missed"], row["invented"]) for name, row in metrics["phases"].items()}
    assert numbers == {
        "preparation": (1, 0, 0),
        "dissection": (2, 0, 0),
        "clipping": (2, 0, 0),
        "packaging": (0, 0, 1),
    }
    recalls = (1 / 2, 7 / 8, 1 / 4)
    assert metrics["mean"]["recall"] == pytest.approx(np.mean(recalls))
    assert metrics["deviation"]["recall"] == pytest.approx(np.std(recalls, ddof=1))


def test_a_phase_that_is_never_predicted_has_no_precision():
    metrics = phase_metrics([np.array([0, 1]), np.array([0, 1])], [np.array([0, 0]), np.array([0, 1])], NAMES[:2])
    assert metrics["phases"]["dissection"] == {
        "precision": 1.0,
        "recall": 0.5,
        "jaccard": 0.5,
        "videos": 2,
        "missed": 1,
        "invented": 0,
    }


def test_hand_computed_segments():
    metrics = phase_metrics(TRUE, PREDICTED, NAMES)
    # 0 1 2 against 0 1 2 3: one too many. 1 2 against 1 2 1: one too many.
    assert metrics["videos"]["edit"] == pytest.approx([3 / 4, 2 / 3])
    assert metrics["edit"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    # Intersections over unions, first video: 1/2 of phase 0, 4/6 of 1, 2/4 of 2, none of 3. Second: 2/4 of 1, 0/5 of 2,
    # then 1/8 of 1, whose true segment is taken; that of phase 2 is missed.
    for overlap in (10, 25, 50):
        right, wrong, missed = 4, 1 + 2, 1
        assert metrics[f"f1@{overlap}"] == pytest.approx(2 * right / (2 * right + wrong + missed))


def test_thresholds_of_the_overlap():
    true = [np.repeat([0, 1], (8, 12))]
    for split, right in ((8, (2, 2, 2)), (4, (2, 2, 2)), (3, (2, 2, 1)), (1, (2, 1, 1)), (18, (2, 1, 0))):
        # Overlaps of 0: split / 8 or 8 / split; of 1: 12 / (20 - split) or (20 - split) / 12.
        metrics = phase_metrics(true, [np.repeat([0, 1], (split, 20 - split))], NAMES[:2])
        assert metrics["edit"] == 1
        found = [metrics[f"f1@{overlap}"] for overlap in (10, 25, 50)]
        assert found == [number / 2 for number in right], split


def test_a_true_segment_is_found_once():
    # A true segment in two pieces: the first, which is long enough, takes it; the second is wrong.
    metrics = phase_metrics([np.zeros(10, int)], [np.array([0] * 5 + [1] + [0] * 4)], NAMES[:2])
    assert metrics["f1@50"] == pytest.approx(2 / (2 + 2))
    assert metrics["edit"] == pytest.approx(1 / 3)


def test_the_edit_score_is_that_of_the_plain_recursion():
    def distance(one: tuple, other: tuple) -> int:
        @cache
        def of(i: int, j: int) -> int:
            if min(i, j) == 0:
                return max(i, j)
            return min(of(i - 1, j) + 1, of(i, j - 1) + 1, of(i - 1, j - 1) + (one[i - 1] != other[j - 1]))

        return of(len(one), len(other))

    random = np.random.default_rng(0)
    for _ in range(60):
        true, predicted = random.integers(0, 4, (2, random.integers(1, 25))).astype(random.choice(["uint8", "int64"]))
        segments = [tuple(phase for phase, _ in groupby(phases.tolist())) for phases in (true, predicted)]
        expected = 1 - distance(*segments) / max(map(len, segments))
        assert phase_metrics([true], [predicted], NAMES)["edit"] == pytest.approx(expected)


def test_f1_is_that_of_comparing_sets_of_frames():
    def segments(phases: np.ndarray) -> list[tuple[int, set[int]]]:
        runs = groupby(enumerate(phases.tolist()), key=lambda pair: pair[1])
        return [(phase, {frame for frame, _ in run}) for phase, run in runs]

    random = np.random.default_rng(1)
    true = [np.repeat(random.integers(0, 3, 8), random.integers(2, 12, 8)) for _ in range(20)]
    late = [np.roll(phases, random.integers(0, 6)) for phases in true]
    predicted = [np.where(random.random(len(phases)) < 0.95, phases, 1) for phases in late]
    metrics = phase_metrics(true, predicted, NAMES)
    scores = set()
    for overlap in (10, 25, 50):
        right = wrong = missed = 0
        for truth, answer in zip(true, predicted, strict=True):
            left = segments(truth)
            taken = []
            for phase, frames in segments(answer):
                shares = [len(frames & other) / len(frames | other) if phase == name else 0 for name, other in left]
                best = int(np.argmax(shares))
                if shares[best] * 100 >= overlap and best not in taken:
                    taken.append(best)
                else:
                    wrong += 1
            right, missed = right + len(taken), missed + len(left) - len(taken)
        assert metrics[f"f1@{overlap}"] == pytest.approx(2 * right / (2 * right + wrong + missed))
        scores.add(metrics[f"f1@{overlap}"])
    assert len(scores) == 3


def test_perfect_predictions():
    metrics = phase_metrics(TRUE, TRUE, NAMES)
    for figure in ("accuracy", "frame_accuracy", "edit", "f1@10", "f1@25", "f1@50"):
        assert metrics[figure] == 1
    assert metrics["accuracy_deviation"] == 0
    assert metrics["mean"] == {"precision": 1, "recall": 1, "jaccard": 1}
    alone = phase_metrics(TRUE[:1], TRUE[:1], NAMES)
    assert alone["accuracy_deviation"] is None


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        ([], [], "0 and 0 videos"),
        (TRUE, TRUE[:1], "2 and 1 videos"),
        (TRUE, [TRUE[0], TRUE[1][:-1]], "video 1: true phases of shape \\(8,\\), predicted of \\(7,\\)"),
        ([np.zeros(0, int)], [np.zeros(0, int)], "video 0: true phases of shape \\(0,\\)"),
        ([TRUE[0]], [TRUE[0] + 2], "video 0: predicted has phase 4; 4 class_names are 0 to 3"),
        ([TRUE[0] - 1], [TRUE[0]], "video 0: true has phase -1"),
        ([TRUE[0]], [TRUE[0] / 1.0], "video 0: predicted of type float64; give integers"),
    ],
)
def test_what_does_not_fit_is_refused(true, predicted, message):
    with pytest.raises(InputError, match=message):
        phase_metrics(true, predicted, NAMES)
