"""A speed is a value: it stands in every record, a run is reproduced at it, and its price is measured and bounded."""

import json
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from makers.own_checkpoint import CHUNK, HEIGHT, WIDTH, write_own
from makers.pico_checkpoint import small_pico

from orrery.cli.reproduce import Reproduce
from orrery.cli.run import Run
from orrery.errors import CheckpointError, SettingsError
from orrery.model.attention_kernels import emulated_eight_bit
from orrery.model.config import TINY
from orrery.model.denoiser import Denoiser
from orrery.model.mot import MoT
from orrery.runtime.bench import bench
from orrery.runtime.load import load
from orrery.runtime.model import Model, Price
from orrery.runtime.price import LEVELS, can_compile, check, made_fast, measure, probe
from orrery.runtime.reproduce import read_manifest, reproduce
from orrery.runtime.run import run
from orrery.runtime.speed import SPEEDS, Speed, default_speed, speed_named
from orrery.tasks.request import Request

FORWARD = Request(
    task="forward_dynamics",
    vision=torch.full((HEIGHT, WIDTH, 3), 90, dtype=torch.uint8).numpy(),
    actions=[[0.0, 0.0, 0.5]] * CHUNK,
    prompt="push it",
    steps=2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny checkpoint in our layout."""
    where = tmp_path_factory.mktemp("speed") / "own"
    write_own(where)
    return where


def pico() -> Model:
    """A small random Pico with weights of its own: the fast path rearranges them."""
    return replace(small_pico(), mot=deepcopy(small_pico().mot))


def test_a_speed_survives_its_record_and_refuses_what_it_does_not_know():
    for speed in SPEEDS.values():
        assert Speed.from_json(json.loads(json.dumps(speed.to_json()))) == speed
    assert [name for name, speed in SPEEDS.items() if speed.approximate] == ["fp8", "8bit"]
    with pytest.raises(SettingsError, match=r"'fats'.*'fast'"):
        speed_named("fats")
    with pytest.raises(SettingsError, match="plain path computes exactly"):
        Speed(linears="fp8")
    with pytest.raises(CheckpointError, match="missing keys"):
        Speed.from_json({"denoiser": "fast"})


def test_the_default_is_fast_on_a_gpu_in_bfloat16_alone():
    assert default_speed("cuda", "bfloat16") == SPEEDS["fast"]
    for place in (("cuda", "float32"), ("cuda", "float16"), ("cpu", "bfloat16"), ("cpu", "float32")):
        assert default_speed(*place) == SPEEDS["plain"]


def test_fast_gives_the_numbers_of_plain_and_both_say_which_they_were(folder):
    plain, fast = (run(load(folder, speed=speed), FORWARD) for speed in (None, "fast"))
    torch.testing.assert_close(fast.latents["vision"], plain.latents["vision"], atol=1e-4, rtol=1e-4)
    assert plain.manifest["speed"] == SPEEDS["plain"].to_json()
    assert fast.manifest["speed"] == SPEEDS["fast"].to_json()
    for result in (plain, fast):
        assert result.manifest["price"] is None
        assert not any("approximate" in warning for warning in result.manifest["warnings"])


def test_an_approximate_speed_says_its_price_in_the_record_of_what_it_sampled(folder, monkeypatch):
    plain = load(folder)
    eight = made_fast(load(folder), SPEEDS["fp8"], bound=1.0)
    assert eight.price is not None
    assert set(eight.price.errors) == {"vision", "sound", "action"}
    assert all(0 < error < 0.5 for error in eight.price.errors.values())
    result = run(eight, FORWARD)
    assert not torch.equal(result.latents["vision"], run(plain, FORWARD).latents["vision"])
    assert result.manifest["price"] == eight.price.errors
    (warning,) = [warning for warning in result.manifest["warnings"] if "approximate speed" in warning]
    assert "linears fp8" in warning
    assert eight.price.to_text() in warning
    answer = run(eight, Request(task="reason", prompt="what?", max_new_tokens=2))
    assert not any("approximate speed" in warning for warning in answer.manifest["warnings"])


def test_the_price_is_nothing_for_an_exact_denoiser_and_the_same_each_time():
    model = pico()
    exact = made_fast(model, SPEEDS["fast"])
    assert exact.price is None
    assert exact.denoiser is not None
    price = measure(model.mot, exact.denoiser, domain=0, columns=5)
    assert set(price.errors) == {"vision", "sound", "action"}
    assert max(price.errors.values()) < 1e-5
    one, other = (made_fast(pico(), SPEEDS["fp8"], bound=1.0).price for _ in range(2))
    assert one == other


def test_the_price_is_that_of_the_worst_level():
    model = pico()

    class Off(Denoiser):
        """A denoiser that strays at the last level alone."""

        def lay_out(self, pack, memory):
            right = model.mot.lay_out(pack, memory)

            def velocity(latents, sigmas):
                share = 1.25 if sigmas[0] == torch.tensor(LEVELS[-1]) else 1.0
                return [share * x for x in right(latents, sigmas)]

            return velocity

    price = measure(model.mot, Off(model.mot, compiled=False))
    assert all(error == pytest.approx(0.25, rel=1e-5) for error in price.errors.values())


@pytest.mark.parametrize("error", [0.16, float("nan"), float("inf")])
def test_a_price_above_the_bound_is_refused_with_both(error):
    check(Price(errors={"vision": 0.01, "action": 0.1499}))
    with pytest.raises(SettingsError, match=r"1\.0% \(vision\).*\(action\).*at most 15%.*'fast'"):
        check(Price(errors={"vision": 0.01, "action": error}))


def test_the_probe_is_the_same_wherever_it_is_made():
    config = small_pico().mot.config
    one, other = (probe(config, torch.device("cpu"), domain=3, columns=5) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.latents, other.latents, strict=True))
    (action,) = [segment for segment in one.segments if segment.kind == "action"]
    assert (action.domain, int(action.valid.sum())) == (3, 5)
    assert (action.clean[:, :, 5:] == 0).all()


def test_what_cannot_be_made_fast_is_refused(folder):
    reasoner = replace(pico(), mot=MoT(replace(TINY, generates=False)))
    with pytest.raises(SettingsError, match="reasoner has nothing to sample"):
        made_fast(reasoner, SPEEDS["fp8"])
    fast = made_fast(reasoner, SPEEDS["fast"])
    assert fast.denoiser is None
    assert fast.reader is not None
    model = pico()
    odd = deepcopy(model.mot)
    odd.config = replace(odd.config, ffn_width=100)
    with pytest.raises(SettingsError, match="multiples of 16, this model has 100"):
        made_fast(replace(model, mot=odd), SPEEDS["fp8"])


def test_attention_in_8_bits_costs_something_of_its_own():
    eight, products = (made_fast(pico(), SPEEDS[name], bound=1.0) for name in ("8bit", "fp8"))
    assert eight.denoiser is not None
    assert eight.denoiser.kernel is emulated_eight_bit
    assert eight.price != products.price


def test_the_speed_of_a_run_is_recorded_and_it_is_reproduced_at_it(tmp_path, capsys, monkeypatch):
    (tmp_path / "request.json").write_text(json.dumps({"task": "text_to_image", "prompt": "A cube.", "steps": 2}))
    threads = torch.get_num_threads()
    try:
        with pytest.raises(SettingsError, match=r"off by .*\(vision\).* at most 15% is accepted"):
            Run(request=tmp_path / "request.json", model="pico", out=tmp_path / "out", speed="fp8", threads=1)()
        monkeypatch.setattr("orrery.runtime.load.made_fast", partial(made_fast, bound=1.0))
        Run(request=tmp_path / "request.json", model="pico", out=tmp_path / "out", speed="fp8", threads=1)()
        said = capsys.readouterr()
        assert "Speed fp8: velocities are off by" in said.err
        manifest = read_manifest(tmp_path / "out" / "run.json")
        assert Speed.from_json(manifest["speed"]) == SPEEDS["fp8"]
        assert 0 < manifest["price"]["vision"] < 1
        Reproduce(record=tmp_path / "out" / "run.json")()
        assert capsys.readouterr().out.startswith("bit-equal")
        found = reproduce(manifest, speed="plain")
    finally:
        torch.set_num_threads(threads)
    assert (found.verdict, found.stage) == ("different", "sampler step 1")
    assert "speed.linears was fp8 and is exact" in found.remarks
    without = {key: value for key, value in manifest.items() if key != "speed"}
    (tmp_path / "run.json").write_text(json.dumps(without))
    with pytest.raises(SettingsError, match="has no speed"):
        read_manifest(tmp_path / "run.json")


def test_the_bench_says_at_which_speed_it_measured(folder):
    found = bench(folder, speed="fast", repeats=1, only="policy, 1 step")
    assert found.to_json()["speed"] == SPEEDS["fast"].to_json()
    assert "speed: denoiser fast, linears exact" in found.to_text()


def test_reuse_skips_calls_counts_them_and_says_so():
    model = pico()
    request = Request(task="text_to_image", prompt="A cube.", steps=12, guidance=2.0, guidance_interval=(300, 1000))
    exact = run(model, request)
    assert exact.manifest["network"]["skipped"] == 0
    assert 12 < exact.manifest["network"]["calls"] < 24
    assert not any("extrapolated" in warning for warning in exact.manifest["warnings"])
    reused = run(replace(model, speed=Speed(reuse=100.0)), request)
    network = reused.manifest["network"]
    assert network["calls"] + network["skipped"] == exact.manifest["network"]["calls"]
    assert network["skipped"] >= 5
    assert reused.manifest["speed"]["reuse"] == 100.0
    (warning,) = [warning for warning in reused.manifest["warnings"] if "extrapolated" in warning]
    assert f"{network['skipped']} were extrapolated" in warning
    assert not torch.equal(reused.latents["vision"], exact.latents["vision"])
    careful = run(replace(model, speed=Speed(reuse=1e-9)), request)
    assert careful.manifest["network"]["skipped"] == 0
    assert torch.equal(careful.latents["vision"], exact.latents["vision"])


def test_a_pack_skips_for_each_of_its_requests_on_its_own():
    model = replace(pico(), speed=Speed(reuse=100.0))
    one = Request(task="text_to_image", prompt="A cube.", steps=8, seed=1)
    other = Request(task="text_to_image", prompt="A disc.", steps=5, seed=2)
    together = run(model, [one, other])
    for result, alone in zip(together, (run(model, one), run(model, other)), strict=True):
        assert result.manifest["network"] == alone.manifest["network"]
        torch.testing.assert_close(result.latents["vision"], alone.latents["vision"], atol=1e-4, rtol=1e-4)


def test_reuse_is_refused_where_it_means_nothing():
    for reuse in (0.0, float("inf"), float("nan")):
        with pytest.raises(SettingsError, match="reuse must be above 0 and finite"):
            Speed(reuse=reuse)
    request = Request(task="text_to_image", prompt="A cube.", steps=8, sampler="stochastic")
    with pytest.raises(SettingsError, match="draws new noise at every step"):
        run(replace(pico(), speed=Speed(reuse=0.1)), request)


def test_without_a_c_compiler_nothing_is_compiled(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not can_compile()
    monkeypatch.setenv("CC", "/usr/bin/cc")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not can_compile()


def test_answers_are_those_of_the_plain_path():
    plain = pico()
    fast = made_fast(plain, SPEEDS["fast"])
    assert fast.reader is not None
    picture = np.random.default_rng(3).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    for question, vision in (("How many parts are on the belt?", picture), ("What is a tray?", None)):
        request = Request(task="reason", prompt=question, vision=vision, max_new_tokens=24)
        said, expected = run(fast, request), run(plain, request)
        assert expected.text
        assert said.text == expected.text
