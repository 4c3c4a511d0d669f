"""The bench of a family measures every way in turn, keeps what it has, and counts operations as PyTorch does."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from makers.samples import mixed, tokens, vision
from torch.utils.flop_counter import FlopCounterMode

from orrery.cli import main as command_line
from orrery.cli.bench import Bench
from orrery.errors import SettingsError
from orrery.model.config import TINY, MoTConfig
from orrery.model.operations import of_forward, of_reading
from orrery.model.reader import Reader
from orrery.packing.pack import pack_samples, pack_text
from orrery.packing.segment import Sample
from orrery.runtime.family.bench import bench_family, selected
from orrery.runtime.family.ceilings import ceilings
from orrery.runtime.family.peers import diffusers_peer, latent_size, transformers_peer
from orrery.runtime.family.report import Settings
from orrery.runtime.family.rows import ROWS, Stand, psnr_of
from orrery.runtime.family.stopwatch import interleaved
from orrery.runtime.family.ways import WRITERS
from orrery.runtime.family.workloads import WORKLOADS, random_mot, sample_of
from orrery.runtime.result import RANDOM_WEIGHTS

CPU = torch.device("cpu")
EDGE_LIKE = replace(
    TINY, activation="relu2", norm_scales_in_float32=True, text_qk_norm=False, text_key_norm=True, norm_eps=1e-5
)


def loud_mot(config: MoTConfig):
    """Weights large enough for differences to be seen."""
    mot = random_mot(config, CPU, torch.float32)
    for name, parameter in mot.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.2)
    return mot


@pytest.mark.oracle
@pytest.mark.parametrize("config", [TINY, EDGE_LIKE], ids=["qwen", "nemotron"])
@torch.no_grad()
def test_the_peer_holds_our_weights_and_gives_our_velocities(config):
    mot = loud_mot(config)
    samples = [
        sample for sample in mixed(config) if len({segment.kind for segment in sample.segments}) == len(sample.segments)
    ]
    pack = pack_samples([*samples, sample_of(replace(WORKLOADS["policy-17"], height=5), config, CPU)], config.clock)
    sigmas = torch.linspace(0.1, 0.9, len(pack.segments))
    memory = mot.read(pack.text)
    peer = diffusers_peer(mot)
    for ours, theirs in zip(
        mot.lay_out(pack, memory)(pack.latents, sigmas),
        peer.lay_out(pack, memory)(pack.latents, sigmas),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    parameters = {parameter.data_ptr() for parameter in mot.parameters()}
    assert {parameter.data_ptr() for parameter in peer.transformer.parameters()} == parameters


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 6), (45, 80), (3, 5)])
def test_the_size_of_latents_is_found_again(height, width):
    assert latent_size(vision(TINY, 2, height, width), TINY.vision_patch) == (height, width)


def counted(call) -> tuple[int, int]:
    """Operations of products and of attention, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        call()
    by_name = {str(name): count for name, count in counter.get_flop_counts()["Global"].items()}
    attention = by_name.pop("aten.bmm", 0)
    return sum(by_name.values()), attention


