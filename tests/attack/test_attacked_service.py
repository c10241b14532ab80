"""`musicbox serve` over runs that were tampered with, and killed workers.

A run is served as it was made, or refused by the name of its file; a service that stands goes on.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from attacking import assert_all_held, attack
from musicbox_agents import make_agent
from musicbox_experiments.cli import USER_ERROR
from musicbox_experiments.serve.client import Client
from served_runs import HEARD, command, load, serving, wait_until, workers, write_training
from tampering import WHOLE_FILE, mutations

FEWEST = 1_000
SAMPLE = 6
KINDS = "serve, tampered runs: refused by name", "serve, tampered runs: right songs"
KILLS = 6
WEIGHTS, AGENT, TRAINING = "best/weights.npz", "best/agent.json", "training.json"
DDPG = "agents/ddpg/seed-0"


@pytest.fixture(scope="module")
def served_run(synthetic, tmp_path_factory) -> Path:
    """A run of one agent that has learned how good songs are."""
    run = tmp_path_factory.mktemp("served") / "run"
    write_training(run, "ddpg", synthetic)
    agent = make_agent(
        "ddpg", synthetic, settings={"warmup_updates": 5, "num_envs": 8, "hidden": 4}
    )
    agent.learn({"data": str(synthetic.folder), "listener": "replay", "candidates": "catalog"}, 16)
    agent.save(run / DDPG / "best")
    return run


def broken(outcome) -> str:
    """What is wrong with an outcome; empty where songs came, or a file was refused by name."""
    said, file = outcome["message"], Path(outcome["file"])
    # An agent of another catalog, or of another MusicBox, is named by its folder, and so is a run
    # without the record that makes it one.
    named = file.name in said or str(file.parent) in said or "holds no trained agent" in said
    if not outcome["error"] or (outcome.get("meant") and named):
        return ""
    return f"{outcome['done']}: {outcome['error']}: {said[:300]}"


def test_some_tampered_runs_are_refused_or_served(served_run, tmp_path, cases):
    names = [name for name, *_ in mutations(served_run)]
    outcomes = attack(served_run, tmp_path, "served", names[5 :: len(names) // SAMPLE])
    assert_all_held(outcomes, broken, KINDS, cases)


@pytest.mark.slow
def test_all_tampered_runs_are_refused_or_served(served_run, tmp_path, cases):
    names = [name for name, *_ in mutations(served_run)]
    assert len(names) >= FEWEST
    assert_all_held(attack(served_run, tmp_path, "served", names), broken, KINDS, cases)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def of_another_catalog(file: Path) -> None:
    file.write_text(
        file.read_text().replace('"catalog_fingerprint": "', '"catalog_fingerprint": "0')
    )


def with_a_setting_out_of_range(file: Path) -> None:
    file.write_text(file.read_text().replace('"slate_size": 3', '"slate_size": -3'))


SPOILT = {
    "weights cut": (WEIGHTS, cut),
    "weights gone": (WEIGHTS, Path.unlink),
    "weights of garbage": (WEIGHTS, lambda file: file.write_bytes(WHOLE_FILE["garbage"])),
    "agent half-written": (AGENT, cut),
    "agent out of range": (AGENT, with_a_setting_out_of_range),
    "agent of another catalog": (AGENT, of_another_catalog),
    "training half-written": (TRAINING, cut),
    "training gone": (TRAINING, Path.unlink),
}
"""Of a run, which file is spoilt, and how."""


def spoilt(run: Path, folder: Path, name: str) -> Path:
    """A copy of a run, spoilt."""
    file, change = SPOILT[name]
    shutil.copytree(run, folder)
    before = (folder / DDPG / file).read_bytes()
    change(folder / DDPG / file)
    assert not (folder / DDPG / file).exists() or (folder / DDPG / file).read_bytes() != before
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_run_is_refused_in_a_sentence(name, served_run, tmp_path, cases):
    run = spoilt(served_run, tmp_path / "run", name)
    done = subprocess.run(command(run), capture_output=True, text=True, timeout=300)
    said = done.stderr + done.stdout
    named = SPOILT[name][0] in said or str(run) in said
    held = done.returncode == USER_ERROR and named and "Traceback" not in said
    cases("serve, spoilt runs: refused by the command", 1, int(held))
    assert held, f"exit {done.returncode}: {said}"


@pytest.mark.slow
def test_a_run_replaced_by_a_broken_one_goes_on_being_served(served_run, tmp_path, cases):
    names = [name for name in SPOILT if name != "training gone"]  # which is not there, yet
    for number, name in enumerate(names):
        shutil.copytree(served_run, tmp_path / f"whole-{number}")
        spoilt(served_run, tmp_path / f"broken-{number}", name)
    current = tmp_path / "current"
    current.symlink_to("whole-0")
    with serving(current) as (address, process), load(address, clients=2) as (answers, failures):
        for number in range(len(names)):
            (tmp_path / "next").symlink_to(f"broken-{number}")
            (tmp_path / "next").rename(current)
            wait_until_said(process, "the one before still is")
            begun = len(answers)
            wait_until(lambda begun=begun: len(answers) > begun + 20)
        (tmp_path / "next").symlink_to("whole-1")
        (tmp_path / "next").rename(current)
        wait_until(lambda: answers[-1]["served_by"]["run"] == "whole-1")
        assert failures == []
    assert {answer["served_by"]["run"] for answer in answers} == {"whole-0", "whole-1"}
    cases("serve, broken runs in place of a served one", len(names), len(names))


def wait_until_said(process: subprocess.Popen, words: str) -> None:
    """Read what the command prints up to a line with these words."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        assert "Traceback" not in line
        if words in line:
            return
    raise AssertionError("".join(lines))


@pytest.mark.slow
def test_workers_killed_at_random_moments_lose_nothing(served_run, cases):
    moments = random.Random(0)
    with serving(served_run, "--workers", "2") as (address, process):
        with Client(address) as client:
            expected = client.recommend(HEARD)
        with load(address, retries=8) as (answers, failures):
            for _ in range(KILLS):
                time.sleep(moments.uniform(0.05, 1.0))
                how = moments.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM))
                os.kill(moments.choice(workers(process)), how)
                begun = len(answers)
                wait_until(lambda begun=begun: len(answers) > begun + 20)
            wait_until(lambda: len(workers(process)) == 2)
        assert failures == []
        assert all(answer == expected for answer in answers)
        process.terminate()
        assert process.wait(timeout=60) == 0
    cases("serve, workers killed", KILLS, KILLS)
