"""Simulated procedures: videos whose phases no single frame tells, and how well they can be told from all frames."""

from dataclasses import dataclass

import numpy as np

from kseq.data.dataset import Arrays, Entry
from kseq.data.handwritten_digits import handwritten_digits
from kseq.data.workflow_model import WorkflowModel
from kseq.errors import InputError, shorten

ENTRY = Entry(
    name="workflow_videos",
    task="video → phase of each frame",
    size="any number of videos of 60–160 frames, 32×32, 7 phases",
    source="generated from the embedded MNIST digits",
    licence="CC BY-SA 3.0",
)
SIDE = 14  # pixels of a tool
TOOL_NAMES = ("grasper", "bipolar", "hook", "scissors", "clipper", "irrigator", "bag")  # tool k is a digit k

# Of each phase the mean and the standard deviation, in frames, of a gamma distribution, and the least and the most that
# it is then cut to.
DURATIONS = {
    "preparation": (10, 4, 4, 16),
    "dissection": (31, 9, 22, 44),
    "clipping": (11, 4, 6, 16),
    "separation": (28, 8, 20, 40),
    "packaging": (10, 4, 6, 14),
    "cleaning": (11, 5, 4, 16),
    "retraction": (9, 4, 6, 14),
}
# What follows what. Packaging and cleaning come in either order, so each of them is two states.
GRAMMAR = {
    "start": {"preparation": 0.8, "dissection": 0.2},
    "preparation": {"dissection": 1.0},
    "dissection": {"clipping": 1.0},
    "clipping": {"separation": 1.0},
    "separation": {"packaging": 0.6, "cleaning, not packed": 0.4},
    "packaging": {"cleaning": 0.55, "retraction": 0.45},
    "cleaning": {"retraction": 1.0},
    "cleaning, not packed": {"packaging, cleaned": 1.0},
    "packaging, cleaned": {"retraction": 1.0},
    "retraction": {"end": 1.0},
}
# What is in view, by the names of tools, and how often in each phase, in per cent.
VIEWS = {
    "":                  (20, 10, 10, 10, 10, 10, 20),
    "grasper":           (40, 10, 25,  5, 25, 15, 35),
    "grasper hook":      ( 0, 60, 15, 15,  0,  0,  0),
    "hook":              ( 0, 10,  0, 45,  0,  0,  0),
    "grasper bipolar":   ( 0,  5,  0, 15,  5, 15,  0),
    "bipolar":           ( 0,  0,  0, 10,  0, 10,  0),
    "grasper clipper":   ( 0,  0, 30,  0,  0,  0,  0),
    "grasper scissors":  ( 0,  0, 20,  0,  0,  0,  0),
    "grasper irrigator": (30,  5,  0,  0,  0, 30,  5),
    "irrigator":         (10,  0,  0,  0,  0, 20,  0),
    "grasper bag":       ( 0,  0,  0,  0, 40,  0, 15),
    "bag":               ( 0,  0,  0,  0, 20,  0, 25),
}  # fmt: skip
PERSISTENCE = 0.85


@dataclass(frozen=True)
class WorkflowVideos:
    """Videos of procedures with the phase of each frame, split once and for all, and the model that drew them.

    Attributes:
        train: a list of `(frames, phases)`: frames uint8 `(time, size, size, 1)`, phases int32 `(time,)`, indices into
            `class_names`. The times differ. Videos of `cholec80` are not in memory, so its lists have no such pairs.
        validation: the same, for choosing a model.
        test: the same, for the final figures.
        class_names: of the phases.
        tool_names: of the tools; tool k is a handwritten digit k.
        tools: for the videos of `train`, `validation` and `test` the tools in view, bool `(time, tools)` each.
        views: the same as numbers in `model.views`, int32 `(time,)` each.
        model: gives the probability of each phase by what is in view.
        source: where the data come from, and their licence.
    """

    train: list[Arrays]
    validation: list[Arrays]
    test: list[Arrays]
    class_names: tuple[str, ...]
    tool_names: tuple[str, ...]
    tools: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]
    views: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]
    model: WorkflowModel
    source: str


