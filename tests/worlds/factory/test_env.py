"""Every factory env under one contract: Gymnasium's checker, seeds, spaces, saving and restoring."""

import hashlib
import multiprocessing
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import orrery.worlds.envs
from orrery.errors import SettingsError, TaskError
from orrery.worlds.envs import IDS
from orrery.worlds.factory.env import SAMPLES, FactoryEnv
from orrery.worlds.factory.experts import advise
from orrery.worlds.factory.goals import FAILURES
from orrery.worlds.factory.tasks import TASKS

SMALL = {"height": 32, "width": 32, "cameras": ("front",)}
NAMES = sorted(IDS)


def make(name: str, **settings):
    return gymnasium.make(f"orrery/{name}-v0", **{**SMALL, **settings})


def digest(observation) -> str:
    total = hashlib.sha256()
    for value in (observation["agent_pos"], *observation["pixels"].values(), observation["sound"]):
        total.update(np.ascontiguousarray(value).tobytes())
    total.update(observation["task"].encode())
    return total.hexdigest()


def play(env, steps: int, seed: int) -> list[tuple]:
    rng = np.random.default_rng(seed)
    low, high = env.action_space.low, env.action_space.high
    found = []
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(rng.uniform(low, high).astype(np.float32))
        found.append(
            (digest(observation), reward, terminated, truncated, info["failure"], info["executed_action"].tobytes())
        )
    return found


def reset_and_play(name: str) -> list[tuple]:
    env = make(name)
    observation, _ = env.reset(seed=11)
    return [digest(observation), *play(env.unwrapped, 20, 4)]


def test_there_is_an_env_for_every_task():
    assert set(IDS.values()) == set(TASKS)
    orrery.worlds.envs.register()
    assert {f"orrery/{name}-v0" for name in IDS} <= set(gymnasium.registry)


@pytest.mark.parametrize("name", NAMES)
def test_gymnasiums_checker_passes(name):
    check_env(make(name, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("name", NAMES)
def test_observations_lie_in_their_space_and_info_says_how_it_stands(name):
    env = make(name, cameras=("front", "side", "wrist"))
    observation, info = env.reset(seed=1)
    for _ in range(3):
        assert env.observation_space.contains(observation)
        assert info["is_success"] == (not info["failure"])
        assert info["failure"] in FAILURES
        observation, reward, *_, info = env.step(env.action_space.sample())
        assert reward == float(info["is_success"])
    assert observation["sound"].shape == (SAMPLES, 2)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_episode_and_another_seed_another(name):
    first = reset_and_play(name)
    assert reset_and_play(name) == first
    env = make(name)
    other, _ = env.reset(seed=12)
    assert digest(other) != first[0]


def test_another_process_plays_the_same_episodes():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.map(reset_and_play, NAMES[:3])
    assert there == [reset_and_play(name) for name in NAMES[:3]]


@pytest.mark.parametrize("name", NAMES)
def test_restored_after_100_steps_it_goes_on_bit_for_bit_also_in_a_fresh_env(name):
    env = make(name).unwrapped
    env.reset(seed=7)
    play(env, 20, 1)
    state = pickle.loads(pickle.dumps(env.snapshot()))
    before = digest(env.observe())
    first = play(env, 100, 2)
    env.restore(state)
    assert digest(env.observe()) == before
    assert play(env, 100, 2) == first
    fresh = make(name).unwrapped
    fresh.restore(state)
    assert play(fresh, 30, 2) == first[:30]
    # Resets go on alike as well.
    fresh.restore(state)
    env.restore(state)
    assert digest(fresh.reset()[0]) == digest(env.reset()[0])


def test_success_ends_the_episode_with_a_reward():
    env = make("PressStart").unwrapped
    env.reset(seed=3)
    for _ in range(env.row.horizon):
        _, reward, terminated, truncated, info = env.step(advise(env.cell, env.job.goals).action)
        if terminated:
            break
    assert (reward, info["is_success"], info["failure"], truncated) == (1.0, True, "", False)


def test_an_episode_is_cut_off_at_the_horizon():
    env = make("PressStart", cameras=(), sound=False).unwrapped
    env.reset(seed=3)
    ends = [env.step(np.zeros(5, np.float32))[3] for _ in range(env.row.horizon)]
    assert ends.index(True) == env.row.horizon - 1


def test_held_out_pairs_and_phrasings_are_kept_for_those_who_ask():
    seen = {}
    for pairs in ("train", "held_out"):
        env = FactoryEnv("stack", cameras=(), sound=False, pairs=pairs)
        seen[pairs] = {env.reset(seed=seed)[0]["task"].split(" ")[0] for seed in range(12)}
    assert seen["train"] <= {"Stack", "Put", "Place"}
    assert seen["held_out"] <= {"Build", "Set"}


def test_a_job_may_be_given():
    env = FactoryEnv("stack", cameras=(), sound=False)
    env.reset(seed=0)
    job = env.job
    env.reset(seed=99, options={"job": job})
    assert env.job == job
    with pytest.raises(SettingsError, match="jobs"):
        env.reset(options={"jobs": job})


def test_wrong_settings_are_refused():
    with pytest.raises(TaskError, match="Did you mean 'stack'"):
        FactoryEnv("stak")
    with pytest.raises(SettingsError, match="wrist"):
        FactoryEnv("stack", cameras=("top",))
    one, other = FactoryEnv("stack", cameras=(), sound=False), FactoryEnv("kit_fill", cameras=(), sound=False)
    one.reset(seed=0)
    with pytest.raises(TaskError, match="snapshot of stack"):
        other.restore(one.snapshot())
