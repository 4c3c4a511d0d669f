import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orrery.data.lerobot import extra_path, open_dataset
from orrery.data.lerobot_writer import Writer
from orrery.data.media import Sound, probe_video, read_sound, read_video
from orrery.data.write_media import write_flac, write_video
from orrery.errors import DatasetError
from orrery.evaluation.episode_facts import Extras, value_names
from orrery.evaluation.episode_page import POLICY, SCRIPT, render, write_episode_page
from orrery.evaluation.timeline import LEFT, PLOT, lanes, tick_step

HOSTILE = "</title></script><script>alert('x')</script> & \"quotes\" <img src=x onerror=alert(1)>"
FPS, FRAMES = 10, 30
FRONT, SIDE = "observation.images.front", "observation.images.side"


def table(rows, schema=None):
    return lambda path: pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def film(value, frames=FRAMES, height=32, width=48):
    return np.full((frames, height, width, 3), value, dtype=np.uint8)


def sound(seconds=FRAMES / FPS):
    samples = np.zeros((int(48_000 * seconds), 2), np.float32)
    samples[48_000:48_100, 1] = 0.5  # one click at 1 s, on the right
    return Sound(samples=samples, rate=48_000)


def event(**change):
    settings = {
        "time_s": 1.0, "stop_s": 1.0, "kind": "impact", "subjects": ["part_0", "bench"],
        "materials": ["steel", "wood"], "cause": "dropped", "impulse_Ns": 0.25,
    }  # fmt: skip
    return settings | change


def question(**change):
    settings = {
        "family": "count", "template": 3, "text": "How many parts?", "answer": "two of them",
        "choices": ["one", "two"], "kind": "choice", "camera": FRONT, "media": "image", "start_frame": 4,
        "stop_frame": 5, "sound": False,
    }  # fmt: skip
    return settings | change


def extras(word="carry"):
    phases = [
        {"frame_index": i, "phase": "approach" if i < 10 else word, "subject": "part_0", "failure": "not_lifted"}
        for i in range(FRAMES)
    ]
    objects = [
        {"frame_index": i, "part": 7, "x_m": 0.125 + i, "y_m": 0.0, "z_m": 0.0, "held": True} for i in range(FRAMES)
    ]
    about = {
        "seed": 2**62, "success": False, "failure": "dropped", "fork_step": None, "captions": ["one", "two"],
        "parameters": {"friction": 0.5}, "instruction": word,
    }  # fmt: skip
    events = [
        event(),
        event(time_s=2.0, stop_s=2.5, kind="rubbing", impulse_Ns=None, subjects=[word], materials=[word], cause=word),
        event(time_s=0.5, stop_s=0.5, kind=word),
    ]
    questions = [question(), question(media="clip", **dict.fromkeys(("family", "text", "answer", "camera"), word))]
    return {
        "about.json": lambda path: path.write_text(json.dumps(about)),
        "sound.flac": lambda path: write_flac(path, sound()),
        "events.parquet": table(events),
        "phases.parquet": table(phases),
        "objects.parquet": table(objects),
        "questions.parquet": table(questions),
        "clip.mp4": lambda path: write_video(path, film(200, 20), FPS, sound=sound(2.0)),
    }


def record(root, *, task="Lift it.", names=("x_m", "gripper"), cameras=(FRONT, SIDE), robot="cell", **change):
    values = np.stack([np.linspace(-1, 1, FRAMES), np.ones(FRAMES)], axis=1).astype(np.float32)
    with Writer(
        root, fps=FPS, robot_type=robot, columns={"observation.state": names, "action": names},
        cameras=dict.fromkeys(cameras, (32, 48)),
    ) as writer:  # fmt: skip
        frames = {camera: film(40 + 150 * n) for n, camera in enumerate(cameras)}
        columns = {"action": values, "observation.state": values}
        writer.add(task="Another.", columns=columns, frames=frames)
        writer.add(task=task, columns=columns, frames=frames, **change)
    return root


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    return record(tmp_path_factory.mktemp("factory") / "dataset", extras=extras())


