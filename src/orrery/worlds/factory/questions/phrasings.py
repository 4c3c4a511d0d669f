"""The words of questions: for each family phrasings for training and, after them, those of the test split alone."""

import string
from dataclasses import dataclass

ANCHOR_WORDS = {
    "leftmost": "the leftmost part in the picture",
    "rightmost": "the rightmost part in the picture",
    "nearest": "the part nearest to the camera",
    "farthest": "the part farthest from the camera",
    "held": "the part in the gripper",
    "on_belt": "the only part on the belt",
}


@dataclass(frozen=True, kw_only=True)
class Phrasings:
    """Of one family. Templates are counted over `train` and then `test`."""

    train: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def blanks(self) -> frozenset[str]:
        return frozenset(
            name for text in (*self.train, *self.test) for _, name, _, _ in string.Formatter().parse(text) if name
        )


WORDS: dict[str, Phrasings] = {
    "count": Phrasings(
        train=(
            "How many {things} can be seen in the picture?",
            "Count the {things} in view.",
            "What is the number of visible {things}?",
        ),
        test=("How often does the picture show one of the {things}?", "Tell the number of {things} that you can see."),
    ),
    "colour": Phrasings(
        train=("What colour is {part}?", "Which colour does {part} have?", "Name the colour of {part}."),
        test=("In which colour do you see {part}?", "Look at {part}: what is its colour?"),
    ),
    "kind": Phrasings(
        train=("What kind of part is {part}?", "Which shape does {part} have?", "Name the kind of {part}."),
        test=("Look at {part}: what is it?", "By its shape, what would you call {part}?"),
    ),
    "left_right": Phrasings(
        train=(
            "Is the {one} to the left or to the right of the {other}?",
            "On which side of the {other} is the {one} in the picture?",
            "Seen from the camera, is the {one} left or right of the {other}?",
        ),
        test=("Compared with the {other}, on which side does the {one} lie?",),
    ),
    "front_behind": Phrasings(
        train=(
            "Is the {one} in front of or behind the {other}?",
            "Seen from the camera, is the {one} before or behind the {other}?",
            "Does the camera have the {one} in front of the {other}, or behind it?",
        ),
        test=("Measured from the camera, does the {one} come in front of the {other} or behind it?",),
    ),
    "on": Phrasings(
        train=(
            "What is the {colour} part on?",
            "What carries the {colour} part?",
            "What does the {colour} part rest on?",
        ),
        test=("Which thing supports the {colour} part?", "The {colour} part: on what does it lie?"),
    ),
    "inside": Phrasings(
        train=(
            "Which of these is the {colour} part in?",
            "Where has the {colour} part been put?",
            "What contains the {colour} part?",
        ),
        test=("Name the container of the {colour} part.", "Into which of these has the {colour} part gone?"),
    ),
    "held": Phrasings(
        train=(
            "What does the gripper hold?",
            "What is between the fingers of the gripper?",
            "Which part is in the gripper?",
        ),
        test=("Name what the gripper has picked up.", "What has the gripper got hold of?"),
    ),
    "gripper": Phrasings(
        train=(
            "What is the state of the gripper?",
            "How are the fingers of the gripper?",
            "Is the gripper open, closed, or holding something?",
        ),
        test=("Describe the fingers of the gripper.", "Look at the gripper: in which state is it?"),
    ),
    "lamp": Phrasings(
        train=("Is the lamp lit?", "Does the lamp of the cell shine?", "Is the signal lamp on?"),
        test=("Can you see the lamp shining?", "Does the lamp give light?"),
    ),
    "cracked": Phrasings(
        train=(
            "Which part has a crack, counted from the left among the {number} parts in view?",
            "{number} parts are in view. Which of them, by its place in the picture, is cracked?",
            "Where among the {number} visible parts is the cracked one?",
        ),
        test=("Of {number} parts one is broken on top. Which, seen from the left?",),
    ),
    "point": Phrasings(
        train=(
            "Point to {part}. Give x, y from 0 to 1000, to the right and down.",
            "Where is {part}? Answer with x, y in thousandths of the picture's width and height.",
            "Give the image coordinates (x, y, 0 to 1000 from the top left) of {part}.",
        ),
        test=("Touch {part} in the picture: x, y, each 0 to 1000, from the top left.",),
    ),
    "box": Phrasings(
        train=(
            "Draw a box around {part}: left, top, right, bottom, each 0 to 1000.",
            "Give the bounding box of {part} as x0, y0, x1, y1 in thousandths of the picture.",
            "Which box holds {part}? Answer left, top, right, bottom from 0 to 1000.",
        ),
        test=("Frame {part} tightly: x0, y0, x1, y1, each from 0 to 1000.",),
    ),
    "belt": Phrasings(
        train=(
            "How does the belt move in the picture?",
            "Which way does the conveyor run?",
            "Does the belt go left, go right, or stand still?",
        ),
        test=("What is the conveyor doing?", "Tell the direction of the belt, if it moves."),
    ),
    "next_action": Phrasings(
        train=("What will the robot do next?", "What is the gripper about to do?", "Which step follows now?"),
        test=("Name the step that the robot now begins.", "What comes next in what the robot does?"),
    ),
    "when": Phrasings(
        train=(
            "How many seconds after the beginning is {event}?",
            "At what time, in seconds from the start, is {event}?",
            "Give the second at which {event}; the first picture is second 0.",
        ),
        test=("Counted in seconds from the first picture, when is it that {event}?",),
    ),
    "when_quarter": Phrasings(
        train=(
            "In which of these stretches of time is {event}?",
            "When is {event}, counted from the first picture?",
            "During which interval is {event}?",
        ),
        test=("Choose the stretch of time in which {event}.",),
    ),
    "outcome": Phrasings(
        train=(
            "The order was: {order} Has it been carried out at the end?",
            "The robot was told: {order} Did it succeed?",
            "{order} Is that done when the recording ends?",
        ),
        test=("Somebody wanted this: {order} Was it achieved?", "Judge the end of the recording: {order} Is it done?"),
    ),
    "why": Phrasings(
        train=(
            "The order was: {order} It was not carried out. Why?",
            "The robot was told: {order} What went wrong?",
            "{order} This failed. What is the reason?",
        ),
        test=("Somebody wanted this: {order} Say what kept it from being done.",),
    ),
    "reach_end": Phrasings(
        train=(
            "If nobody touches it, will the {colour} part come to the end of the belt within {seconds} seconds?",
            "Left alone, is the {colour} part at the belt's end {seconds} seconds from now?",
            "The gripper stays away from now on. In {seconds} seconds, is the {colour} part at the belt's end?",
        ),
        test=("Suppose the robot backs off. Do {seconds} seconds take the {colour} part to the end of the belt?",),
    ),
    "if_released": Phrasings(
        train=(
            "If the gripper opened now, where would the part come to lie?",
            "Suppose the gripper let go at this moment. Where would the part end up?",
            "Where would what the gripper holds land, were it dropped now?",
        ),
        test=("Imagine that the fingers open now: what would the part come to rest on?",),
    ),
    "plausible": Phrasings(
        train=(
            "Is what this clip shows and sounds like physically possible as one recording?",
            "Could this clip, sound included, have happened like this?",
            "Is this clip genuine, neither in picture nor in sound tampered with?",
        ),
        test=("Do picture and sound of this clip obey physics throughout?",),
    ),
    "edit_kind": Phrasings(
        train=(
            "This clip has been tampered with. How?",
            "Something in this clip is not as it happened. What?",
            "Which change was made to this clip?",
        ),
        test=("Name what is wrong with this clip.",),
    ),
    "heard_material": Phrasings(
        train=(
            "You hear a part hit something. What is the part made of?",
            "By its sound, of what material is the part that strikes here?",
            "Listen to the blow: which material does the part have?",
        ),
        test=("What does the part that makes this knock consist of?",),
    ),
    "heard_what": Phrasings(
        train=(
            "A part hits something. What does it hit, by the sound?",
            "Listen: what is struck by a part?",
            "Onto what does a part strike here?",
        ),
        test=("By ear, name what the part knocks against.",),
    ),
    "heard_when": Phrasings(
        train=(
            "In which of these stretches is the loudest blow heard?",
            "When does the loudest knock sound?",
            "During which interval do you hear the loudest strike?",
        ),
        test=("Choose the stretch of time with the loudest bang.",),
    ),
    "heard_side": Phrasings(
        train=(
            "From which side does the loudest blow come?",
            "Is the loudest knock heard from the left or from the right?",
            "On which side of the cell is the loudest strike?",
        ),
        test=("Listen with both ears: where is the loudest bang?",),
    ),
    "action_to_words": Phrasings(
        train=(
            "What do these actions do?",
            "Put this chunk of actions into words.",
            "How does the gripper move under these actions?",
        ),
        test=("Describe in words what these actions command.",),
    ),
    "words_to_action": Phrasings(
        train=(
            "Which actions of {steps} steps, each (dx, dy, dz) in mm, move the gripper {motion}?",
            "Choose a step (dx, dy, dz in mm, {steps} times) that moves {motion}.",
            "To move {motion}, which step in mm (dx, dy, dz), repeated {steps} times, is right?",
        ),
        test=("Turn into numbers, mm a step along x, y and z for {steps} steps: {motion}.",),
    ),
}
"""Family -> its phrasings."""

TEXT_ALONE = frozenset({"words_to_action"})
"""Families that are to be answered from the text, so that a model without pictures may do well."""
