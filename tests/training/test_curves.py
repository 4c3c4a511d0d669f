"""The log of a run becomes a picture, where there is something to draw it with."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from orrery.errors import SettingsError
from orrery.training import curves
from orrery.training.curves import Drawing, draw_curves, panels_of


def rows() -> list[dict]:
    found = []
    for step in (19, 39, 59):
        row = {
            "step": step,
            "losses": {"policy action": 1.0 / step, "policy vision": 0.0, "reason still": 2.0, "reason video": 1.0},
            "learning_rate": 1e-3,
            "tokens_per_s": 100.0 + step,
            "mfu": None,
        }
        if step == 39:
            row["validation"] = {
                "policy action @0.1": 0.2,
                "policy action @0.9": float("nan"),
                "actions ratio": 1.5,
                "right held": 0.5,
                "right mean": 0.4,
            }
        found.append(row)
    return [*found, {"step": 60, "curves": "not drawn"}]


@pytest.fixture
def log(tmp_path) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()) + '{"st')
    return path


def test_panels_are_losses_by_modality_and_validation_by_level():
    panels = panels_of(rows())
    assert list(panels) == [
        "loss: action",
        "loss: answers",
        "validation error: policy action",
        "validation: actions ratio",
        "validation: right answers",
        "learning rate",
        "tokens/s",
    ]
    assert panels["loss: action"] == {"policy": [(19, 1 / 19), (39, 1 / 39), (59, 1 / 59)]}
    assert set(panels["loss: answers"]) == {"still", "video"}
    # What is not finite is not drawn.
    assert panels["validation error: policy action"] == {"noise 0.1": [(39, 0.2)]}
    assert set(panels["validation: right answers"]) == {"held", "mean"}


def test_curves_are_drawn_beside_the_run(log):
    pytest.importorskip("matplotlib")
    picture = log.with_name("curves.png")
    draw_curves(log, picture)
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 20)) > 20


def test_a_process_of_its_own_draws_what_the_log_holds_at_last(log):
    pytest.importorskip("matplotlib")
    picture = log.with_name("curves.png")
    drawing = Drawing(log, picture)
    drawing.again()
    drawing.again()
    assert drawing.finish() == ""
    assert picture.stat().st_size > 10_000
    log.unlink()
    assert "ended with status" in drawing.finish()


def test_without_matplotlib_the_error_names_the_extra(log, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(curves.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"orrery\[train\]"):
        draw_curves(log, log.with_name("curves.png"))
    drawing = Drawing(log, log.with_name("curves.png"))
    drawing.again()
    assert "orrery[train]" in drawing.finish()
    assert not log.with_name("curves.png").exists()


def test_a_missing_log_is_named(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(SettingsError, match="no log"):
        draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
