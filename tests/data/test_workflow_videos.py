import re
import sys
from itertools import product

import numpy as np
import pytest

from kseq.data import handwritten_digits
from kseq.data.workflow_model import WorkflowModel, bayes_accuracy, expected_accuracy
from kseq.data.workflow_videos import DURATIONS, TOOL_NAMES, _frames, _shrink, procedure_model, workflow_videos
from kseq.errors import InputError

MODEL = procedure_model()


def tiny(persistence: float = 0.4) -> WorkflowModel:
    """Three states, the first and the last of one phase, with a way round the middle one."""
    return WorkflowModel(
        class_names=("work", "rest"),
        views=((), (0,), (0, 1)),
        phases=np.array([0, 1, 0]),
        start=np.array([0.7, 0.3, 0.0]),
        follow=np.array([[0.0, 0.6, 0.3, 0.1], [0.0, 0.0, 0.8, 0.2], [0.0, 0.0, 0.0, 1.0]]),
        durations=np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [0.6, 0.0, 0.4]]),
        view_probabilities=np.array([[0.5, 0.4, 0.1], [0.3, 0.2, 0.5]]),
        persistence=persistence,
    )


def procedures(model: WorkflowModel, state: int | None = None):
    """All procedures: the phase of each frame, whether a state begins with it, and the probability."""
    states = len(model.start)
    after = model.start if state is None else model.follow[state, :states]
    if state is not None and model.follow[state, states]:
        yield (), (), model.follow[state, states]
    for following in np.flatnonzero(after):
        for duration in 1 + np.flatnonzero(model.durations[following]):
            chance = after[following] * model.durations[following, duration - 1]
            for phases, begins, rest in procedures(model, following):
                frames = (int(model.phases[following]),) * int(duration)
                yield frames + phases, (True,) + (False,) * int(duration - 1) + begins, chance * rest


def seen(model: WorkflowModel, phases, begins, views) -> float:
    """P(views | procedure), of the first frames if there are fewer views."""
    chance = 1.0
    for t, (phase, first, view) in enumerate(zip(phases, begins, views, strict=False)):
        new = model.view_probabilities[phase, view]
        stays = t > 0 and view == views[t - 1]
        chance *= new if first else model.persistence * stays + (1 - model.persistence) * new
    return chance


@pytest.mark.parametrize("persistence", [0.0, 0.4])
def test_posteriors_are_those_of_enumerating_all_procedures(persistence):
    model = tiny(persistence)
    everything = list(procedures(model))
    assert sum(chance for *_, chance in everything) == pytest.approx(1)
    for views in ([1], [0, 2, 2], [1, 1, 0, 2, 2, 1], [2, 2, 2, 2, 2, 0, 0]):
        online, offline = np.zeros((2, len(views), 2))
        for phases, begins, chance in everything:
            for t in range(min(len(views), len(phases))):
                online[t, phases[t]] += chance * seen(model, phases, begins, views[: t + 1])
            if len(phases) == len(views):
                for t, phase in enumerate(phases):
                    offline[t, phase] += chance * seen(model, phases, begins, views)
        np.testing.assert_allclose(model.online(views), online / online.sum(axis=1, keepdims=True), atol=1e-12)
        np.testing.assert_allclose(model.offline(views), offline / offline.sum(axis=1, keepdims=True), atol=1e-12)


def test_expected_accuracies_are_those_of_enumerating_all_that_can_be_seen():
    durations = np.array([[0.5, 0.5], [0.4, 0.6], [0.7, 0.3]])
    model = WorkflowModel(**{**vars(tiny()), "durations": durations})
    right, frames = np.zeros(3), 0.0
    counts = np.zeros((3, 2))
    by_length = {}
    for phases, begins, chance in procedures(model):
        by_length.setdefault(len(phases), []).append((phases, begins, chance))
        frames += chance * len(phases)
    for length, same in by_length.items():
        for views in product(range(3), repeat=length):
            chances = [chance * seen(model, phases, begins, views) for phases, begins, chance in same]
            if not sum(chances):
                continue
            answers = [
                getattr(model, name)(np.array(views)).argmax(axis=1) for name in ("framewise", "online", "offline")
            ]
            for (phases, *_), chance in zip(same, chances, strict=True):
                right += [chance * (answer == phases).sum() for answer in answers]
                np.add.at(counts, (list(views), list(phases)), chance)
    joint = model.expected_frames()[:, None] * model.view_probabilities
    np.testing.assert_allclose(counts, joint.T)
    np.testing.assert_allclose(model.framewise(np.arange(3)), counts / counts.sum(axis=1, keepdims=True))
    assert model.expected_frames().sum() == pytest.approx(frames)
    found = expected_accuracy(model, 1_000)
    assert found["framewise"] == pytest.approx(right[0] / frames)
    assert found["framewise"] == pytest.approx(counts.max(axis=1).sum() / frames)
    for name, exact in (("online", right[1] / frames), ("offline", right[2] / frames)):
        assert 0 < found[f"{name}_error"] < 0.02
        assert abs(found[name] - exact) < 4 * found[f"{name}_error"]
    assert found["framewise"] < found["online"] < found["offline"]


