"""The hidden semi-Markov model of a procedure: what it draws, and what the tools in view tell of the phase, exactly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kseq.errors import InputError, shorten


@dataclass(frozen=True)
class WorkflowModel:
    """Procedures that pass through the states of a grammar, stay for a while in each, and show tools meanwhile.

    With states s_1, s_2, … of durations D_1, D_2, … and the view x_t, the set of tools in view at frame t:

        P(s_1 = i) = start_i,  P(s_{k+1} = j | s_k = i) = follow_ij,  P(end | s_k = i) = follow_i,last
        P(D_k = d | s_k = i) = durations_i,d-1
        P(x_t | x_{t-1}, phase p) = q_p(x_t)                                          in the first frame of a state
                                  = persistence [x_t = x_{t-1}] + (1 - persistence) q_p(x_t)  in the others

    A phase may have several states, as one that comes in either order. In every frame of phase p alone the view has
    the distribution q_p, so a single frame tells P(p | x) ∝ E[frames in p] q_p(x).

    A frame of the video is a state and its age: the durations become the chance h_i(a) that a state of age a ends, and
    the exact posteriors come from the forward and backward recursions of the chain of (state, age).

    Source: Ferguson, "Variable duration models for speech", 1980; Rabiner, "A tutorial on hidden Markov models", Proc.
    IEEE 77, 1989, section IV.D.

    Attributes:
        class_names: of the phases.
        views: the sets of tools that can be in view, as increasing numbers of the tools.
        phases: the phase of each state, int `(states,)`.
        start: `(states,)`.
        follow: `(states, states + 1)`, the last column is the end.
        durations: `(states, longest)`, of 1, 2, … frames.
        view_probabilities: q, `(phases, views)`.
        persistence: chance that a view stays without being drawn anew.

    Raises:
        InputError: if the shapes do not fit, a phase has no name, probabilities do not sum to 1, or a procedure may
            have no end; from `online` and `offline`, if views are unknown or impossible.
    """

    class_names: tuple[str, ...]
    views: tuple[tuple[int, ...], ...]
    phases: np.ndarray
    start: np.ndarray
    follow: np.ndarray
    durations: np.ndarray
    view_probabilities: np.ndarray
    persistence: float = 0.0

    def __post_init__(self):
        states = len(self.phases)
        shapes = {
            "start": (states,),
            "follow": (states, states + 1),
            "durations": (states, self.durations.shape[-1]),
            "view_probabilities": (len(self.class_names), len(self.views)),
        }
        for name, shape in shapes.items():
            table = getattr(self, name)
            if table.shape != shape:
                raise InputError(f"{name} {table.shape}: give {shape}")
            if (table < 0).any() or not np.allclose(table.sum(axis=-1), 1):
                raise InputError(f"{name}: give probabilities, 0 or more, that sum to 1 in each row")
        if min(self.phases) < 0 or max(self.phases) >= len(self.class_names):
            raise InputError(f"phases {self.phases}: give numbers of class_names, 0 to {len(self.class_names) - 1}")
        if not 0 <= self.persistence < 1:
            raise InputError(f"persistence {shorten(self.persistence)}: give 0 or more, less than 1")
        if np.abs(np.linalg.eigvals(self.follow[:, :-1])).max() > 1 - 1e-9:
            raise InputError("follow: a procedure may go round for ever; give every state a way to the end")

    def sample(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The phases and the views (numbers in `views`) of a procedure, both int32 `(time,)`."""
        phases, views = [], []
        state = random.choice(len(self.start), p=self.start)
        while state < len(self.start):
            q = self.view_probabilities[self.phases[state]]
            for age in range(1 + random.choice(self.durations.shape[1], p=self.durations[state])):
                if age == 0 or random.random() >= self.persistence:
                    view = random.choice(len(q), p=q)
                phases.append(self.phases[state])
                views.append(view)
            state = random.choice(len(self.start) + 1, p=self.follow[state])
        return np.array(phases, "int32"), np.array(views, "int32")

    def expected_frames(self) -> np.ndarray:
        """Frames of each phase that a procedure has on average, `(phases,)`."""
        states = len(self.start)
        visits = np.linalg.solve((np.eye(states) - self.follow[:, :-1]).T, self.start)
        frames = visits * (self.durations @ np.arange(1, self.durations.shape[1] + 1))
        return np.bincount(self.phases, frames, len(self.class_names))

    def framewise(self, views: np.ndarray) -> np.ndarray:
        """P(phase | view of this frame) for each of `views`, `(time, phases)`, whatever came before and after."""
        joint = self.expected_frames()[:, None] * self.view_probabilities
        return (joint / np.maximum(joint.sum(axis=0), 1e-300)).T[views]

    def online(self, views: np.ndarray) -> np.ndarray:
        """P(phase_t | views 1 to t), `(time, phases)`."""
        return self._by_phase(self._forward(*self._emissions(views)))

    def offline(self, views: np.ndarray) -> np.ndarray:
        """P(phase_t | all views, the procedure ends after the last), `(time, phases)`."""
        first, later = self._emissions(views)
        forward, hazard = self._forward(first, later), self._hazard()
        backward = hazard * self.follow[:, -1:]  # (states, ages)
        for t in reversed(range(len(views))):
            forward[t] *= backward
            if forward[t].sum() == 0:
                raise InputError(f"views: no procedure that ends after {len(views)} frames shows them")
            forward[t] /= forward[t].sum()
            ends = self.follow[:, :-1] @ (first[t] * backward[:, 0])  # (states,): entered at t
            older = np.pad(backward[:, 1:], ((0, 0), (0, 1)))
            backward = hazard * ends[:, None] + (1 - hazard) * later[t][:, None] * older
            backward /= max(backward.max(), 1e-300)
        return self._by_phase(forward)

    def _forward(self, first: np.ndarray, later: np.ndarray) -> np.ndarray:
        """P(state_t, age_t | views 1 to t), `(time, states, ages)`."""
        hazard = self._hazard()
        forward = np.zeros((len(first), *hazard.shape))
        for t in range(len(first)):
            if t == 0:
                forward[t, :, 0] = self.start * first[t]
            else:
                forward[t, :, 0] = (forward[t - 1] * hazard).sum(axis=1) @ self.follow[:, :-1] * first[t]
                forward[t, :, 1:] = (forward[t - 1] * (1 - hazard))[:, :-1] * later[t][:, None]
            if (total := forward[t].sum()) == 0:
                raise InputError(f"views: no procedure shows the first {t + 1} of them")
            forward[t] /= total
        return forward

    def _hazard(self) -> np.ndarray:
        """The chance h that a state ends at an age, `(states, ages)`; 1 at ages that it does not reach."""
        reached = self.durations[:, ::-1].cumsum(axis=1)[:, ::-1]
        return np.where(reached > 1e-12, self.durations / np.maximum(reached, 1e-12), 1.0)

    def _emissions(self, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P(x_t | x_{t-1}) in each state, `(time, states)` both: if the state begins with frame t, and later on."""
        views = np.asarray(views)
        if views.ndim != 1 or len(views) == 0 or views.min() < 0 or views.max() >= len(self.views):
            raise InputError(f"views of shape {views.shape}: give numbers (time,) from 0 to {len(self.views) - 1}")
        first = self.view_probabilities[self.phases][:, views].T
        stays = np.append(False, views[1:] == views[:-1])[:, None]
        return first, self.persistence * stays + (1 - self.persistence) * first

    def _by_phase(self, states: np.ndarray) -> np.ndarray:
        """Probabilities of states and ages, `(time, states, ages)`, added up, `(time, phases)`."""
        return states.sum(axis=2) @ np.eye(len(self.class_names))[self.phases]


OBSERVERS = ("framewise", "online", "offline")


def bayes_accuracy(model: WorkflowModel, views: Sequence[np.ndarray], phases: Sequence[np.ndarray]) -> dict[str, float]:
    """The share of right frames, over all procedures together, of the best observers of these very procedures.

    Args:
        model: that drew them.
        views: numbers in `model.views`, `(time,)` each.
        phases: true phases, `(time,)` each.

    Returns:
        `{"framewise", "online", "offline"}`, of the likeliest phase given the view of the frame alone, the views up to
        it, or all of them. On few procedures any of them may be a little above or below what is expected.
    """
    frames = sum(map(len, phases))
    return {
        name: sum(int((getattr(model, name)(x).argmax(axis=1) == p).sum()) for x, p in zip(views, phases, strict=True))
        / frames
        for name in OBSERVERS
    }


def expected_accuracy(model: WorkflowModel, procedures: int = 500, seed: int = 0) -> dict[str, float]:
    """The share of right frames that the best observers have on procedures without end.

    That of the framewise observer is a finite sum, Σ_x max_p P(p, x). The other two are means over drawn procedures of
    max_p P(p | views), which varies less than the count of right frames.

    Args:
        model: of the procedures.
        procedures: that are drawn.
        seed: of the drawing.

    Returns:
        `{"framewise", "online", "offline", "online_error", "offline_error"}`, the last two the standard errors.
    """
    random = np.random.default_rng((seed, 3))  # 0 to 2 draw training, validation and test videos
    drawn = [model.sample(random)[1] for _ in range(procedures)]
    lengths = np.array([len(views) for views in drawn])
    joint = model.expected_frames()[:, None] / model.expected_frames().sum() * model.view_probabilities
    result = {"framewise": float(joint.max(axis=0).sum())}
    for name in OBSERVERS[1:]:
        right = np.array([getattr(model, name)(views).max(axis=1).sum() for views in drawn])
        result[name] = float(right.sum() / lengths.sum())
        # Of a ratio of means, by the differences from it.
        spread = (right - result[name] * lengths).std(ddof=1)
        result[f"{name}_error"] = float(spread / lengths.mean() / np.sqrt(procedures))
    return result
