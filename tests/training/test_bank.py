"""What a bank takes in is what the records hold, and examples never reach beyond their episode."""

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from makers.world_run import EYES, INDICES, full_bank, new_bank, parts, records, sketch, sketched

from orrery.tokenizers.autoencoder import unstack_latents
from orrery.tokenizers.eyes import PICO_EYES, Look, patchify, reason_positions
from orrery.tokenizers.text import TextTokenizer
from orrery.training import bank as bank_module
from orrery.training.bank import STILL_TEXT, VIDEO_TEXT, Asked, Template, question_prompt
from orrery.training.stacks import asking

CHUNK = 16


@cache
def lengths() -> list[int]:
    """Frames of each record."""
    return [len(record.state) for record in records()]


@cache
def begins() -> list[int]:
    """Where each record begins in a bank of all."""
    return [sum(lengths()[:index]) for index in range(len(INDICES))]


def every_question(bank) -> list[Asked]:
    return [row for families in bank.questions.values() for rows in families.values() for row in rows]


def words(ids) -> str:
    return parts()[2].decode([int(token) for token in ids])


def test_frames_lie_end_to_end_with_what_the_records_say_of_them():
    bank = full_bank()
    assert (bank.used, bank.counts.episodes) == (sum(lengths()), len(INDICES))
    assert [bank.episode_of.count(episode) for episode in range(len(lengths()))] == lengths()
    for record, begin, length in zip(records(), begins(), lengths(), strict=True):
        here = slice(begin, begin + length)
        np.testing.assert_allclose(bank.contract.decode(bank.action[here].numpy()), record.action, atol=1e-5)
        np.testing.assert_allclose(
            bank.contract.state_normaliser.decode(bank.state[here].numpy()), record.state, atol=1e-5
        )
        sound = bank.hearing.encode(record.sound.astype(np.float32) / 32767)
        torch.testing.assert_close(bank.sound[here].float(), sound[:length], atol=2e-3, rtol=0)
        with sketched():
            pictures = torch.stack([sketch(record.drawing, frame, "front", 128, 128) for frame in (0, length - 1)])
            latents = bank.encode(pictures).float()
        torch.testing.assert_close(bank.front[[begin, begin + length - 1]].float(), latents, atol=2e-3, rtol=0)
    assert not bank.front[bank.used :].any()


def test_pixels_are_kept_of_the_frames_that_questions_are_about():
    bank = full_bank()
    asked = {frame for rows in every_question(bank) for frame in rows.frames}
    assert 0 < len(asked) == bank.pictured < bank.used
    assert set(torch.nonzero(bank.picture < len(bank.pixels))[:, 0].tolist()) == asked
    for record, begin, length in zip(records(), begins(), lengths(), strict=True):
        for frame in [frame for frame in sorted(asked) if begin <= frame < begin + length][::7]:
            kept = bank.pixels[bank.picture[frame]]
            assert torch.equal(kept, sketch(record.drawing, frame - begin, "front", 128, 128))
    left = next(frame for frame in range(bank.used) if frame not in asked)
    with pytest.raises(IndexError):
        bank.patches(torch.tensor([[left]]))


def test_questions_about_pictures_that_do_not_fit_are_left_out_and_counted():
    with patch.multiple(bank_module, PICTURES=0.0, FEW_PICTURES=20):
        bank = new_bank()
    whole = full_bank()
    assert len(bank.pixels) == 20 >= bank.pictured > 12
    assert {frame for row in every_question(bank) for frame in row.frames} == set(
        torch.nonzero(bank.picture < 20)[:, 0].tolist()
    )
    assert bank.counts.left_out["no room for pictures"] == len(every_question(whole)) - len(every_question(bank)) > 0
    assert (bank.windows, bank.used) == (whole.windows, whole.used)
    for row in every_question(bank):
        of_both = [one.pixels[one.picture[list(row.frames)]] for one in (bank, whole)]
        assert torch.equal(*of_both)


def test_windows_are_all_those_that_stay_within_an_episode():
    bank = full_bank()
    expected = [
        begin + start for begin, length in zip(begins(), lengths(), strict=True) for start in range(length - CHUNK)
    ]
    assert bank.windows == expected
    assert all(bank.episode_of[first] == bank.episode_of[first + CHUNK] for first in bank.windows)


