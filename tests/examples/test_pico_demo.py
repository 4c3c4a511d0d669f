"""The demo of the small model at tiny size, with random weights."""

import importlib
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from makers.pico_checkpoint import SMALL, SMALL_VISION, random_pico

from orrery.evaluation.factory.scenes import FIRST_SEEN, SEEDS
from orrery.runtime.result import RANDOM_WEIGHTS
from orrery.runtime.save import save
from orrery.tasks.contract import Camera
from orrery.tokenizers.pixel_patch import PatchSoundCodec, PixelPatchCodec

ROOT = Path(__file__).parent.parent.parent


class Elements(HTMLParser):
    """Tags and their attributes."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def sources(self, tag):
        return [attributes.get("src", "") for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples" / "pico"))
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        # Another example has a module of that name.
        patch.delitem(importlib.sys.modules, "demo", raising=False)
        modules = {name: importlib.import_module(name) for name in ("panels", "demo")}
        patch.delitem(importlib.sys.modules, "demo")
        yield SimpleNamespace(**modules)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("random") / "pico"
    model = random_pico(
        SMALL,
        SMALL_VISION,
        vision=PixelPatchCodec(spatial=8),
        sound=PatchSoundCodec(rate=16000, hop=800),
        cameras=(Camera(name="front", height=128, width=128), Camera(name="wrist", height=64, width=64)),
    )
    save(model, folder, trained=False, licence="Apache-2.0", notes={"made_by": "tests"})
    return folder


@pytest.fixture(scope="module")
def written(example, checkpoint, tmp_path_factory):
    """The whole demo once, small, in one process."""
    out, threads = tmp_path_factory.mktemp("demo"), torch.get_num_threads()
    seeds = []
    with pytest.MonkeyPatch.context() as patch:
        tiny = replace(
            example.panels.SIZE,
            rollouts=2,
            inverse_windows=1,
            steps=8,
            question_episodes=1,
            blind_episodes=1,
            per_family=1,
            captions=2,
        )
        for module in (example.panels, example.demo):
            patch.setattr(module, "SIZE", tiny)
            patch.setattr(module, "CHUNKS", 2)
        patch.setattr(example.panels, "FRAME_TASK", "press_start")
        patch.setattr("orrery.evaluation.factory.scenes.SOURCES", ("expert", "play"))
        gather = example.panels.gather

        def noted(function, jobs, workers):
            for job in jobs:
                case = job[0] if isinstance(job, tuple) else getattr(job, "case", job)
                seeds.append(case.seed)
            return gather(function, jobs, workers)

        patch.setattr(example.panels, "gather", noted)
        example.demo.Demo(checkpoint=str(checkpoint), out=out, threads=1, workers=1)()
    torch.set_num_threads(threads)
    return SimpleNamespace(
        page=(out / "index.html").read_text(), results=json.loads((out / "results.json").read_text()), seeds=seeds
    )


def test_every_panel_has_its_numbers_with_baselines_and_the_commands_that_make_them(example, written):
    assert set(written.results["panels"]) == {"ask", "imagine", "plan", "recover", "act"} == set(example.panels.PANELS)
    assert set(written.results["seconds"]) == {"load", *example.panels.PANELS}
    for name, panel in written.results["panels"].items():
        assert panel["measures"]
        assert all(measure["baseline"]["name"] != "none" for measure in panel["measures"])
        assert f"--panels {name}" in panel["command"]
        assert all(row in panel["command"] for row in example.panels.PANELS[name].rows)
    assert {"plan", "recover", "act"} <= {
        name
        for name, panel in written.results["panels"].items()
        if all(measure["value"] is not None for measure in panel["measures"])
    }


def test_the_page_is_whole_in_itself_and_shows_media_and_curves(written):
    elements = Elements(written.page)
    films, stills = elements.sources("video"), elements.sources("img")
    assert len(films) == 2 + 2 + 2
    assert all(source.startswith("data:video/mp4;base64,") for source in films)
    assert [source[:22] for source in stills] == ["data:image/png;base64,"]
    assert written.page.count('class="chart"') == 2 + 5
    assert {"script", "link", "iframe"}.isdisjoint(tag for tag, _ in elements.found)
    assert "://" not in written.page
    words = " ".join(part.split("<")[0] for part in written.page.split(">"))
    assert "nan" not in words.lower().split()
    assert "safety" in written.page


def test_the_page_and_the_numbers_say_that_weights_are_random(written):
    assert RANDOM_WEIGHTS in written.page
    assert RANDOM_WEIGHTS in written.results["warnings"]


def test_only_test_episodes_are_used(written):
    assert written.seeds
    assert all(FIRST_SEEN <= seed < FIRST_SEEN + SEEDS for seed in written.seeds)


def test_a_curve_has_no_value_where_nothing_moved_and_follows_the_error_elsewhere(example):
    true = np.zeros((3, 4, 4, 3), np.uint8)
    true[1:, 0] = 200
    masks = [np.abs(true - true[:1]).max(axis=-1) > 12]
    near, far = true.copy(), true.copy()
    near[2, 0] -= 10
    far[2, 0] -= 100
    good, bad = (example.panels.psnr_by_frame([clip], [true], masks) for clip in (near, far))
    assert good[0] is None
    assert good[1] == float("inf")
    assert good[2] > bad[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--panels", "plans"], "no panel 'plans'"), (["--checkpoint", "/nowhere"], "no folder")],
)
def test_a_mistake_is_one_line_and_exit_code_2(example, arguments, words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["demo.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        example.demo.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.count("\n") == 1
    assert words in said
