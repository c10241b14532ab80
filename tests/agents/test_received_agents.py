"""Agents saved by others: what their files cause is said with the file."""

import dataclasses
import json
import re

import numpy as np
import pytest
from musicbox_agents import agent_class, load_agent, make_agent
from musicbox_agents.ddpg.checkpoints import TRAINING, newest
from musicbox_agents.ddpg.quality import TrackQuality

from musicbox_env.errors import InputError

SMALL = {"ddpg": {"hidden": 8}, "bc": {"hidden": 8}, "sb3-ddpg": {"net_arch": (16,)}}

TRAINED = {
    **{"num_envs": 8, "log_sessions": 20, "warmup_updates": 2, "learning_starts": 8, "hidden": 8},
    **{"batch_size": 8, "buffer_size": 40, "gamma": 0.5},
}


@pytest.fixture(params=["ddpg", "bc", "linucb", "sb3-ddpg"])
def saved(request, synthetic, tmp_path):
    make_agent(request.param, synthetic, settings=SMALL.get(request.param)).save(tmp_path)
    load_agent(tmp_path, synthetic)
    return tmp_path


def require_named(folder, dataset, name):
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        load_agent(folder, dataset)


def test_spoilt_weights_are_named(saved, synthetic):
    file = saved / "weights.npz"
    content = file.read_bytes()
    with np.load(file) as stored:
        arrays = dict(stored)
    first = next(iter(arrays))
    for spoilt in (
        {name: array for name, array in arrays.items() if name != first},
        {},
        {**arrays, first: np.array(["text"])},
    ):
        np.savez(file, **spoilt)
        require_named(saved, synthetic, "weights.npz")
    for spoilt in (content[:-50], content[:100], b"", b"\x80\x04K\x01.", b"PK\x03\x04"):
        file.write_bytes(spoilt)
        require_named(saved, synthetic, "weights.npz")


def test_weights_of_other_shapes_types_and_values_are_named(saved, synthetic):
    file = saved / "weights.npz"
    with np.load(file) as stored:
        arrays = dict(stored)
    for name, array in list(arrays.items())[:6]:
        not_a_number = np.array(array, np.float32)
        not_a_number.flat[-1] = np.nan
        for spoilt in (
            *(array[:-1], array[None], array.astype(np.float64 if array.itemsize == 4 else "f4")),
            *(array.astype(complex), array.astype("U8"), not_a_number.astype(array.dtype)),
            np.full_like(array, np.inf),
        ):
            np.savez(file, **{**arrays, name: spoilt})
            require_named(saved, synthetic, "weights.npz")
    file.unlink()
    require_named(saved, synthetic, "weights.npz")


@pytest.mark.parametrize("name", ["sum", "count", "expected", "prior", "scale"])
def test_the_quality_of_songs_is_checked(name, synthetic, tmp_path):
    agent = make_agent("ddpg", synthetic, settings=SMALL["ddpg"])
    agent.space.set_quality(TrackQuality.none(len(synthetic.catalog), 1.0))
    agent.save(tmp_path)
    load_agent(tmp_path, synthetic)
    with np.load(tmp_path / "weights.npz") as stored:
        arrays = dict(stored)
    own = arrays[f"quality.{name}"]
    spoilt = [own[:-1], own[:, None]] if own.ndim else [np.zeros(3)]
    lowest = [] if name in ("sum", "expected") else [np.full_like(own, -1)]
    for bad in (*spoilt, *lowest, np.full_like(own, np.nan)):
        np.savez(tmp_path / "weights.npz", **{**arrays, f"quality.{name}": bad})
        require_named(tmp_path, synthetic, "weights.npz")