@pytest.mark.parametrize("config", [TINY, EDGE_LIKE, replace(TINY, action_sums=True)], ids=["qwen", "nemotron", "sums"])
def test_operations_are_those_that_pytorch_counts(config):
    # With gradients switched on: what multiplies without them is not always seen by the counter.
    mot = random_mot(config, CPU, torch.float32)
    samples = [
        replace(s, segments=tuple(replace(x, given=torch.zeros_like(x.given)) for x in s.segments))
        for s in mixed(config)
    ]
    pack = pack_samples(samples, config.clock)
    memory = mot.read(pack.text)
    found = of_forward(mot, pack)
    assert (found.linear, found.attention) == counted(lambda: mot(pack, torch.full((len(pack.segments),), 0.5), memory))
    text = pack_text([Sample(token_ids=torch.arange(37))])
    found = of_reading(mot, 37, scores=1)
    linear, square = counted(lambda: mot.logits(mot.read(text).hidden[-1:]))
    # Without a mask PyTorch counts the pairs that causality leaves out.
    assert (found.linear, found.attention) == (linear, square * 38 // (2 * 37))
    one = pack_text([Sample(token_ids=torch.arange(1))])
    past = mot.read(text)
    found = of_reading(mot, 1, 37)
    assert (found.linear, found.attention) == counted(lambda: mot.read(one, past=past))
    assert (found * 3 + found).total == 4 * (found.linear + found.attention)


@pytest.mark.oracle
@pytest.mark.parametrize("config", [TINY, EDGE_LIKE], ids=["qwen", "nemotron"])
@torch.no_grad()
def test_all_reasoners_read_and_write_alike_and_can_be_asked_again(config):
    mot = loud_mot(config)
    ways = {name: WRITERS[name](mot) for name in ("plain", "exact")} | {"transformers": transformers_peer(mot)}
    ids = tokens(21, config.vocab, seed=5)
    states = {name: way.read(ids) for name, way in ways.items()}
    for _, scores in states.values():
        torch.testing.assert_close(scores, states["plain"][1], atol=1e-4, rtol=1e-4)
    written = {name: way.write(states[name], ids.tolist(), 9) for name, way in ways.items()}
    assert written["exact"] == written["plain"]
    assert written["transformers"] == written["plain"]
    assert {name: way.write(states[name], ids.tolist(), 9) for name, way in ways.items()} == written


@pytest.mark.oracle
def test_rows_are_measured_in_every_way_and_kept_as_they_come(tmp_path, capsys):
    out = tmp_path / "bench.json"
    rows = ("forward/policy-17", "sampling/policy-17-4", "sampling/video-480p-35", "packed/image-256-x1")
    rows += ("packed/image-256-x2", "reasoner/prefill-512", "reasoner/decode-64")
    Bench(
        family="tiny",
        against=("diffusers", "transformers"),
        variants=("plain", "exact", "fp8", "8bit"),
        rows=rows,
        repeats=2,
        warm_up=1,
        out=out,
    )()
    shown = capsys.readouterr().out
    assert RANDOM_WEIGHTS in shown
    document = json.loads(out.read_text())
    assert (document["format"], document["version"], document["weights_trained"]) == ("orrery.bench_family", 1, False)
    found = {row["name"]: row for row in document["rows"]}
    assert list(found) == [name for name in ROWS if name in rows]
    assert all(name in shown for name in rows)
    makes = {name: row for name, row in found.items() if not name.startswith("reasoner/") and "480p" not in name}
    for row in makes.values():
        assert set(row["measured"]) == {"diffusers", "plain", "exact", "fp8"}
        assert set(row["left_out"]) == {"8bit"}
    for name in ("reasoner/prefill-512", "reasoner/decode-64"):
        assert set(found[name]["measured"]) == {"transformers", "plain", "exact", "fp8"}
        assert found[name]["measured"]["exact"]["figures"]["tokens_per_s"] > 0
    assert "forward/video-480p" in found["sampling/video-480p-35"]["left_out"]["all"]
    row = found["forward/policy-17"]
    assert (row["tokens"], row["text_tokens"]) == (316, 300)
    for way, seen in row["measured"].items():
        assert seen["seconds"]["count"] == 2
        assert seen["faster"] == row["measured"]["diffusers"]["seconds"]["median"] / seen["seconds"]["median"]
        if way != "diffusers":
            assert seen["differences"]["diffusers"] < (0.1 if way == "fp8" else 1e-4)
    seen = found["sampling/policy-17-4"]["measured"]
    assert all(value is None or value > 60 for value in seen["exact"]["psnr_db"].values())
    assert set(seen["fp8"]["psnr_db"]) == {
        f"{way}, {kind}" for way in ("diffusers", "exact") for kind in ("vision", "action")
    }
    assert seen["exact"]["figures"]["first_action_ms"] == 1000 * seen["exact"]["seconds"]["median"]
    assert found["packed/image-256-x2"]["tokens"] == 2 * 64
    assert "times_the_rate_of_one_alone" in found["packed/image-256-x2"]["measured"]["exact"]["figures"]


def test_long_sampling_is_worked_out_from_one_pass_and_said_to_be(monkeypatch):
    small = replace(WORKLOADS["video-480p"], frames=5, height=4, width=4)
    monkeypatch.setitem(WORKLOADS, "video-480p", small)
    names = ("forward/video-480p", "sampling/video-480p-35", "sampling/video-480p-4")
    told = []
    settings = Settings(family="tiny", device="cpu", dtype="float32", rows=names, repeats=1, text_tokens=4)
    found = bench_family(settings, told.append)
    once, four, whole = (row.measured["exact"].seconds.median for row in found.rows)
    assert (four, whole) == (4 * once, 70 * once)
    assert [[row.name for row in seen.rows] for seen in told[:2]] == [[], ["forward/video-480p"]]
    assert "estimated: 70 x forward/video-480p" in found.to_text()
    assert found.rows[2].measured["exact"].figures["s_per_video"] == whole
    whole_run = bench_family(replace(settings, rows=names[1:], whole=True), told.append)
    assert [row.estimate for row in whole_run.rows] == ["", ""]
    assert whole_run.rows[1].operations.total > 2 * 35 * found.rows[0].operations.total


def test_peak_signal_to_noise_is_of_what_is_made():
    segment = vision(TINY, 2, 4, 4, given=(0,))
    expected = segment.clean.clone()
    found = expected.clone()
    found[0] += 100
    assert psnr_of([segment], [found], [expected]) == {"vision": None}
    found[1] += 0.1 * (expected[1].max() - expected[1].min())
    assert psnr_of([segment], [found], [expected])["vision"] == pytest.approx(20, abs=0.01)


def test_a_way_that_fails_is_left_out_and_the_others_go_on():
    def out_of_memory():
        raise torch.cuda.OutOfMemoryError("too large\nand more")

    found = interleaved({"a": lambda: lambda index: index, "b": out_of_memory}, CPU, repeats=3, warm_up=2, enough_s=1.0)
    assert found.failed == {"b": "OutOfMemoryError: too large"}
    assert (found.taken["a"].timing.count, found.taken["a"].outcome) == (3, 0)


def test_no_further_repeats_are_begun_after_enough_time():
    calls = {"a": lambda: lambda index: index}
    assert interleaved(calls, CPU, repeats=9, warm_up=1, enough_s=0.0, least_repeats=2).taken["a"].timing.count == 2


@torch.no_grad()
def test_a_way_whose_numbers_are_none_is_left_out():
    settings = Settings(family="tiny", device="cpu", dtype="float32", repeats=1)
    mot = random_mot(TINY, CPU, torch.float32)
    mot.vision_out.bias.fill_(float("nan"))
    stand = Stand(
        settings=settings,
        mot=mot,
        ceilings=ceilings(CPU, torch.float32),
        denoisers={"plain": mot},
        writers={},
        failed={},
        reader=Reader(mot, compiled=False),
    )
    row = ROWS["forward/policy-17"](stand, "forward/policy-17")
    assert (row.measured, row.left_out) == ({}, {"plain": "what came out is not finite"})


def test_the_command_takes_several_rows_and_ways(monkeypatch, capsys):
    line = "orrery bench --family tiny --variants plain exact --rows forward/policy-17 packed/image-256-x1 --repeats 1"
    monkeypatch.setattr("sys.argv", line.split())
    command_line.main()
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("forward/policy-17:", "packed/image-256-x1:", "plain", "exact"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"checkpoint": "pico", "family": "tiny"}, "exclude each other"),
        ({"family": "tiny", "rows": ("forward/policy-71",)}, "forward/policy-17"),
        ({"family": "tiny", "repeats": 0}, "got 0"),
        ({"family": "tiny", "dtype": "float16"}, "float16"),
        ({"rows": ("forward",)}, "--family"),
        ({"family": "tiny", "speed": "fp8"}, "--variants"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(SettingsError, match=said):
        Bench(**settings)()


def test_a_peer_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.models.transformers.transformer_cosmos3", None)
    with pytest.raises(SettingsError, match=r"orrery\[cosmos\]"):
        Bench(family="tiny", against=("diffusers",), rows=("forward/policy-17",))()


def test_a_group_selects_its_rows():
    assert selected(("forward",)) == [name for name in ROWS if name.startswith("forward/")]
    assert selected(()) == list(ROWS)
    assert selected(("sampling/policy-33",)) == ["sampling/policy-33-4", "sampling/policy-33-35"]
    assert selected(("packed/policy-17-x1",)) == ["packed/policy-17-x1"]
    assert selected(("reasoner/decode-64", "forward/policy-17")) == ["forward/policy-17", "reasoner/decode-64"]
