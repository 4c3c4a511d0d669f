"""Read datasets with LeRobot itself and compare every item with our reader. Run by hand; pytest does not collect it.

Usage: lerobot_conformance.py [--venv FOLDER] DATASET... makes an environment with LeRobot (minutes, and network), in a
temporary folder unless one is named, which is kept and used again. Prints one JSON object of counts for a dataset and
stops with an error at the first difference.

LeRobot 0.4.4 asks for older versions of most things than we test with, so it is installed without its dependencies,
torchvision, of which reading uses nothing, is a stub, and videos are decoded with PyAV, as its own decoders need
torchcodec or torchvision. This file runs in both environments: ours makes the other and starts it there.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

SOURCE = Path(__file__).resolve().parents[2] / "src"
LEROBOT = "lerobot==0.4.4"
NEEDED = (
    "torch==2.13.0", "datasets", "pandas", "jsonlines", "draccus==0.10.0", "huggingface_hub<1", "accelerate", "av",
    "pillow", "jaxtyping",
)  # fmt: skip
STEPS = (-2, 0, 3)
"""Frames before and after each that are read with it."""
SHADES = 3
"""How far a decoder's colour conversion may round from ours, of 255."""


def make_environment(folder: Path) -> Path:
    """A Python that has LeRobot."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--no-deps", LEROBOT], check=True)
        subprocess.run([*pip, *NEEDED], check=True)
    return python


def start(folder: Path, datasets: Sequence[Path]) -> int:
    python = make_environment(folder)
    with tempfile.TemporaryDirectory() as home:
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": home, "PYTHONPATH": str(SOURCE)}
        return subprocess.run([python, __file__, *datasets], env=os.environ | offline, check=False).returncode


def stub_torchvision() -> None:
    """The names that LeRobot imports and reading does not use."""

    def module(name: str, **names: object) -> ModuleType:
        made = ModuleType(name)
        made.__spec__ = ModuleSpec(name, None, is_package=True)
        made.__path__ = []
        made.__dict__.update(names)
        sys.modules[name] = made
        return made

    unused = type("Unused", (), {})
    functional = module("torchvision.transforms.v2.functional")
    v2 = module("torchvision.transforms.v2", Transform=unused, functional=functional)
    module("torchvision", transforms=module("torchvision.transforms", ToTensor=unused, v2=v2))


def decode_video_frames(path, timestamps, tolerance_s, backend=None):
    """As LeRobot's function of that name, with PyAV: (N, 3, H, W) in 0..1, the frame nearest to each time."""
    import av
    import numpy as np
    import torch

    times, pictures = [], []
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        file.seek(int(min(timestamps) / stream.time_base), stream=stream)
        for frame in file.decode(stream):
            times.append(float(frame.pts * stream.time_base))
            # PyAV converts as BT.601 whatever the file says, unless it is told.
            pictures.append(frame.reformat(format="rgb24", src_colorspace=frame.colorspace).to_ndarray())
            if times[-1] >= max(timestamps):
                break
    away = np.abs(np.array(timestamps)[:, None] - np.array(times))
    assert away.min(1).max() < tolerance_s, (path, timestamps, times, tolerance_s)
    found = np.stack([pictures[i] for i in away.argmin(1)])
    return torch.from_numpy(found).permute(0, 3, 1, 2) / 255