@pytest.fixture(scope="module")
def training(synthetic, synthetic_folder, tmp_path_factory):
    """A checkpoint, and a function that goes on from it."""
    folder, settings = tmp_path_factory.mktemp("training"), {"ddpg": TRAINED}
    options = {"data": str(synthetic_folder), "listener": "replay", "candidates": "catalog"}

    def go_on():
        agent = make_agent("ddpg", synthetic, settings=settings["ddpg"])
        agent.learn(options, 48, callback_every=16, checkpoint=folder)

    go_on()
    return newest(folder) / TRAINING, go_on


SPOILT_TRAININGS = {
    **{"memory.tracks": 10**6, "memory.slate": -2, "memory.levels": 99, "memory.slate_levels": -9},
    **{"memory.context": np.nan, "memory.next_position": np.inf, "log.tracks": 2**31 - 1},
    **{"log.slate": 10**6, "memory.added": 1, "env.keys.next": 10**6, "just_reset": None},
    **{"memory.song_reward": None, "log.terminated": None, "env.over": None, "log.context": None},
    **{"env.keys.generators": None, "actor_optimizer.0.exp_avg": None, "env.keys.keys": None},
    **{"critic_optimizer.0.exp_avg_sq": np.nan, "env.simulator.history.tracks": 10**6},
}
"""A value that is put into the array; None is one entry less."""


@pytest.mark.parametrize("name", SPOILT_TRAININGS)
def test_spoilt_trainings_are_named(name, training):
    file, go_on = training
    whole, value = file.read_bytes(), SPOILT_TRAININGS[name]
    with np.load(file) as stored:
        arrays = dict(stored)
    array = arrays[name].copy()
    if value is not None:
        array.reshape(-1)[-1] = value
    np.savez(file, **{**arrays, name: array[:-1] if value is None else array})
    try:
        with pytest.raises(InputError, match=r"training\.npz"):
            go_on()
    finally:
        file.write_bytes(whole)
    go_on()


def test_a_description_of_another_shape_is_named(saved, synthetic):
    file = saved / "agent.json"
    about = json.loads(file.read_text())
    for spoilt in (
        [],
        3,
        {},
        {"agent": about["agent"]},
        {**about, "agent": "nobody"},
        {**about, "agent": ["ddpg"]},
        {**about, "seed": None},
        {**about, "settings": 3},
        {**about, "settings": dict.fromkeys(about["settings"], "x")},
    ):
        file.write_text(json.dumps(spoilt))
        require_named(saved, synthetic, "agent.json")
    for spoilt in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        file.write_bytes(spoilt)
        require_named(saved, synthetic, "agent.json")


ODD = (None, -1, "x", {}, True, 10**30, [10**9], [64] * 99)


def test_settings_out_of_range_are_named(saved, synthetic):
    """Each setting with each odd value: named with the file, or one that the agent can have."""
    file = saved / "agent.json"
    about = json.loads(file.read_text())
    refused = []
    for name in (*about["settings"], "seed"):
        for odd in ODD:
            changed = json.loads(json.dumps(about))
            (changed if name == "seed" else changed["settings"])[name] = odd
            file.write_text(json.dumps(changed))
            try:
                agent = load_agent(saved, synthetic)
            except InputError as error:
                refused.append(str(error))
            else:
                assert getattr(agent.settings, name, agent.seed) == odd
    assert len(refused) > 20
    assert not [said for said in refused if not re.search(r"agent\.json|weights\.npz", said)]


@pytest.mark.parametrize("name", ["ddpg", "lird", "bc", "sb3-td3", "linucb", "item-knn"])
def test_settings_of_another_type_are_refused_before_anything_is_made(synthetic, name):
    settings = agent_class(name).Settings
    for field in dataclasses.fields(settings):
        for odd in ({}, {"a": 1}, b"x", [None], object()):
            with pytest.raises(ValueError, match=rf"{field.name} is .*; it must be "):
                settings.from_mapping({field.name: odd})
        if "None" not in str(field.type):
            with pytest.raises(ValueError, match=rf"{field.name} is None"):
                settings.from_mapping({field.name: None})
