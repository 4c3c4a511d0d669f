import base64
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from orrery.data.media import Sound, probe_video, read_video
from orrery.errors import MediaError
from orrery.evaluation.chart import Chart, Line
from orrery.evaluation.page import (
    GAP_PX,
    Measure,
    Page,
    Section,
    Still,
    Strip,
    Table,
    render,
    shown,
    side_by_side,
    write_page,
)

HOSTILE = "<script>alert('x')</script> & \"quotes\""


def measure(**change):
    settings = {
        "name": "PSNR of moving pixels", "value": 15.5, "unit": "dB", "baseline_name": "copy of the last frame",
        "baseline": 10.25, "better": "higher",
    }  # fmt: skip
    return Measure(**(settings | change))


def clip(value=90, frames=5, height=16, width=24):
    return np.full((frames, height, width, 3), value, dtype=np.uint8)


def page(**change):
    strip = Strip(caption="One window", clips=(("recorded", clip(30)), ("generated", clip(220))), fps=15)
    section = Section(title="Forward dynamics", text="What follows.", measures=(measure(),), strips=(strip,))
    settings = {
        "title": "One episode", "summary": "A summary.", "warnings": ("This memorises one episode.",),
        "facts": (("Seed", "0"),), "sections": (section,),
    }  # fmt: skip
    return Page(**(settings | change))


class Reader(HTMLParser):
    """Tags still open, and every attribute seen."""

    VOID = ("meta", "br", "img")

    def __init__(self):
        super().__init__()
        self.open, self.attributes, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(html):
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_the_page_needs_nothing_but_itself():
    html = render(page())
    reader = read(html)
    assert not {"script", "link", "img", "iframe", "object"} & set(reader.tags)
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert "url(" not in html
    sources = [value for name, value in reader.attributes if name in ("src", "href", "poster")]
    assert sources
    assert all(source.startswith("data:video/mp4;base64,") for source in sources)
    (policy,) = [value for name, value in reader.attributes if name == "content" and "default-src" in value]
    assert policy.startswith("default-src 'none'")


def test_all_text_is_escaped():
    row = measure(name=HOSTILE, unit=HOSTILE, baseline_name=HOSTILE, note=HOSTILE)
    strip = Strip(caption=HOSTILE, clips=((HOSTILE, clip()),), fps=15)
    section = Section(title=HOSTILE, text=HOSTILE, measures=(row,), strips=(strip,), command=HOSTILE)
    html = render(
        page(title=HOSTILE, summary=HOSTILE, warnings=(HOSTILE,), facts=((HOSTILE, HOSTILE),), sections=(section,))
    )
    assert "<script" not in html
    assert "script" not in read(html).tags
    assert html.count("&lt;script&gt;") >= 12


def test_clips_play_in_step_silently_and_for_ever_in_one_video(tmp_path):
    html = render(page())
    reader = read(html)
    assert {("autoplay", None), ("muted", None), ("loop", None), ("playsinline", None)} <= set(reader.attributes)
    (source,) = [value for name, value in reader.attributes if name == "src"]
    video = read_video(base64.b64decode(source.partition(",")[2]))
    assert video.fps == 15
    assert video.frames.shape == (5, 16, 24 + GAP_PX + 24, 3)
    assert np.abs(video.frames[:, 4:-4, 4:20].astype(int) - 30).max() < 6
    assert np.abs(video.frames[:, 4:-4, -20:-4].astype(int) - 220).max() < 6


def test_a_strip_may_have_sound_that_the_reader_can_turn_on():
    sound = Sound(samples=np.zeros((48_000 // 3, 2), np.float32), rate=48_000)
    strip = Strip(caption="with clicks", clips=(("recorded", clip()),), fps=15, sound=sound)
    reader = read(render(page(sections=(Section(title="Sound", text="", strips=(strip,)),))))
    assert ("controls", None) in reader.attributes
    (source,) = [value for name, value in reader.attributes if name == "src"]
    assert probe_video(base64.b64decode(source.partition(",")[2])).sound


def test_a_number_stands_in_one_row_with_its_baseline_and_the_verdict():
    section = Section(title="t", text="", measures=(measure(interval=(15.0, 16.0)), measure(value=9.0)))
    html = render(page(sections=(section,)))
    first, second = re.findall(r"<tr><td>.*?</tr>", html)
    assert all(text in first for text in ("15.5 dB", "15 to 16", "10.25 dB", "copy of the last frame", ">better<"))
    assert "not better" in second


@pytest.mark.parametrize(
    ("value", "baseline", "better", "verdict"),
    [(2, 1, "higher", "better"), (1, 2, "higher", "not better"), (1, 2, "lower", "better"),
     (2, 2, "lower", "not better"), (None, 1, "higher", None), (1, None, "higher", None),
     (math.inf, 20, "higher", "better")],
)  # fmt: skip
def test_who_wins(value, baseline, better, verdict):
    assert measure(value=value, baseline=baseline, better=better).verdict == verdict


@pytest.mark.parametrize(("baseline", "verdict"), [(0.9, "better"), (1.0, "no clear difference"), (3.1, "not better")])
def test_a_baseline_within_the_interval_is_not_told_apart(baseline, verdict):
    assert measure(value=2, baseline=baseline, interval=(1, 3)).verdict == verdict


def test_what_does_not_exist_and_what_is_exact_are_said_in_words():
    assert shown(None, "dB") == "does not exist"
    assert shown(math.inf, "dB") == "infinite (exact)"
    assert shown(0.0123456, "m") == "0.01235 m"
    written = json.dumps(measure(value=math.inf, baseline=None).to_json(), allow_nan=False)
    assert json.loads(written)["value"] == "infinite"
    assert json.loads(written)["baseline"] == {"name": "copy of the last frame", "value": None}


def test_side_by_side_keeps_every_pixel():
    clips = [clip(value) for value in (1, 2, 3)]
    wide = side_by_side(clips)
    for index, value in enumerate((1, 2, 3)):
        left = index * (24 + GAP_PX)
        assert (wide[:, :, left : left + 24] == value).all()


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path):
    path = tmp_path / "page.html"
    write_page(path, page())
    before = path.read_bytes()
    odd = Strip(caption="", clips=(("odd", clip(height=15)),), fps=15)
    with pytest.raises(MediaError):
        write_page(path, page(sections=(Section(title="", text="", strips=(odd,)),)))
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["page.html"]


def test_pictures_tables_and_curves_are_inside_the_page_and_their_text_is_escaped():
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    section = Section(
        title="Answers",
        text="",
        stills=(Still(caption=HOSTILE, picture=picture),),
        tables=(Table(head=("Question", HOSTILE), rows=(("What is it?", HOSTILE),)),),
        charts=(Chart(caption=HOSTILE, lines=(Line(label="model", values=[1.0, 2.0]),), across="frame", up="dB"),),
    )
    html = render(page(sections=(section,)))
    reader = read(html)
    assert "script" not in reader.tags
    (source,) = [value for name, value in reader.attributes if name == "src"]
    kind, data = source.split(",")
    assert kind == "data:image/png;base64"
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) == picture).all()
    (policy,) = [value for name, value in reader.attributes if name == "content" and "default-src" in value]
    assert "img-src data:" in policy
    assert html.count('class="chart"') == 1


def test_a_number_without_a_baseline_has_an_empty_place_for_it():
    alone = Section(title="x", text="", measures=(measure(baseline_name="", baseline=None),))
    assert "does not exist" not in render(page(sections=(alone,)))
    compared = Section(title="x", text="", measures=(measure(baseline=None),))
    assert "does not exist" in render(page(sections=(compared,)))
