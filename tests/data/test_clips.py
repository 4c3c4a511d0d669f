import json
import random
from pathlib import Path

import pytest

from orrery.data.clips import Window, read_clips
from orrery.errors import DatasetError

CAPTION = {"subjects": "a cube", "actions": ["slides"], "größe": "klein", "fps": 24.0}


def entry(**changes) -> dict:
    window = {"start_frame": 0, "end_frame": 93, "temporal_interval": 1, "caption": "A cube slides."}
    line = {
        "uuid": "a",
        "duration": 5.5,
        "width": 64,
        "height": 48,
        "vision_path": "films/a.mp4",
        "t2w_windows": [window],
    }
    return line | changes


def window(**changes) -> dict:
    return entry()["t2w_windows"][0] | changes


def write(path: Path, *entries: object) -> Path:
    path.write_text("\n".join(e if isinstance(e, str) else json.dumps(e) for e in entries) + "\n", encoding="utf-8")
    return path


def test_a_list_is_read(tmp_path: Path):
    second = entry(uuid="b", vision_path="/films/b.mp4", note="kept by another tool")
    second["t2w_windows"] = [window(start_frame=10, end_frame=200, temporal_interval=3, caption_json=CAPTION)]
    found = read_clips(write(tmp_path / "clips.jsonl", entry(), "", second))
    assert found.dropped == ()
    first, other = found.clips
    assert (first.uuid, first.seconds, first.width, first.height) == ("a", 5.5, 64, 48)
    assert first.path == tmp_path / "films" / "a.mp4"
    assert first.windows == (Window(start=0, stop=93, interval=1, caption="A cube slides.", structured=False),)
    assert other.path == Path("/films/b.mp4")
    assert other.windows[0].frames == 64
    assert other.windows[0].structured
    assert other.windows[0].caption == '{"subjects": "a cube", "actions": ["slides"], "größe": "klein", "fps": 24.0}'


def test_a_structured_caption_given_as_text_stays_as_it_is(tmp_path: Path):
    text = '{"a":1,  "b":[2]}'
    (clip,) = read_clips(write(tmp_path / "c", entry(t2w_windows=[window(caption_json=text)]))).clips
    assert clip.windows[0].caption == text


def test_long_videos_and_short_windows_are_dropped_and_said(tmp_path: Path):
    windows = [window(end_frame=60), window(end_frame=61), window(end_frame=180, temporal_interval=3)]
    path = write(
        tmp_path / "c", entry(uuid="long", duration=61.5), entry(uuid="edge", duration=61.0, t2w_windows=windows)
    )
    found = read_clips(path)
    assert [c.uuid for c in found.clips] == ["edge"]
    assert [w.stop for w in found.clips[0].windows] == [61]
    assert len(found.dropped) == 3
    assert "Line 1: the video lasts 61.5 s" in found.dropped[0]
    assert "Line 2: window 0 to 180 takes 60 frames" in found.dropped[2]
    assert len(read_clips(path, longest_s=100.0, fewest_frames=1).clips) == 2
    with pytest.raises(DatasetError, match="no clip to read; 2 were dropped"):
        read_clips(write(tmp_path / "d", entry(duration=90), entry(uuid="b", t2w_windows=windows[:1])))


BAD = {
    "{": "not valid JSON",
    "[]": "is a list",
    '{"uuid": "a", "uuid": "b"}': "'uuid' is given twice",
    '{"uuid": NaN}': "NaN is not a number",
    "[" * 100_000: "not valid JSON",
    json.dumps(entry(uuid="")): "uuid must be text",
    json.dumps(entry(uuid=3)): "uuid must be text",
    json.dumps(entry(duration="5")): "duration must be a number",
    json.dumps(entry(duration=-1)): "duration must be a number",
    json.dumps(entry(width=True)): "width must be a whole number",
    json.dumps(entry(height=0)): "height must be a whole number",
    json.dumps(entry(vision_path="a\0b")): "vision_path must be text",
    json.dumps(entry(t2w_windows=[])): "at least one window",
    json.dumps(entry(t2w_windows=["x"])): "window 0 is a str",
    json.dumps(entry(t2w_windows=[window(end_frame=0)])): "end_frame must be a whole number of at least 1",
    json.dumps(entry(t2w_windows=[window(start_frame=93)])): "end_frame 93 must be greater",
    json.dumps(entry(t2w_windows=[window(), window(caption=" ")])): "window 1: caption must be text",
    json.dumps(entry(t2w_windows=[window(caption_json="{")])): "caption_json is not valid JSON",
    json.dumps(entry(t2w_windows=[window(caption_json=[1])])): "caption_json must be text",
    json.dumps(entry(t2w_windows=[window(temporal_interval=None)])): "temporal_interval must be a whole number",
    json.dumps(entry()).replace("t2w_windows", "t2w_window"): "Did you mean 't2w_windows'",
}


@pytest.mark.parametrize("line", BAD, ids=range(len(BAD)))
def test_bad_lines_are_named_by_number(tmp_path: Path, line: str):
    with pytest.raises(DatasetError, match="line 2.*" + BAD[line]):
        read_clips(write(tmp_path / "c", entry(uuid="good"), line))


def test_uuids_are_unique_and_the_file_is_there(tmp_path: Path):
    with pytest.raises(DatasetError, match="line 2: uuid 'a' is that of line 1"):
        read_clips(write(tmp_path / "c", entry(), entry()))
    with pytest.raises(DatasetError, match="cannot be read"):
        read_clips(tmp_path / "missing")
    (tmp_path / "latin").write_bytes(json.dumps(entry()).encode() + "\n{'ä'}".encode("latin-1"))
    with pytest.raises(DatasetError, match="line 2 is not valid JSON in UTF-8"):
        read_clips(tmp_path / "latin")


def test_damaged_lists_end_in_a_dataset_error_or_a_list(tmp_path: Path):
    rng = random.Random(0)
    good = write(tmp_path / "c", entry(), entry(uuid="b", t2w_windows=[window(caption_json=CAPTION)])).read_bytes()
    refused = 0
    for _ in range(60):
        content = bytearray(good)
        for _ in range(rng.choice((1, 4))):
            content[rng.randrange(len(content))] = rng.choice(b'0-{}[]",:e\x00\xff\n')
        (tmp_path / "c").write_bytes(content)
        try:
            assert read_clips(tmp_path / "c").clips
        except DatasetError:
            refused += 1
    assert refused > 20
