"""Random scenes: who is in view, what they do and when, over what, seen how.

A trimmed clip shows its actor in action from the first frame to the last, so a classifier can make do with the look
that the class usually comes with. An untrimmed video shows the same actor idle before and after its actions, beside
distractors that look like other classes: there the look says nothing about when an action starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from synth.looks import RGB, USUAL_LOOKS, Look
from synth.motions import TAU, Action, Wander
from synth.render import Actor, Background, Scene

SHARE_OF_VIDEO = (0.05, 0.6)
"""Shortest and longest action, as a share of its video."""

_USUAL_LOOK_PROBABILITY = 0.85
_NUM_ACTIONS_PROBABILITY = (0.3, 0.35, 0.2, 0.15)
_TWO_ACTORS_PROBABILITY = 0.4
_MOST_ACTION = 0.75
_SHORTEST_GAP_S = 0.6
_CLOSEST = 0.6


def compose_clip(rng: np.random.Generator, label: str, *, num_frames: int, fps: int) -> Scene:
    """A trimmed clip: one actor that does `label` all the time, and at most one distractor."""
    # The action outlasts the clip on both sides: a clip is cut out of an action, as in Kinetics.
    length = num_frames / fps
    before, after = rng.uniform(0.1, 1.0, 2)
    action = Action(label, -before, length + after, rng.uniform(1.0, 1.5))
    return _compose(rng, [(label, (action,))], num_distractors=int(rng.integers(0, 2)))


def compose_untrimmed(rng: np.random.Generator, labels: Sequence[str], *, num_frames: int, fps: int) -> Scene:
    """An untrimmed video: one to four actions, one distractor.

    Who acts: one actor of class `labels[0]`, sometimes also one of another of the `labels`.
    """
    spans = draw_spans(rng, num_frames, fps)
    num_actors = 2 if len(spans) > 1 and rng.random() < _TWO_ACTORS_PROBABILITY else 1
    chosen = [labels[0], *(str(label) for label in rng.choice(labels[1:], num_actors - 1, replace=False))]
    # Each actor acts at least once; who takes the other turns is drawn.
    turns = rng.permutation([*range(num_actors), *rng.integers(0, num_actors, len(spans) - num_actors)])
    cast = [
        (
            label,
            tuple(
                Action(label, first / fps, last / fps, rng.uniform(1.0, 1.5))
                for (first, last), turn in zip(spans, turns, strict=True)
                if turn == who
            ),
        )
        for who, label in enumerate(chosen)
    ]
    return _compose(rng, cast, num_distractors=1)


def draw_spans(rng: np.random.Generator, num_frames: int, fps: int) -> list[tuple[int, int]]:
    """When the actions of a video are: [first, last) in frames, in order, with gaps around each."""
    gap = math.ceil(_SHORTEST_GAP_S * fps)
    shortest, longest = (share * num_frames for share in SHARE_OF_VIDEO)
    count = 1 + int(rng.choice(len(_NUM_ACTIONS_PROBABILITY), p=_NUM_ACTIONS_PROBABILITY))
    while True:
        shares = np.exp(rng.uniform(math.log(SHARE_OF_VIDEO[0]), math.log(SHARE_OF_VIDEO[1]), count))
        lengths = np.clip(np.round(shares * num_frames), math.ceil(shortest), math.floor(longest)).astype(int)
        spare = num_frames - int(lengths.sum()) - (count + 1) * gap
        if lengths.sum() <= _MOST_ACTION * num_frames and spare >= 0:
            break
    gaps = gap + rng.multinomial(spare, rng.dirichlet(np.ones(count + 1)))
    firsts = np.cumsum(gaps[:-1]) + np.cumsum(lengths) - lengths
    return [(int(first), int(first + length)) for first, length in zip(firsts, lengths, strict=True)]


def _compose(rng: np.random.Generator, cast: list[tuple[str, tuple[Action, ...]]], *, num_distractors: int) -> Scene:
    """Everything around what the cast does."""
    places = _draw_places(rng, len(cast) + num_distractors)
    others = rng.permutation([label for label in USUAL_LOOKS if label not in dict(cast)])
    roles = [*cast, *((str(label), ()) for label in others[:num_distractors])]
    actors = [_draw_actor(rng, label, actions, place) for (label, actions), place in zip(roles, places, strict=True)]
    return Scene(
        actors=tuple(actors[i] for i in rng.permutation(len(actors))),
        background=_draw_background(rng),
        camera_x=Wander.draw(rng, 0, rng.uniform(0, 0.08), 0.1),
        camera_y=Wander.draw(rng, 0, rng.uniform(0, 0.08), 0.1),
        light=Wander.draw(rng, rng.uniform(0.75, 1.1), 0.08, 0.2),
        noise=rng.uniform(0.003, 0.02),
        noise_seed=int(rng.integers(2**32)),
    )


def _draw_places(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """Where `count` actors are at home, not on top of each other."""
    places: list[tuple[float, float]] = []
    closest = _CLOSEST
    while len(places) < count:
        place = (rng.uniform(-0.55, 0.55), rng.uniform(-0.2, 0.6))
        if all(math.dist(place, other) >= closest for other in places):
            places.append(place)
        closest *= 0.99
    return places


def _draw_actor(rng: np.random.Generator, label: str, actions: tuple[Action, ...], place: tuple[float, float]) -> Actor:
    """An actor that usually, not always, has the look of `label`."""
    if rng.random() >= _USUAL_LOOK_PROBABILITY:
        label = str(rng.choice(list(USUAL_LOOKS)))
    return Actor(
        look=_vary(rng, USUAL_LOOKS[label]),
        radius=rng.uniform(0.32, 0.46),
        x=Wander.draw(rng, place[0], 0.1, 0.12),
        y=Wander.draw(rng, place[1], 0.1, 0.12),
        angle=Wander.draw(rng, rng.uniform(-0.2, 0.2), 0.2, 0.12),
        stretch=Wander.draw(rng, 0, 0.04, 0.15),
        actions=actions,
    )


def _vary(rng: np.random.Generator, look: Look) -> Look:
    """The same look in slightly other colours."""
    return Look(look.shape, look.pattern, _tint(rng, look.color), _tint(rng, look.accent))


def _tint(rng: np.random.Generator, color: RGB) -> RGB:
    red, green, blue = (float(value) for value in np.clip(np.array(color) + rng.normal(0, 0.04, 3), 0, 1))
    return red, green, blue


def _draw_background(rng: np.random.Generator) -> Background:
    # Greyish, so that the actors stand out.
    top, bottom = (rng.uniform(0.15, 0.5) + rng.uniform(-0.08, 0.08, 3) for _ in range(2))
    waves = tuple(
        (
            rng.uniform(0.01, 0.06),
            rng.uniform(-6, 6),
            rng.uniform(-6, 6),
            rng.uniform(-0.15, 0.15),
            rng.uniform(0, TAU),
        )
        for _ in range(3)
    )
    return Background(tuple(top), tuple(bottom), waves)