def workflow_videos(
    count: tuple[int, int, int] = (200, 40, 80),
    *,
    size: int = 32,
    noise: float = 0.05,
    seed: int = 0,
    model: WorkflowModel | None = None,
) -> WorkflowVideos:
    """Videos of a procedure in seven phases, as of gallbladder surgery, in which digits stand for the tools in view.

    The phases follow a stochastic grammar (preparation or cleaning may be missing; packaging and cleaning come in
    either order) and take a random time each. A frame shows none, one or two of seven tools; what is in view stays for
    a while, leaves and returns, and is drawn from a distribution that belongs to the phase. Most views occur in several
    phases: dissection and separation show much the same, retraction what preparation and packaging show, and all are
    blank at times. What tells them apart is what was seen before.

    Tool k is an image of the digit k, shrunk to 14×14 pixels, at a random place that overlaps no other. Every frame
    takes other images, places, contrasts and noise, independent of all else: a frame tells no more than its view. The
    images of training, validation and test videos are different ones, the splits of `handwritten_digits`.

    **What can be reached.** Three observers that read every tool without error and know the model have the best
    accuracies there are, as shares of all frames. `kseq.data.workflow_model` computes them, on given videos
    (`bayes_accuracy`) and in expectation (`expected_accuracy`); of the model above, from 4,000 procedures:

        framewise  0.580 (exact)    sees one frame
        online     0.915 ± 0.001    sees it and all before it
        offline    0.964 ± 0.001    sees all of them

    A network sees pixels and learns from examples: it misreads some tools and is expected to stay below. On a few test
    videos chance moves bounds and networks alike, so compare on the same ones. The framewise observer does not know
    the time; a network that is told the number of the frame is not framewise.

    Args:
        count: videos of training, validation and test.
        size: height and width of a frame, room for all tools of a view beside each other.
        noise: standard deviation of the normal noise, as a share of the range of grey values.
        seed: the same one gives the same videos, on every backend.
        model: of the procedures, instead of `procedure_model()`; of at most 10 tools, which are then named by digits.

    Returns:
        A `WorkflowVideos`.

    Raises:
        InputError: if a count is below 1, the frames are too small, the noise is no share, or there are too many tools.
    """
    count = tuple(count)
    if len(count) != 3 or min(count) < 1:
        raise InputError(f"count {count}: give three, of training, validation and test, 1 or more each")
    if not 0 <= noise <= 1:
        raise InputError(f"noise {shorten(noise)}: give 0 to 1")
    names = tuple("0123456789") if model else TOOL_NAMES
    model = model or procedure_model()
    largest = max(SIDE, SIDE * max(map(len, model.views)))
    if size < largest:
        raise InputError(f"size {shorten(size)}: give {largest} or more, room for the tools of a view")
    if max((tool for view in model.views for tool in view), default=0) >= len(names):
        raise InputError(f"model.views: tools are numbers from 0 to {len(names) - 1}, as digits stand for them")
    digits = handwritten_digits()
    videos, tools, views = [], [], []
    for part, (images, classes) in enumerate((digits.train, digits.validation, digits.test)):
        random = np.random.default_rng((seed, part))
        drawn = [model.sample(random) for _ in range(count[part])]
        small = _shrink(images[..., 0])
        of_tool = [small[classes == tool] for tool in range(len(names))]
        videos.append([(_frames(x, model, of_tool, size, noise, random), phases) for phases, x in drawn])
        views.append([x for _, x in drawn])
        shown = np.array([[tool in view for tool in range(len(names))] for view in model.views])
        tools.append([shown[x] for x in views[part]])
    return WorkflowVideos(
        *videos,
        class_names=model.class_names,
        tool_names=names,
        tools=tuple(tools),
        views=tuple(views),
        model=model,
        source=f"{ENTRY.source}; licence: {ENTRY.licence}",
    )


def procedure_model() -> WorkflowModel:
    """The model of `GRAMMAR`, `DURATIONS` and `VIEWS`: procedures of 60 to 160 frames, 104 on average."""
    states = list(GRAMMAR)[1:]
    ends = [*states, "end"]
    follow = np.array([[GRAMMAR[state].get(after, 0.0) for after in ends] for state in ("start", *states)])
    phase_of = [state.split(",")[0] for state in states]  # "packaging, cleaned" is packaging
    percent = np.array(list(VIEWS.values()), "float64").T  # (phases, views)
    return WorkflowModel(
        class_names=tuple(DURATIONS),
        views=tuple(tuple(sorted(map(TOOL_NAMES.index, view.split()))) for view in VIEWS),
        phases=np.array([list(DURATIONS).index(phase) for phase in phase_of]),
        start=follow[0, :-1],
        follow=follow[1:],
        durations=np.stack([_durations(*DURATIONS[phase]) for phase in phase_of]),
        view_probabilities=percent / 100,
        persistence=PERSISTENCE,
    )


def _durations(mean: float, deviation: float, least: int, most: int) -> np.ndarray:
    """A gamma distribution taken at whole numbers from `least` to `most`: the probabilities of 1, 2, … frames."""
    frames = np.arange(1, 1 + max(most for *_, most in DURATIONS.values()))
    shape, scale = (mean / deviation) ** 2, deviation**2 / mean
    density = frames ** (shape - 1) * np.exp(-frames / scale) * ((frames >= least) & (frames <= most))
    return density / density.sum()


def _shrink(images: np.ndarray) -> np.ndarray:
    """The middle 22×22 pixels of digits, which hold almost all ink, as means over 14×14 fields, from 0 to 1."""
    edges = np.linspace(3, 25, SIDE + 1)[:, None]
    pixels = np.arange(28)
    covered = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)  # of each pixel by each field
    share = (covered.clip(0) / (edges[1:] - edges[:-1])).astype("float32")  # (14, 28)
    return share @ (images.astype("float32") / 255) @ share.T


def _frames(
    views: np.ndarray,
    model: WorkflowModel,
    of_tool: list[np.ndarray],
    size: int,
    noise: float,
    random: np.random.Generator,
) -> np.ndarray:
    """The frames of a video, uint8 `(time, size, size, 1)`."""
    paper = random.uniform(0.05, 0.2, len(views))
    frames = np.tile(paper[:, None, None], (1, size, size)).astype("float32")
    for frame, view in zip(frames, views, strict=True):
        tools = model.views[view]
        for tool, (top, left) in zip(tools, _places(len(tools), size, random), strict=True):
            image = of_tool[tool][random.integers(len(of_tool[tool]))]
            frame[top : top + SIDE, left : left + SIDE] += random.uniform(0.6, 0.8) * image
    frames += np.float32(noise) * random.standard_normal(frames.shape, "float32")
    return np.rint(255 * frames.clip(0, 1)).astype("uint8")[..., None]


def _places(number: int, size: int, random: np.random.Generator) -> list[tuple[int, int]]:
    """The top left corners of `number` squares that do not overlap, in random order."""
    along = np.sort(random.integers(0, size - SIDE * number + 1, number)) + SIDE * np.arange(number)
    across = random.integers(0, size - SIDE + 1, number)
    order = random.permutation(number)
    places = zip(along[order].tolist(), across.tolist(), strict=True)
    return list(places) if random.random() < 0.5 else [(top, left) for left, top in places]
