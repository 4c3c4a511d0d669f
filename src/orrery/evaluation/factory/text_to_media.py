"""Pictures and videos from text: are the parts, their places and the outcome that were asked for there?

The frozen probe judges what was made. It judges the true pictures too, which is the ceiling, and what was made for
other prompts, which is the baseline.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from orrery.evaluation.baselines import derangement
from orrery.evaluation.factory.ask import case_seed, films, run_all
from orrery.evaluation.factory.figure import Baseline, Figure, Outcome, Suite, mean_of
from orrery.evaluation.factory.probe import Reader, Sights
from orrery.evaluation.factory.scenes import CHUNK, FRONT, Case, cases, gather, play, shoot
from orrery.evaluation.page import Strip
from orrery.runtime.model import Model
from orrery.tasks.request import Request
from orrery.training.probe import PAIRS, PLACES, place_number
from orrery.worlds.factory.captions import caption
from orrery.worlds.factory.cell import CONTROL_HZ
from orrery.worlds.factory.goals import Goal, Insert, Lift, Press, Put
from orrery.worlds.factory.layout import BELT_TOP_M
from orrery.worlds.factory.parts import Part
from orrery.worlds.factory.questions.sights import Witness
from orrery.worlds.factory.render import Renderer
from orrery.worlds.factory.scene_words import scene_caption

SHOWN = 4
LIFTED_M = 0.06
"""A part is seen lifted off the belt from this height above it on: the task wants 10 cm, the probe is rough."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Wanted:
    """A prompt, what it asks for, and true pictures of that."""

    prompt: str
    parts: tuple[Part, ...]
    places: tuple[str, ...]
    """Word of PLACES for each part; "" where none is told."""
    outcome: tuple[Goal, Part | None] | None
    """What is done at the end of a video, and the part it is done with."""
    true: UInt8[np.ndarray, "T 128 128 3"]


def still_of(case: Case) -> Wanted:
    """A moment of an episode in words; places are told of all parts where they are clear."""
    played = play(case)
    rng = np.random.default_rng([case.seed, 11])
    renderer = Renderer(played.cell.model)
    witness = Witness(played.cell, played.attempt, *FRONT, renderer, ("front",))
    sight = witness.look(int(rng.integers(len(played.attempt.moments))), "front")
    words = scene_caption(played.cell, sight, rng, "test" if case.unseen else "train")
    numbers = [place_number(played.cell, index) for index in sight.seen]
    state = played.attempt.moments[sight.frame].state
    return Wanted(
        prompt=words,
        parts=tuple(sight.parts[index] for index in sight.seen),
        places=tuple("" if number < 0 else PLACES[number] for number in numbers),
        outcome=None,
        true=shoot(played.cell, [state], "front", renderer),
    )


def video_of(case: Case) -> Wanted:
    """The end of an episode that an expert finished, under the sentence that tells the whole of it."""
    played = play(case)
    rng = np.random.default_rng([case.seed, 12])
    goal = played.job.goals[0]
    moments = played.attempt.moments[-CHUNK - 1 :]
    parts = [placed.part for placed in played.job.layout.parts]
    return Wanted(
        prompt=caption(played.attempt, rng, level="sentence", split="test" if case.unseen else "train"),
        parts=tuple(dict.fromkeys(parts)),
        places=("",) * len(set(parts)),
        outcome=(goal, None if isinstance(goal, Press) else parts[goal.part]),
        true=shoot(played.cell, [moment.state for moment in moments], "front", Renderer(played.cell.model)),
    )


Facts = dict[str, list[bool]]


def facts_of(wanted: Wanted, sights: Sights, picture: int) -> Facts:
    """What is asked for, by kind of fact, and whether it is there."""
    seen = [part for part in _every_part() if sights.has(picture, part)]
    facts: Facts = {
        "kind": [any(part.kind == other.kind for other in seen) for part in wanted.parts],
        "colour": [any(part.finish == other.finish for other in seen) for part in wanted.parts],
        "colour and kind together": [sights.has(picture, part) for part in wanted.parts],
        "place": [
            sights.has(picture, part) and sights.place_of(picture, part) == place
            for part, place in zip(wanted.parts, wanted.places, strict=True)
            if place
        ],
        "event": [],
    }
    if wanted.outcome is not None:
        facts["event"] = [happened(*wanted.outcome, sights, picture)]
    return facts