def test_the_bounds_of_the_procedure_are_as_counted():
    random = np.random.default_rng(0)
    drawn = [MODEL.sample(random) for _ in range(100)]
    phases, views = (list(part) for part in zip(*drawn, strict=True))
    bounds, found = expected_accuracy(MODEL, 60, seed=1), bayes_accuracy(MODEL, views, phases)
    assert bounds["framewise"] == pytest.approx(0.580, abs=5e-4)
    assert bounds["online"] == pytest.approx(0.915, abs=0.005)
    assert bounds["offline"] == pytest.approx(0.964, abs=0.003)
    counts = np.zeros((len(MODEL.views), 7))
    for x, p in zip(views, phases, strict=True):
        np.add.at(counts, (x, p), 1)
    assert counts.max(axis=1).sum() / counts.sum() == pytest.approx(bounds["framewise"], abs=0.02)  # the best table
    # Not only in the mean: what the posterior is sure of is right as often as it says.
    for name, slack in (("framewise", 0.025), ("online", 0.015), ("offline", 0.01)):
        assert found[name] == pytest.approx(bounds[name], abs=slack)
    online = np.concatenate([MODEL.online(x) for x in views])
    likely, right = online.max(axis=1), online.argmax(axis=1) == np.concatenate(phases)
    for low, high in ((0.4, 0.6), (0.6, 0.8), (0.8, 0.95), (0.95, 1.01)):
        some = (likely >= low) & (likely < high)
        assert right[some].mean() == pytest.approx(likely[some].mean(), abs=0.08)


def test_every_procedure_obeys_the_grammar():
    random = np.random.default_rng(1)
    initials = np.array(["p", "d", "c", "s", "k", "l", "r"])  # l cleaning, k packaging
    orders = set()
    for _ in range(400):
        phases, views = MODEL.sample(random)
        edges = np.flatnonzero(np.diff(phases, prepend=-1, append=-1))
        order = "".join(initials[phases[edges[:-1]]])
        assert re.fullmatch("p?dcs(k|kl|lk)r", order)
        orders.add(order)
        for phase, duration in zip(phases[edges[:-1]], np.diff(edges), strict=True):
            *_, least, most = list(DURATIONS.values())[phase]
            assert least <= duration <= most
        assert 60 <= len(phases) <= 160
        assert (MODEL.view_probabilities[phases, views] > 0).all()
    assert len(orders) == 6


def test_views_stay_leave_and_return():
    random = np.random.default_rng(2)
    stays, returns = [], 0
    for _ in range(100):
        phases, views = MODEL.sample(random)
        within = phases[1:] == phases[:-1]
        stays += (views[1:] == views[:-1])[within].tolist()
        for view in np.unique(views):
            returns += (np.diff((views == view).astype(int), prepend=0) == 1).sum() > 1
    repeated = (MODEL.expected_frames() / MODEL.expected_frames().sum()) @ (MODEL.view_probabilities**2).sum(axis=1)
    assert np.mean(stays) == pytest.approx(0.85 + 0.15 * repeated, abs=0.02)
    assert returns > 100


def test_frames_show_the_tools_beside_each_other():
    views = np.arange(len(MODEL.views)).repeat(5)
    for tool in (None, *range(7)):
        squares = [np.full((1, 14, 14), tool in (None, k), "float32") for k in range(7)]
        frames = _frames(views, MODEL, squares, 32, 0.0, np.random.default_rng(3))
        assert frames.shape == (len(views), 32, 32, 1)
        for frame, view in zip(frames, views, strict=True):
            bright = frame[..., 0] > 0.3 * 255
            shown = [k for k in MODEL.views[view] if tool in (None, k)]
            assert bright.sum() == 14 * 14 * len(shown)  # so none overlaps another


def test_places_of_tools_do_not_depend_on_their_order():
    squares = [np.full((1, 14, 14), k == 0, "float32") for k in range(7)]
    both = np.full(600, MODEL.views.index((0, 2)))
    frames = _frames(both, MODEL, squares, 32, 0.0, np.random.default_rng(4))
    centres = np.array([np.argwhere(frame[..., 0] > 76).mean(axis=0) for frame in frames])
    np.testing.assert_allclose(centres.mean(axis=0), (15.5, 15.5), atol=0.8)
    np.testing.assert_array_equal(np.unique(centres[:, 0]), np.arange(6.5, 25))  # every place occurs