def test_policies_learn_only_where_the_actions_of_the_expert_were_executed():
    bank = full_bank()
    expected = []
    for record, begin in zip(records(), begins(), strict=True):
        for start in range(len(record.state) - CHUNK):
            within = slice(start, start + CHUNK)
            if np.abs(record.action[within] - record.expert[within]).max() < 1e-4:
                expected.append(begin + start)
    assert bank.policy == expected
    assert 0 < len(expected) < len(bank.windows)
    undisturbed = replace(records()[0], expert=records()[0].action)
    assert (alone := new_bank(some=[undisturbed])).policy == alone.windows


def test_without_sound_there_are_windows_but_none_that_sounds():
    silent = replace(records()[0], sound=None)
    bank = new_bank(some=[silent, records()[1]])
    first = len(silent.state)
    assert bank.windows[0] == 0
    assert bank.sounding == [start for start in bank.windows if start >= first]
    assert all(frame >= first for rows in bank.clips.values() for frame, _ in rows)
    assert any(frame < first for rows in bank.scenes.values() for frame, _ in rows)


def test_answers_are_what_the_labels_decode_to():
    bank = full_bank()
    asked = {kind: [q for record in records() for q in record.questions if (q.media == "frame") == (kind == "image")]
             for kind in bank.questions}  # fmt: skip
    assert bank.questions.keys() == {"image", "video"}
    taken = 0
    for kind, families in bank.questions.items():
        for family, rows in families.items():
            labels = asking(bank, bank.forms[kind], rows).labels
            wanted = iter(q for q in asked[kind] if q.family == family)
            for row, label in zip(rows, labels, strict=True):
                answer = label[label >= 0]
                prompt = words(row.ids[: row.answer.start])
                # Some were left out, so the next one that was asked like this.
                question = next(q for q in wanted if q.prompt in prompt and q.answer == words(answer))
                assert int(answer[-1]) == bank.text.eos_id
                # Row n is about token n + 1.
                where = torch.nonzero(label >= 0)[:, 0]
                assert torch.equal(torch.from_numpy(row.ids)[where + 1], answer)
                assert question.start_frame <= row.frames[0] - begins()[bank.episode_of[row.frames[0]]]
                assert len({bank.episode_of[frame] for frame in row.frames}) == 1
                taken += 1
    assert taken > 60
    left_out = sum(bank.counts.left_out[why] for why in ("question too long", "video too short"))
    assert taken + left_out == sum(len(record.questions) for record in records())


def test_questions_of_one_form_have_their_pictures_at_one_place():
    bank = full_bank()
    pad = {kind: bank.text.id(f"<|{kind}_pad|>") for kind in ("image", "video")}
    for kind, text in (("image", STILL_TEXT), ("video", VIDEO_TEXT)):
        form = bank.forms[kind]
        merged = form.grid[0] * form.grid[1] * form.grid[2] // EYES.merge**2
        assert len(form.visual) == merged
        for rows in bank.questions[kind].values():
            for row in rows:
                assert len(row.ids) == merged + text == form.positions.shape[1]
                assert np.array_equal(np.flatnonzero(row.ids == pad[kind]), form.visual.numpy())
        # After the pictures, text goes on by one on every axis.
        after = form.positions[:, int(form.visual[-1]) + 2 :]
        assert torch.equal(after.diff(dim=1), torch.ones_like(after[:, 1:]))


def test_captions_stand_at_the_frames_they_are_about():
    bank = full_bank()
    for kept, told in ((bank.scenes, "scenes"), (bank.clips, "clips")):
        expected = Counter(
            (begin + frame, text)
            for record, begin in zip(records(), begins(), strict=True)
            for frame, text in getattr(record, told)
        )
        found = Counter()
        for length, rows in kept.items():
            for frame, ids in rows:
                assert len(ids) == length
                assert length % 32 == 0
                found[next(key for key in expected if key[0] == frame and key[1] in words(ids))] += 1
        assert found == expected
    windows = set(bank.windows)
    assert all(frame in windows for rows in bank.clips.values() for frame, _ in rows)


def test_orders_are_those_of_the_episode_and_of_one_length():
    bank = full_bank()
    assert len(bank.instructions) == len(INDICES)
    for record, prompts in zip(records(), bank.instructions, strict=True):
        assert all(len(ids) == len(bank.empty) for ids in prompts)
        assert all(any(order in words(ids) for order in record.instructions) for ids in prompts)
    kept = sum(len(prompts) for prompts in bank.instructions)
    assert kept + bank.counts.left_out["instruction too long"] == sum(len(r.instructions) for r in records())