class Reader(HTMLParser):
    """Tags and attributes; checks that what is opened is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.attributes, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def show(root, index=1):
    path = Path(root).parent / "page.html"
    write_episode_page(path, open_dataset(root, cameras="available"), index)
    html = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return html, reader


def films_in(reader):
    return [base64.b64decode(v.partition(",")[2]) for n, v in reader.attributes if n == "src" and "video/mp4" in v]


def group(html, title):
    """The drawing of the row of the timeline whose title begins so."""
    (found,) = re.findall(rf"<g transform=[^>]*><title>{title}.*?(?=<g transform|</svg>)", html)
    return found


def test_the_page_needs_nothing_but_itself_and_runs_one_script_that_its_policy_names(factory):
    html, reader = show(factory)
    assert not {"link", "img", "iframe", "object", "form"} & set(reader.tags)
    assert not any(text in html for text in ("http://", "https://", "@import", "url("))
    sources = [value for name, value in reader.attributes if name in ("src", "href", "poster")]
    assert len(sources) == 3
    assert all(source.startswith("data:video/mp4;base64,") for source in sources)
    (policy,) = [value for name, value in reader.attributes if name == "content" and "default-src" in value]
    assert policy == POLICY
    assert policy.startswith("default-src 'none'")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert script == SCRIPT
    assert not any(name.startswith("on") for name, _ in reader.attributes)


def test_all_cameras_are_films_and_the_first_is_heard(factory):
    _, reader = show(factory)
    front, side, clip = films_in(reader)
    for source, shade, count in ((front, 40, FRAMES), (side, 190, FRAMES), (clip, 200, 20)):
        video = read_video(source)
        assert (video.fps, video.frames.shape) == (FPS, (count, 32, 48, 3))
        assert np.abs(video.frames.astype(int) - shade).max() < 8
    assert [probe_video(source).sound for source in (front, side, clip)] == [True, False, True]
    heard = read_sound(front)
    assert np.abs(heard.samples[:, 1]).argmax() / heard.rate == pytest.approx(1.0, abs=0.03)


def test_a_large_picture_is_scaled_down_and_an_odd_one_made_even(tmp_path):
    with Writer(tmp_path / "d", fps=5, robot_type="r", columns={}, cameras={FRONT: (54, 1000)}) as writer:
        writer.add(task="go", columns={}, frames={FRONT: film(90, 3, 54, 1000)})
    _, reader = show(tmp_path / "d", 0)
    (source,) = films_in(reader)
    assert read_video(source).frames.shape == (3, 26, 480, 3)


def test_everything_lies_over_one_axis_of_time(factory):
    html, _ = show(factory)

    def x(time_s):
        return LEFT + PLOT * time_s / (FRAMES / FPS)

    (mark,) = re.findall(r'class="mark" x="([\d.]+)"', group(html, "impact"))
    assert float(mark) == pytest.approx(x(1.0), abs=0.1)
    ((mark, wide),) = re.findall(r'class="mark" x="([\d.]+)" y="2" width="([\d.]+)"', group(html, "rubbing"))
    assert (float(mark), float(mark) + float(wide)) == pytest.approx((x(2.0), x(2.5)), abs=0.2)
    bands = re.findall(r'class="tint" x="([\d.]+)" y="1" width="([\d.]+)"', group(html, "What was being done"))
    assert [float(start) for start, _ in bands] == pytest.approx([x(0), x(1.0)], abs=0.1)
    points = re.search(r'points="([^"]*)"', group(html, "action, x_m"))[1].split()
    assert len(points) == FRAMES
    assert float(points[10].split(",")[0]) == pytest.approx(x(1.05), abs=0.1)
    assert float(points[0].split(",")[1]) > float(points[-1].split(",")[1])  # it rises, and y points down
    wave = re.search(r' d="M([^"]*)Z"', group(html, "Sound right"))[1].split("L")
    highest = min((point.split() for point in wave), key=lambda point: float(point[1]))
    assert float(highest[0]) == pytest.approx(x(1.0), abs=1.5)
    left = re.search(r' d="M([^"]*)Z"', group(html, "Sound left"))[1].split("L")
    assert len({point.split()[1] for point in left}) == 2  # silent: one line


def test_names_units_and_ranges_are_said(factory):
    html, _ = show(factory)
    assert "action, x_m: -1 to 1 m; starts at -1, ends at 1" in html
    assert ">x (m)<" in html
    assert "observation.state, gripper: always 1; starts at 1, ends at 1" in html
    assert html.index(">action<") < html.index(">observation.state<")


def test_what_was_recorded_beside_it_is_told(factory):
    html, reader = show(factory)
    text = unescape(re.sub(r"<[^>]*>", " ", re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL)))
    told = ("Failed: dropped", "Lift it.", "cell", "3.00 s", "How many parts?", "template 3", str(2**62),
            "parameters.friction", "0.25 N s", "steel · wood", "not_lifted", "approach part_0", "29.125")  # fmt: skip
    assert [word for word in told if word not in text] == []
    answers = re.findall(r"<details><summary>Answer</summary><p>(.*?)</p></details>", html)
    assert answers == ["two of them", "carry"]
    assert html.count("two of them") == 1
    ats = [float(value) for name, value in reader.attributes if name == "data-at"]
    assert ats == [0.5, 1.0, 2.0, 0.4]  # events in order of time; then the question that is not about the clip
    facts = re.findall(r"<dt>(.*?)</dt>", html)
    assert facts == sorted(facts)


def test_a_dataset_without_extras_shows_what_it_has(factory):
    html, reader = show(factory, 0)
    assert len(films_in(reader)) == 2
    assert "action, x_m" in html
    assert not any(word in html for word in ("<h2>", "Sound left", "What was being done", 'class="badge'))
    assert 'class="warnings"' not in html


def test_sound_without_cameras_is_heard_alone(tmp_path):
    html, reader = show(record(tmp_path / "d", cameras=(), extras={"sound.flac": extras()["sound.flac"]}))
    assert films_in(reader) == []
    (source,) = [value for name, value in reader.attributes if name == "src"]
    assert source.startswith("data:audio/flac;base64,")
    assert read_sound(base64.b64decode(source.partition(",")[2])).samples.shape == (144_000, 2)
    assert "Sound right" in html


def test_all_text_is_escaped(tmp_path):
    hostile = HOSTILE.replace("/", "\\/")  # a name with a slash is refused by the reader
    root = record(tmp_path / "d", task=HOSTILE, names=(f"{hostile}_m", hostile), robot=HOSTILE, extras=extras(HOSTILE))
    info = root / "meta/info.json"
    info.write_text(info.read_text().replace('"action"', json.dumps(f"action {hostile}".replace("/", "|"))))
    data = extra_path(root, "x", "parquet", 1)
    for path in (root / "data").rglob("*.parquet"):
        rows = pq.read_table(path)
        names = [f"action {hostile}".replace("/", "|") if n == "action" else n for n in rows.column_names]
        pq.write_table(rows.rename_columns(names), path)
    assert not data.exists()
    html, reader = show(root)
    assert reader.tags.count("script") == 1
    assert "img" not in reader.tags
    assert not any(name.startswith("on") for name, _ in reader.attributes)
    assert html.count("<script") == 1
    assert html.count("&lt;script&gt;") >= 15


def test_half_a_surrogate_pair_is_replaced(tmp_path):
    about = {"about.json": lambda path: path.write_text('{"seed": "\\ud800", "success": true}')}
    html, _ = show(record(tmp_path / "d", extras=about))
    assert "<dd>?</dd>" in html
    assert 'class="badge good">Succeeded' in html


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("about.json", b"{"),
        ("about.json", b"[1]"),
        ("about.json", b"[" * 100_000),
        ("sound.flac", b"fLaC, but not really"),
        ("events.parquet", b"PAR1"),
        ("phases.parquet", b""),
        ("objects.parquet", b"x" * 100),
        ("questions.parquet", b"PAR1PAR1"),
        ("clip.mp4", b"\0\0\0\x18ftypmp42"),
    ],
)
def test_a_damaged_extra_is_named_and_no_page_is_written(factory, tmp_path, name, content):
    shutil.copytree(factory, tmp_path / "d")
    stem, _, suffix = name.partition(".")
    path = extra_path(tmp_path / "d", stem, suffix, 1)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=re.escape(str(path))):
        show(tmp_path / "d")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("events", [{"time_s": 1.0}], "no column stop_s, kind"),
        ("events", [event(time_s="soon")], "other types"),
        ("events", [event(kind=None)], "lacks a value in kind"),
        ("events", [event(subjects=["a", None])], "lacks a value in subjects"),
        ("events", [event(stop_s=0.5)], "from 1.0 to 0.5 s"),
        ("events", [event(time_s=float("nan"))], "from nan"),
        ("phases", [{"frame_index": 0, "phase": "", "subject": "", "failure": ""}], "one row for each of 30"),
    ],
)
def test_an_extra_that_does_not_hold_what_it_should_is_named(factory, tmp_path, name, rows, said):
    shutil.copytree(factory, tmp_path / "d")
    path = extra_path(tmp_path / "d", name, "parquet", 1)
    table(rows)(path)
    with pytest.raises(DatasetError, match=said) as caught:
        show(tmp_path / "d")
    assert str(path) in str(caught.value)


def test_what_does_not_fit_the_episode_is_said(tmp_path):
    odd = {
        "sound.flac": lambda path: write_flac(path, sound(2.0)),
        "events.parquet": table([event(time_s=-1.0), event(stop_s=9.0)]),
        "questions.parquet": table([question(media="clip")]),
    }
    html, _ = show(record(tmp_path / "d", extras=odd))
    assert "The sound lasts 2.00 s, the episode 3.00 s." in html
    assert "2 reach beyond the episode" in html
    assert "about a clip that is not there" in html
    rows = "".join(re.findall(r"<g transform=[^>]*><title>impact.*?(?=<g transform|</svg>)", html))
    marks = re.findall(r'class="mark" x="([\d.]+)" y="2" width="([\d.]+)"', rows)
    ends = [end for x, wide in marks for end in (float(x), float(x) + float(wide))]
    assert ends == pytest.approx([LEFT, LEFT + PLOT / 3, LEFT + PLOT / 3, LEFT + PLOT], abs=0.2)


def test_events_that_last_do_not_hide_each_other():
    events = [
        event(time_s=start, stop_s=stop) for start, stop in ((0, 3), (1, 2), (2, 4), (2.5, 9), (2.6, 5), (2.7, 6))
    ]
    found = [[e["time_s"] for e in lane] for lane in lanes(events)]
    assert found == [[0, 2.7], [1, 2], [2.5], [2.6]]  # the last finds no room and goes where there is some first


def test_many_problems_are_folded_and_wide_features_named(tmp_path):
    wide = {"action": tuple(str(n) for n in range(70))}
    with Writer(tmp_path / "d", fps=5, robot_type="r", columns=wide, cameras={}) as writer:
        writer.add(task="go", columns={"action": np.zeros((4, 70), np.float32)}, frames={})
    info = json.loads((tmp_path / "d/meta/info.json").read_text())
    info |= {"total_episodes": 7, "total_frames": 7, "splits": {"train": "0:7"}}
    info["features"]["task_index"]["shape"] = []
    (tmp_path / "d/meta/info.json").write_text(json.dumps(info))
    html, _ = show(tmp_path / "d", 0)
    assert "Not drawn: action (70 values a frame)." in html
    assert "<details><summary>4 problems of the dataset</summary>" in html


@pytest.mark.parametrize(
    ("names", "width", "found"),
    [
        (["a", "b"], 2, ("a", "b")),
        ({"motors": ["a", "b"]}, 2, ("a", "b")),
        ({"axes": ["a"], "more": ["b"]}, 2, ("a", "b")),
        (["a"], 2, ("0", "1")),
        ([["a", "b"]], 2, ("0", "1")),
        ({"x": 0, "y": 1}, 2, ("x", "y")),
        (None, 1, ("value",)),
        ("ab", 2, ("0", "1")),
    ],
)
def test_names_of_values_as_datasets_have_them(names, width, found):
    assert value_names({"names": names}, width) == found


@pytest.mark.parametrize("seconds", [0.05, 0.7, 3.0, 8.0, 48.13, 600.0, 3599.0])
def test_five_to_twelve_round_times_are_on_the_axis(seconds):
    step = tick_step(seconds)
    assert 4.9 <= seconds / step <= 12.001
    assert f"{step:e}"[0] in "125"


def test_a_long_recording_keeps_its_peaks(tmp_path):
    values = np.zeros((5000, 1), np.float32)
    values[3210] = 9
    with Writer(tmp_path / "d", fps=10, robot_type="r", columns={"action": ("a",)}, cameras={}) as writer:
        writer.add(task="go", columns={"action": values}, frames={})
    html, _ = show(tmp_path / "d", 0)
    points = re.search(r'points="([^"]*)"', group(html, "action, a"))[1].split()
    assert len(points) == 2 * PLOT
    top = min(points, key=lambda point: float(point.split(",")[1]))
    assert float(top.split(",")[0]) == pytest.approx(LEFT + PLOT * 0.642, abs=1)


def test_a_real_episode():
    real = Path(__file__).resolve().parents[2].parent / "shared/data/real/droid"
    if not real.is_dir():
        pytest.skip("real recordings are not on this machine")
    dataset = open_dataset(real, cameras="available")
    episode = dataset.episode(0)
    columns = {name: values[:40] for name, values in episode.columns.items()}
    begins = replace(episode, length=40, times_s=episode.times_s[:40], columns=columns)
    told = []
    html = render(dataset, begins, Extras(), tell=lambda *news: told.append(news))
    assert told == [(n, 40) for n in range(1, 41)]
    assert "No task text." in html
    assert html.count("<polyline") == 10