def happened(goal: Goal, part: Part | None, sights: Sights, picture: int) -> bool:
    """Whether a goal is reached in a picture, as far as the probe sees it."""
    if part is None:
        return bool(sights.lamp[picture] > 0.5)
    if not sights.has(picture, part):
        return False
    place = sights.place_of(picture, part)
    if isinstance(goal, Lift):
        return bool(sights.part_m(picture, part)[2] > BELT_TOP_M + LIFTED_M)
    if isinstance(goal, Put):
        return place.startswith("kit") if goal.into == "kit" else place == goal.into
    return place == ("fixture" if isinstance(goal, Insert) else "part")


def text_to_image(model: Model, suite: Suite, reader: Reader) -> Outcome:
    """Stills from captions of test scenes."""
    return _judged(model, suite, reader, "text_to_image", still_of, 50)


def text_to_video(model: Model, suite: Suite, reader: Reader) -> Outcome:
    """Videos of one chunk from a sentence that says what was done; judged by their last frame."""
    return _judged(model, suite, reader, "text_to_video", video_of, 60)


def _judged(
    model: Model, suite: Suite, reader: Reader, task: str, make: Callable[[Case], Wanted], number: int
) -> Outcome:
    figures: list[Figure] = []
    strips: list[Strip] = []
    for unseen in (False, True):
        words = "held-out words and pairs" if unseen else "seen words and pairs"
        count = max(2, suite.size.captions // (1 + unseen))
        given = cases(count, seed=suite.seed, behaviour="expert", offset=700_000 + 1000 * number, unseen=unseen)
        wanted = gather(make, given, suite.workers)
        requests = [
            Request(
                task=task,
                prompt=row.prompt,
                seed=case_seed(suite, number + unseen, i),
                frames=CHUNK + 1 if task == "text_to_video" else None,
            )
            for i, row in enumerate(wanted)
        ]
        made = [films(result)["front"] for result in run_all(model, requests, suite)]
        other = derangement(len(wanted), suite.seed)
        sights = reader.read(np.stack([film[-1] for film in made]))
        true = reader.read(np.stack([row.true[-1] for row in wanted]))
        own = [facts_of(row, sights, i) for i, row in enumerate(wanted)]
        shuffled = [facts_of(wanted[other[i]], sights, i) for i in range(len(wanted))]
        ceiling = [facts_of(row, true, i) for i, row in enumerate(wanted)]
        kinds = [kind for kind in own[0] if any(row[kind] for row in own)]
        for kind in ("all", *kinds):
            chosen = kinds if kind == "all" else [kind]
            figures.append(
                mean_of(
                    f"Asked {'things' if kind == 'all' else kind} present, {words}",
                    shares_present(own, chosen),
                    unit="%",
                    of="prompts",
                    seed=suite.seed,
                    baselines=(
                        Baseline(name="prompts of others", value=_mean(shares_present(shuffled, chosen))),
                        Baseline(name="the true pictures", value=_mean(shares_present(ceiling, chosen))),
                    ),
                    floor=70.0 if kind == "all" and not unseen else None,
                    goal=95.0 if kind == "all" and not unseen else None,
                )
            )
        strips += [
            Strip(
                caption=wanted[i].prompt,
                clips=(("made", _even(made[i])), ("true", _even(wanted[i].true))),
                fps=CONTROL_HZ,
            )
            for i in range(min(SHOWN // 2, len(wanted)))
        ]
    return Outcome(figures=tuple(figures), strips=tuple(strips), note=reader.note)


def _even(film: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "K H W 3"]:
    """A picture as a clip, and clips of one length."""
    return np.concatenate([film, film[-1:].repeat(max(0, CHUNK + 1 - len(film)), axis=0)])[: CHUNK + 1]


def shares_present(rows: Sequence[Facts], kinds: Sequence[str]) -> list[float]:
    """Percent of the facts of each prompt that has any."""
    every = [[fact for kind in kinds for fact in row[kind]] for row in rows]
    return [100 * float(np.mean(facts)) for facts in every if facts]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _every_part() -> list[Part]:
    return [Part(finish=finish, kind=kind) for finish, kind in PAIRS]