def test_no_family_of_questions_is_too_long_for_the_shipped_tokenizer():
    folder = Path(__file__).parents[2] / "checkpoints" / "pico" / "tokenizer"
    text = TextTokenizer.from_files({path.name: path.read_bytes() for path in folder.iterdir()})
    longest = {}
    for question in (question for record in records() for question in record.questions):
        length = len(text.encode(question.prompt)) + len(text.encode(question.answer)) + 1
        longest[question.family] = max(length, longest.get(question.family, 0))
        still = question.media == "frame"
        frames = 1 if still else PICO_EYES.video_frames[0] // PICO_EYES.temporal_patch
        kind = "image" if still else "video"
        times = () if still else (0.5,) * frames
        look = Look(kind=kind, patches=torch.zeros(0, 0), grid=(frames, 16, 16), merge=2, seconds=times)
        template = Template.of(text, look)
        around = len(template.before) + len(template.after) - len(template.visual)
        assert around + length <= (STILL_TEXT if still else VIDEO_TEXT), question.prompt
    # The longest family: its questions list intervals.
    assert longest["when_quarter"] > 60


def test_what_does_not_fit_is_left_out_and_counted():
    bank = new_bank(room=sum(lengths()[:2]) + 10)
    assert (bank.used, bank.counts.episodes, bank.counts.left_out["no room"]) == (sum(lengths()[:2]), 2, 2)
    assert bank.full
    windows = list(bank.windows)
    bank.add(records()[:1])
    assert bank.counts.left_out["no room"] == 3
    assert bank.windows == windows
    assert not new_bank(room=sum(lengths()) + 256).full


def test_records_taken_in_one_by_one_are_what_they_are_together():
    bank = new_bank(some=[])
    with sketched():
        for record in records():
            bank.add([record])
    together = full_bank()
    for name in ("windows", "policy", "sounding", "episode_of"):
        assert getattr(bank, name) == getattr(together, name)
    assert torch.equal(bank.pixels, together.pixels)
    torch.testing.assert_close(bank.front.float(), together.front.float(), atol=2e-3, rtol=0)
    assert {k: list(v) for k, v in bank.questions.items()} == {k: list(v) for k, v in together.questions.items()}


def test_pictures_go_to_the_eyes_as_the_eyes_cut_them():
    bank = full_bank()
    stills = [row.frames[0] for row in bank.questions["image"]["count"]][:2]
    video = next(iter(bank.questions["video"].values()))[0].frames
    frames = bank.pixels[bank.picture[[*stills, *video]]].numpy()
    expected = torch.cat([patchify(np.repeat(frames[[at]], 2, axis=0), PICO_EYES)[0] for at in (0, 1)])
    torch.testing.assert_close(bank.patches(torch.tensor(stills)[:, None]), expected)
    torch.testing.assert_close(bank.patches(torch.tensor([video])), patchify(frames[2:], PICO_EYES)[0])


@pytest.mark.parametrize("camera", [0, 1])
def test_latents_of_a_window_are_a_first_frame_and_four_by_four(camera):
    bank = full_bank()
    kept = (bank.front, bank.wrist)[camera].float()
    which = torch.tensor([[5], [60]]) + torch.arange(CHUNK + 1)
    found = bank.latents(which, camera)
    assert found.shape == (2, 32, 5, *kept.shape[2:])
    torch.testing.assert_close(unstack_latents(found, differences=True), kept[which], atol=1e-6, rtol=1e-6)


def test_a_template_around_words_is_the_prompt_that_a_reader_is_asked():
    text = new_bank().text
    for kind, grid, seconds in (("image", (1, 16, 16), ()), ("video", (2, 16, 16), (0.1, 0.5))):
        look = Look(kind=kind, patches=torch.zeros(0, 0), grid=grid, merge=2, seconds=seconds)
        template = Template.of(text, look)
        for question in (q for record in records() for q in record.questions):
            ids, spans = question_prompt(text, question.prompt, look)
            assert template.around(text.encode(question.prompt)) == ids
            positions, _ = reason_positions(len(ids), spans)
            assert torch.equal(template.positions_of(len(ids)), positions)