def test_digits_are_shrunk_without_loss():
    images = handwritten_digits().train[0][:20, ..., 0]
    small = _shrink(images)
    assert small.shape == (20, 14, 14)
    ink = images[:, 3:25, 3:25].sum(axis=(1, 2)) / 255
    np.testing.assert_allclose(small.sum(axis=(1, 2)) * (22 / 14) ** 2, ink, rtol=1e-5)
    np.testing.assert_allclose(_shrink(np.full((1, 28, 28), 255, "uint8")), 1, rtol=1e-6)


def test_training_validation_and_test_show_different_images(monkeypatch):
    module = sys.modules[procedure_model.__module__]  # kseq.data.workflow_videos is the function
    used = []
    plain = module._frames

    def recorded(views, model, of_tool, *arguments):
        used.append(of_tool)
        return plain(views, model, of_tool, *arguments)

    monkeypatch.setattr(module, "_frames", recorded)
    workflow_videos((1, 1, 1))
    digits = handwritten_digits()
    for of_tool, (images, classes) in zip(used, (digits.train, digits.validation, digits.test), strict=True):
        assert len(of_tool) == 7
        for tool in range(7):
            np.testing.assert_array_equal(of_tool[tool], _shrink(images[classes == tool][..., 0]))


def test_what_is_returned_fits_together():
    videos = workflow_videos((3, 2, 4))
    assert videos.class_names == tuple(DURATIONS)
    assert videos.tool_names == TOOL_NAMES
    for part, (split, count) in enumerate(((videos.train, 3), (videos.validation, 2), (videos.test, 4))):
        assert len(split) == len(videos.tools[part]) == len(videos.views[part]) == count
        for (frames, phases), tools, views in zip(split, videos.tools[part], videos.views[part], strict=True):
            assert frames.shape == (len(phases), 32, 32, 1)
            assert frames.dtype == np.uint8
            assert phases.dtype == np.int32
            assert [tuple(np.flatnonzero(row)) for row in tools] == [videos.model.views[view] for view in views]
            blank = ~tools.any(axis=1)
            ink = frames.max(axis=(1, 2, 3)).astype(int) - np.median(frames, axis=(1, 2, 3))
            assert not blank.any() or ink[blank].max() < 70
            assert ink[~blank].min() > 70


def test_the_same_seed_gives_the_same_videos_and_splits_differ():
    one, same, other = (workflow_videos((2, 2, 2), seed=seed) for seed in (0, 0, 1))
    for part in ("train", "validation", "test"):
        for video, again in zip(getattr(one, part), getattr(same, part), strict=True):
            for array, expected in zip(video, again, strict=True):
                np.testing.assert_array_equal(array, expected)
    first = [videos.train[0][0].tobytes() for videos in (one, other)]
    assert len({*first, one.validation[0][0].tobytes(), one.test[0][0].tobytes()}) == 4


def test_other_procedures_can_be_drawn():
    videos = workflow_videos((2, 1, 1), size=28, model=tiny())
    assert videos.class_names == ("work", "rest")
    assert videos.tool_names == tuple("0123456789")
    assert videos.train[0][0].shape[1:] == (28, 28, 1)
    accuracy = bayes_accuracy(videos.model, videos.views[0], [phases for _, phases in videos.train])
    assert set(accuracy) == {"framewise", "online", "offline"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": (1, 0, 1)}, "count \\(1, 0, 1\\): give three"),
        ({"noise": -0.1}, "noise -0.1: give 0 to 1"),
        ({"size": 27}, "size 27: give 28 or more"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        workflow_videos(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": np.array([0.7, 0.2, 0.0])}, "start: give probabilities"),
        ({"follow": np.eye(3)}, "follow \\(3, 3\\): give \\(3, 4\\)"),
        ({"follow": np.eye(3, 4)}, "follow: a procedure may go round for ever"),
        ({"phases": np.array([0, 1, 2])}, "phases \\[0 1 2\\]: give numbers of class_names, 0 to 1"),
        ({"persistence": 1.0}, "persistence 1.0"),
    ],
)
def test_models_that_are_none_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        WorkflowModel(**{**vars(tiny()), **change})


def test_views_that_cannot_be_are_refused():
    model = tiny()
    with pytest.raises(InputError, match="no procedure shows the first 9 of them"):
        model.online([0] * 9)
    with pytest.raises(InputError, match="views of shape \\(1,\\): give numbers \\(time,\\) from 0 to 2"):
        model.offline([3])
    long = WorkflowModel(**{**vars(model), "start": np.array([0.0, 1.0, 0.0]), "durations": np.eye(3)[[2, 2, 2]]})
    with pytest.raises(InputError, match="no procedure that ends after 2 frames"):
        long.offline([0, 0])
