"""Agents saved by others: what their files cause is said with the file."""

import json

import numpy as np
import pytest
from musicbox_agents import load_agent, make_agent

from musicbox_env.errors import InputError

SMALL = {"ddpg": {"hidden": 8}, "bc": {"hidden": 8}, "sb3-ddpg": {"net_arch": (16,)}}


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
