"""Episodes on the device, as what the model sees of them: encoded frames end to end, and where examples begin in them.

Records come from `worlds.factory.stream` or from shards; pictures are drawn and encoded here, once. Which examples make
up a step, and their noise, is decided in `training.stacks`.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from orrery.tasks.contract import ActionContract
from orrery.tokenizers.autoencoder import AutoencoderCodec, stack_latents
from orrery.tokenizers.eyes import (
    IMAGE_PAD,
    VIDEO_PAD,
    Eyes,
    Look,
    Span,
    expand,
    patches_of,
    reason_positions,
    sample_frames,
    visual_spans,
)
from orrery.tokenizers.sound_autoencoder import AutoencoderSoundCodec
from orrery.tokenizers.text import TextTokenizer
from orrery.training.pictures import draw, sent
from orrery.training.sight import NOWHERE, SLOTS, Marks, marks_of, slots_of
from orrery.worlds.factory.questions.question import Question
from orrery.worlds.factory.stream import Record

FRONT, WRIST = (128, 128), (64, 64)
"""Height and width of the two cameras, in the order of the contract."""
ENCODE = 512
"""Frames that go through the autoencoder at once."""
PICTURES, FEW_PICTURES = 0.25, 4096
"""Share of the room in which pixels are kept too, and how many frames a small bank keeps them of. Questions are about
0.18 of all frames, but about 0.8 of those of some episodes."""
STILL_TEXT, VIDEO_TEXT = 80, 120
"""Tokens of a question with its answer, beside those of pictures; longer ones are left out and counted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """One question as token ids."""

    frames: tuple[int, ...]
    """Of the bank: one still, or the frames of a video."""
    ids: Int[np.ndarray, " n"]
    """Prompt with its visual tokens, answer, end of turn; then pads."""
    answer: slice
    """Where the answer stands, with the end of its turn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Form:
    """What all questions about stills, or all about videos, have in common."""

    kind: str
    positions: Float[Tensor, "3 n"]
    visual: Int[Tensor, " m"]
    """Where the visual tokens stand among the n."""
    grid: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Template:
    """What stands around the words of a question: pictures before them, the turn's end behind."""

    before: Sequence[int]
    after: Sequence[int]
    visual: Int[np.ndarray, " m"]
    """Where visual tokens stand."""
    positions: Float[Tensor, "3 n"]
    """Up to the words; they and what follows go on by one on each axis."""

    @staticmethod
    def of(text: TextTokenizer, look: Look) -> "Template":
        """That of questions about media of one shape."""
        # Words between special tokens are encoded alike wherever they stand.
        asked, others = (question_prompt(text, words, look) for words in ("a", "b"))
        (ids, spans), (other, _) = asked, others
        begin = next(at for at, (one, two) in enumerate(zip(ids, other, strict=True)) if one != two)
        assert ids[begin : begin + 1] == text.encode("a"), "the template keeps the words apart"
        positions, _ = reason_positions(begin, spans)
        visual = np.concatenate([np.arange(span.start, span.start + span.rows * span.cols) for span in spans])
        return Template(before=ids[:begin], after=ids[begin + 1 :], visual=visual, positions=positions)

    def around(self, words: Sequence[int]) -> list[int]:
        """The prompt."""
        return [*self.before, *words, *self.after]

    def positions_of(self, length: int) -> Float[Tensor, "3 length"]:
        """Positions of so many tokens, of which the first are those before the words."""
        on = torch.arange(1, length - len(self.before) + 1, dtype=torch.float32) + self.positions[0, -1]
        return torch.cat([self.positions, on.expand(3, -1)], dim=1)


@dataclass(kw_only=True)
class Counts:
    """What was taken in, and what was left out and why."""

    episodes: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