def compare(root: Path) -> dict:
    """Everything that LeRobot reads from a dataset, held against our reader; the counts of what was compared."""
    import lerobot.datasets.lerobot_dataset as theirs
    import numpy as np

    from orrery.data.lerobot import open_dataset
    from orrery.data.lerobot_writer import COUNTERS

    theirs.decode_video_frames = decode_video_frames
    ours = open_dataset(root, trusted=True)
    assert ours.problems == (), ours.problems
    names = [n for n, f in ours.features.items() if f["dtype"] != "video"]
    # LeRobot takes single numbers from its counters, so they cannot be asked for at several times.
    recorded = [name for name in names if name not in COUNTERS]
    near = {name: [step / ours.fps for step in STEPS] for name in (*recorded, *ours.cameras)}
    plain = theirs.LeRobotDataset("local/dataset", root=root)
    spread = theirs.LeRobotDataset("local/dataset", root=root, delta_timestamps=near)
    for read in (plain, spread):
        assert (len(read), read.num_episodes, read.fps) == (sum(r["length"] for r in ours.rows), len(ours), ours.fps)
        assert set(read.features) == set(ours.features)
    counts = {"episodes": len(ours), "tasks": len(plain.meta.tasks), "items": 0, "values": 0, "frames": 0, "padded": 0}
    worst, index, columns, means = 0.0, 0, {name: [] for name in names}, {camera: [] for camera in ours.cameras}
    for number in range(len(ours)):
        episode = ours.episode(number)
        films = {camera: episode.frames(camera) for camera in ours.cameras}
        assert len(theirs.LeRobotDataset("local/dataset", root=root, episodes=[number])) == episode.length
        for name in names:
            columns[name].append(episode.columns[name])
        for camera, film in films.items():
            means[camera].append(film.mean((0, 1, 2)) * episode.length)
        for row in range(episode.length):
            item, wide = plain[index], spread[index]
            wanted = [row + step for step in STEPS]
            kept = [min(max(w, 0), episode.length - 1) for w in wanted]
            padded = [w != k for w, k in zip(wanted, kept, strict=True)]
            assert set(item) == {*ours.features, "task"}, sorted(item)
            assert set(wide) == {*item, *(f"{name}_is_pad" for name in near)}, sorted(wide)
            text = ours.tasks[int(episode.columns["task_index"][row, 0])]
            assert item["task"] == wide["task"] == text, (number, row, item["task"], text)
            for name in names:
                values = episode.columns[name]
                pairs = [(item[name], values[row]), (wide[name], values[kept if name in near else row])]
                for read, mine in pairs:
                    read = read.numpy()
                    assert read.dtype == mine.dtype, (name, read.dtype, mine.dtype)
                    assert np.array_equal(read.reshape(mine.shape), mine), (number, row, name, read, mine)
                    counts["values"] += mine.size
            for camera, film in films.items():
                for read, mine in ((item[camera][None], film[[row]]), (wide[camera], film[kept])):
                    shown = read.permute(0, 2, 3, 1).numpy() * 255
                    assert shown.shape == mine.shape, (camera, shown.shape, mine.shape)
                    worst = max(worst, float(np.abs(shown - mine).max()))
                    assert worst <= SHADES, (number, row, camera, worst)
                    counts["frames"] += len(mine)
            for name in near:
                assert wide[f"{name}_is_pad"].tolist() == padded, (number, row, name)
                counts["padded"] += sum(padded)
            index += 1
    stats = plain.meta.stats
    for name, parts in columns.items():
        values = np.concatenate(parts).astype(np.float64)
        for key, mine in (("min", values.min(0)), ("max", values.max(0)), ("mean", values.mean(0))):
            assert np.allclose(stats[name][key], mine, rtol=1e-6, atol=1e-6), (name, key)
    for camera, sums in means.items():
        away = np.abs(stats[camera]["mean"].reshape(3) * 255 - sum(sums) / index)
        assert stats[camera]["mean"].shape == (3, 1, 1)
        assert away.max() <= SHADES, (camera, away)
    counts["items"] = index
    return counts | {"worst_shades": round(worst, 2), "extras": (root / "extras").is_dir()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--venv", type=Path, help="environment with LeRobot, made if it is not there, and kept")
    parser.add_argument("datasets", type=Path, nargs="+")
    asked = parser.parse_args()
    if importlib.util.find_spec("lerobot") is None:
        with tempfile.TemporaryDirectory() as folder:
            return start(asked.venv or Path(folder) / "venv", asked.datasets)
    stub_torchvision()
    for root in asked.datasets:
        print(json.dumps({"dataset": root.name, **compare(root.resolve())}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
