"""The bench of a family measures every way in turn, keeps what it has, and counts operations as PyTorch does."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from makers.samples import mixed, vision
from torch.utils.flop_counter import FlopCounterMode

from orrery.cli.bench import Bench
from orrery.errors import SettingsError
from orrery.model.config import TINY, MoTConfig
from orrery.model.operations import of_forward, of_reading
from orrery.packing.pack import pack_samples, pack_text
from orrery.packing.segment import Sample
from orrery.runtime.bench_family import ROWS, Settings, bench_family
from orrery.runtime.peers import diffusers_peer, latent_size
from orrery.runtime.result import RANDOM_WEIGHTS
from orrery.runtime.stopwatch import interleaved
from orrery.runtime.workloads import WORKLOADS, random_mot, sample_of

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
@torch.no_grad()
def test_operations_are_those_that_pytorch_counts(config):
    mot = random_mot(config, CPU, torch.float32)
    pack = pack_samples(mixed(config), config.clock)
    memory = mot.read(pack.text)
    found = of_forward(mot, pack)
    assert (found.linear, found.attention) == counted(lambda: mot(pack, torch.full((len(pack.segments),), 0.5), memory))
    text = pack_text([Sample(token_ids=torch.arange(37))])
    found = of_reading(mot, 37, scores=1)
    linear, square = counted(lambda: mot.logits(mot.read(text).hidden[-1:]))
    # Without a mask PyTorch counts the pairs that causality leaves out.
    assert (found.linear, found.attention) == (linear, square * 38 // (2 * 37))
    more = pack_text([Sample(token_ids=torch.arange(5))])
    linear, square = counted(lambda: mot.read(more, past=mot.read(text)))
    assert of_reading(mot, 5, 37).attention == 4 * (5 * 37 + 15) * config.heads * config.head_width * config.layers


def test_rows_are_measured_in_every_way_and_kept_as_they_come(tmp_path, capsys):
    out = tmp_path / "bench.json"
    Bench(
        family="tiny",
        against=("diffusers",),
        variants=("plain", "exact", "fp8", "8bit"),
        rows=("forward/policy-17",),
        repeats=2,
        out=out,
    )()
    shown = capsys.readouterr().out
    assert RANDOM_WEIGHTS in shown
    document = json.loads(out.read_text())
    assert (document["format"], document["version"], document["weights_trained"]) == ("orrery.bench_family", 1, False)
    (row,) = document["rows"]
    assert row["tokens"] == 316
    assert list(row["measured"]) == sorted(["diffusers", "plain", "exact", "fp8"])
    assert set(row["left_out"]) == {"8bit"}
    assert all(name in shown for name in ["diffusers", "plain", "exact", "fp8", "8bit", "not measured"])
    for name, found in row["measured"].items():
        assert found["seconds"]["count"] == 2
        if name != "diffusers":
            assert found["differences"]["diffusers"] < (0.1 if name == "fp8" else 1e-4)


def test_what_is_known_is_told_before_the_first_row_and_after_each():
    told = []
    names = ("forward/policy-17", "forward/policy-33")
    bench_family(Settings(family="tiny", device="cpu", dtype="float32", rows=names, repeats=1), told.append)
    assert [[row.name for row in found.rows] for found in told] == [[], list(names[:1]), list(names)]


def test_a_way_that_fails_is_left_out_and_the_others_go_on():
    def out_of_memory():
        raise torch.cuda.OutOfMemoryError("too large\nand more")

    found = interleaved({"a": lambda: lambda index: index, "b": out_of_memory}, CPU, repeats=3, warm_up=2, enough_s=1.0)
    assert found.failed == {"b": "OutOfMemoryError: too large"}
    assert (found.taken["a"].timing.count, found.taken["a"].outcome) == (3, 0)


def test_no_further_repeats_are_begun_after_enough_time():
    calls = {"a": lambda: lambda index: index}
    assert interleaved(calls, CPU, repeats=9, warm_up=1, enough_s=0.0, least_repeats=2).taken["a"].timing.count == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"checkpoint": "pico", "family": "tiny"}, "exclude each other"),
        ({"family": "tiny", "rows": ("forward/policy-71",)}, "forward/policy-17"),
        ({"family": "tiny", "repeats": 0}, "got 0"),
        ({"family": "tiny", "dtype": "float16"}, "float16"),
        ({"rows": ("forward",)}, "--family"),
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
    settings = Settings(family="tiny", device="cpu", dtype="float32", rows=("forward",))
    assert settings.selected == [name for name in ROWS if name.startswith("forward/")]