class Bank:
    """Room for so many frames; `add` fills it.

    One thread may fill it while another one draws from it: what lists speak of is there before they do.
    """

    def __init__(
        self,
        room: int,
        *,
        vision: AutoencoderCodec,
        sound: AutoencoderSoundCodec,
        text: TextTokenizer,
        eyes: Eyes,
        contract: ActionContract,
        device: torch.device,
    ) -> None:
        self.room, self.used, self.device = room, 0, device
        self.vision, self.hearing, self.text, self.eyes, self.contract = vision, sound, text, eyes, contract
        channels = vision.config.channels

        def grid(size: tuple[int, int]) -> Tensor:
            shape = (room, channels, size[0] // vision.spatial, size[1] // vision.spatial)
            return torch.zeros(shape, dtype=torch.float16, device=device)

        self.front, self.wrist = grid(FRONT), grid(WRIST)
        kept = min(room, max(int(room * PICTURES), FEW_PICTURES))
        self.pixels = torch.zeros((kept, *FRONT, 3), dtype=torch.uint8, device=device)
        """Front pictures of the frames that questions are about."""
        self.pictured = 0
        """How many there are."""
        # Out of range, so that it is an error to ask for a picture that is not kept.
        self.picture = torch.full((room,), kept, dtype=torch.int32, device=device)
        """Where each frame is among them."""
        self.sound = torch.zeros((room, sound.channels), dtype=torch.float16, device=device)
        self.action = torch.zeros((room, contract.width), device=device)
        self.state = torch.zeros((room, contract.width), device=device)
        self.token = torch.full((room, SLOTS), NOWHERE, dtype=torch.uint8, device=device)
        self.first = torch.zeros((room, SLOTS), dtype=torch.uint8, device=device)
        self.second = torch.zeros((room, SLOTS), dtype=torch.uint8, device=device)
        self.place = torch.zeros((room, SLOTS, 2), device=device)
        self.windows: list[int] = []
        """First frames of `chunk` + 1 frames of one episode."""
        self.sounding: list[int] = []
        """Those of them whose sound is known."""
        self.policy: list[int] = []
        """Those of them in which the expert's actions are executed throughout."""
        self.episode_of: list[int] = []
        """Episode of each frame."""
        self.instructions: list[list[Int[np.ndarray, " 32"]]] = []
        """Prompts of each episode."""
        self.scenes: dict[int, list[tuple[int, Int[np.ndarray, " n"]]]] = defaultdict(list)
        """Prompt length -> frame and caption of stills."""
        self.clips: dict[int, list[tuple[int, Int[np.ndarray, " n"]]]] = defaultdict(list)
        """Prompt length -> first frame and caption of windows whose sound is known."""
        self.questions: dict[str, dict[str, list[Asked]]] = {"image": defaultdict(list), "video": defaultdict(list)}
        """Stills or videos -> family -> questions."""
        self.forms: dict[str, Form] = {}
        self.counts = Counts()
        self._templates: dict[tuple[str, tuple[float, ...]], Template] = {}
        self._words: dict[str, Int[np.ndarray, " n"]] = {}
        self._visual: dict[str, Int[np.ndarray, " m"]] = {}
        self.empty = np.array(text.prompt_ids(""))

    @property
    def full(self) -> bool:
        """No episode may fit any more."""
        return self.used + 256 > self.room

    @torch.no_grad()
    def add(self, records: Sequence[Record]) -> None:
        """Take in some episodes; those that do not fit any more are left out and counted."""
        fitting = []
        end = self.used
        for record in records:
            if end + len(record.state) > self.room:
                self.counts.left_out["no room"] += 1
            else:
                fitting.append(record)
                end += len(record.state)
        if not fitting:
            return
        begins = np.cumsum([self.used, *(len(record.state) for record in fitting)]).tolist()
        shown: dict[int, int] = {}
        asked = self._questions(fitting, begins, shown)
        self._add_pictures(fitting, shown)
        self._add_rows(fitting, begins)
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        self.pictured += len(shown)
        for record, rows in zip(fitting, asked, strict=True):
            self._tell_of(record, rows)

    def _add_pictures(self, records: Sequence[Record], shown: dict[int, int]) -> None:
        """Pictures as latents; those of the frames in `shown`, which says where to put them, as pixels too."""
        drawings = [record.drawing for record in records]
        frames = [range(len(record.state)) for record in records]
        at = self.used
        for camera, size, kept in (("front", FRONT, self.front), ("wrist", WRIST, self.wrist)):
            pictures = draw(drawings, frames, camera, *size, self.device)
            if camera == "front" and shown:
                asked, rows = sent([np.array([*shown]), np.array([*shown.values()], np.int32)], self.device)
                self.pixels[self.pictured : self.pictured + len(shown)] = pictures[asked - at]
                self.picture[asked] = rows
            for first in range(0, len(pictures), ENCODE):
                coded = self.encode(pictures[first : first + ENCODE])
                kept[at + first : at + first + len(coded)] = coded

    def encode(self, pictures: UInt8[Tensor, "N H W 3"]) -> Float[Tensor, "N C h w"]:
        """Whitened latents, in the bank's number format."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            return self.vision.encode_frames(pictures).half()

    def _add_rows(self, records: Sequence[Record], begins: Sequence[int]) -> None:
        """What is known of each frame besides its pictures."""
        state_normaliser = self.contract.state_normaliser
        assert state_normaliser is not None
        slots = [slots_of(record) for record in records]
        rows = [
            self.contract.encode(np.concatenate([record.action for record in records])),
            state_normaliser.encode(np.concatenate([record.state for record in records])),
            *(np.concatenate([getattr(one, name) for one in slots]) for name in ("token", "first", "second", "place")),
        ]
        spans, sounds = [], []
        for (begin, end), record in zip(pairwise(begins), records, strict=True):
            if record.sound is not None:
                spans.append((begin, end))
                sounds.append(record.sound)
        there = sent([*rows, *sounds], self.device)
        kept = (self.action, self.state, self.token, self.first, self.second, self.place)
        for row, new in zip(kept, there[: len(rows)], strict=True):
            row[begins[0] : begins[-1]] = new
        with torch.autocast(self.device.type, enabled=False):
            for (begin, end), samples in zip(spans, there[len(rows) :], strict=True):
                sound = F.pad(samples.float() / 32767, (0, 0, 0, -len(samples) % self.hearing.hop))
                self.sound[begin:end] = self.hearing.encode_sounds(sound[None])[0, : end - begin]

    def _tell_of(self, record: Record, asked: Sequence[tuple[str, str, Asked]]) -> None:
        """Where examples begin in the episode that was written last; its number and prompts before its windows."""
        at, length, chunk = self.used, len(record.state), self.contract.chunk
        episode = self.counts.episodes
        self.counts.episodes += 1
        prompts = [self._prompt(words) for words in record.instructions]
        short = [ids for ids in prompts if len(ids) == len(self.empty)]
        self.counts.left_out["instruction too long"] += len(prompts) - len(short)
        self.instructions.append(short or [self.empty])
        self.episode_of += [episode] * length
        starts = range(at, at + length - chunk)
        self.windows += starts
        if record.sound is not None:
            self.sounding += starts
        same = np.abs(record.action - record.expert).max(axis=1) < 1e-4
        clean = np.convolve(same, np.ones(chunk), "valid") >= chunk - 0.5
        self.policy += [at + int(start) for start in np.flatnonzero(clean) if start < length - chunk]
        self._add_captions(record, at)
        for kind, family, row in asked:
            self.questions[kind][family].append(row)
        self.used += length

    def _add_captions(self, record: Record, at: int) -> None:
        for frame, words in record.scenes:
            ids = self._prompt(words)
            self.scenes[len(ids)].append((at + frame, ids))
        for frame, words in record.clips if record.sound is not None else ():
            ids = self._prompt(words)
            self.clips[len(ids)].append((at + frame, ids))

    def _questions(
        self, records: Sequence[Record], begins: Sequence[int], shown: dict[int, int]
    ) -> list[list[tuple[str, str, Asked]]]:
        """Kind, family and tokens of the questions about each record. `shown` is given the frames that they are about,
        each with its place among the pictures."""
        words = list({words for record in records for q in record.questions for words in (q.prompt, q.answer)})
        # All at once, for then other threads go on meanwhile.
        coded = self.text.tokenizer.encode_batch(words, add_special_tokens=False)
        ids = {key: value.ids for key, value in zip(words, coded, strict=True)}
        found: list[list[tuple[str, str, Asked]]] = []
        for record, begin in zip(records, begins[:-1], strict=True):
            found.append([])
            for question in record.questions:
                kind: Literal["image", "video"] = "image" if question.media == "frame" else "video"
                asked = self._asked(kind, question, ids[question.prompt], ids[question.answer], begin)
                if asked is None:
                    continue
                new = dict.fromkeys(frame for frame in asked.frames if frame not in shown)
                if self.pictured + len(shown) + len(new) > len(self.pixels):
                    self.counts.left_out["no room for pictures"] += 1
                    continue
                for frame in new:
                    shown[frame] = self.pictured + len(shown)
                found[-1].append((kind, question.family, asked))
        return found

    def _asked(
        self, kind: Literal["image", "video"], question: Question, words: Sequence[int], answer: Sequence[int], at: int
    ) -> Asked | None:
        """One question about the episode that begins at a frame; None, and counted, where it is left out."""
        still = kind == "image"
        times: tuple[float, ...] = ()
        if still:
            chosen = [question.start_frame]
        else:
            total = question.stop_frame - question.start_frame
            rate = float(self.contract.control_rate_hz)
            chosen = [question.start_frame + index for index in sample_frames(total, rate, self.eyes)]
            if len(chosen) != self.eyes.video_frames[0]:
                self.counts.left_out["video too short"] += 1
                return None
            seconds = [(frame - question.start_frame) / rate for frame in chosen]
            step = self.eyes.temporal_patch
            times = tuple((seconds[k] + seconds[k + step - 1]) / 2 for k in range(0, len(seconds), step))
        side = FRONT[0] // self.eyes.patch
        grid = (1 if still else len(times), side, side)
        template = self._template(kind, grid, times)
        prompt, visual = template.around(words), template.visual
        eos = self.text.eos_id
        answer = [*answer, eos]
        whole = len(visual) + (STILL_TEXT if still else VIDEO_TEXT)
        if len(prompt) + len(answer) > whole:
            self.counts.left_out["question too long"] += 1
            return None
        if kind not in self.forms:
            self._visual[kind] = visual
            self.forms[kind] = Form(
                kind=kind,
                positions=template.positions_of(whole).to(self.device),
                visual=torch.from_numpy(visual).to(self.device),
                grid=grid,
            )
        if not np.array_equal(self._visual[kind], visual):
            self.counts.left_out["pictures elsewhere in the prompt"] += 1
            return None
        ids = np.full(whole, eos)
        ids[: len(prompt)] = prompt
        ids[len(prompt) : len(prompt) + len(answer)] = answer
        return Asked(
            frames=tuple(at + frame for frame in chosen),
            ids=ids,
            answer=slice(len(prompt), len(prompt) + len(answer)),
        )

    def _template(
        self, kind: Literal["image", "video"], grid: tuple[int, int, int], times: tuple[float, ...]
    ) -> Template:
        """All of a question's prompt but its words, which is the same again and again."""
        if (kind, times) not in self._templates:
            look = Look(kind=kind, patches=torch.zeros(0, 0), grid=grid, merge=self.eyes.merge, seconds=times)
            self._templates[kind, times] = Template.of(self.text, look)
        return self._templates[kind, times]

    def _prompt(self, words: str) -> Int[np.ndarray, " n"]:
        """A prompt for generation; the same words come again and again."""
        if words not in self._words:
            self._words[words] = np.array(self.text.prompt_ids(words))
        return self._words[words]

    def marks(self, which: Int[Tensor, " B"]) -> Marks:
        """What frames of the front camera show."""
        rows = (rows[which] for rows in (self.token, self.first, self.second))
        token, first, second = (row.long() for row in rows)
        return marks_of(token, first, second, self.place[which])

    def latents(self, which: Tensor, camera: int) -> Float[Tensor, "B C t h w"]:
        """Stacked latents of windows, float32.

        Args:
            which: (B, T) frames of the bank, T = 1 + 4 k.
        """
        return stack_latents(
            (self.front, self.wrist)[camera][which].float(), differences=self.vision.config.differences
        )

    def patches(self, which: Int[Tensor, "B T"]) -> Float[Tensor, "N V"]:
        """Patches of the front camera for the vision encoder, as `tokenizers.eyes.patchify` orders them.

        Args:
            which: frames that questions are about; of others there are no pixels.
        """
        frames = self.pixels[self.picture[which]]
        if frames.shape[1] == 1:
            frames = frames.expand(-1, self.eyes.temporal_patch, -1, -1, -1)
        return patches_of(frames, self.eyes)


def question_prompt(text: TextTokenizer, words: str, look: Look) -> tuple[list[int], list[Span]]:
    """Token ids of a question about one picture or video, and where the visual tokens stand, as a reader is asked."""
    turns = [{"role": "user", "content": [{"type": look.kind}, {"type": "text", "text": words}]}]
    ids = text.encode(expand(text.render(turns), [look]))
    return ids, visual_spans(ids, [look], image_id=text.id(IMAGE_PAD), video_id=text.id(VIDEO_PAD))
