"""The command itself: replaced runs, killed workers, its end; and what schemas allow."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection

import pytest
from musicbox_experiments.serve import play
from musicbox_experiments.serve.client import Client
from musicbox_experiments.serve.loading import Loader
from musicbox_experiments.serve.serve import ServeConfig, read_token, run, state_of_run
from musicbox_experiments.serve.service.workers import LAST_SECONDS
from served_runs import TOKEN, load, sent, served, serving, wait_until, workers, write_training

from musicbox_env.errors import UserError


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory, synthetic):
    """Two runs, and a link to the first."""
    folder = tmp_path_factory.mktemp("replaced")
    for seed, name in enumerate(("old", "new")):
        write_training(folder / name, "ddpg", synthetic, seed)
    (folder / "current").symlink_to("old")
    return folder


@pytest.mark.slow
def test_a_run_is_replaced_and_workers_are_killed_without_a_lost_request(two_runs):
    with serving(two_runs / "current", "--workers", "2") as (address, process):
        with load(address) as (answers, failures):
            wait_until(lambda: len(answers) > 50)
            (two_runs / "next").symlink_to("new")
            (two_runs / "next").rename(two_runs / "current")
            wait_until(lambda: answers[-1]["served_by"]["run"] == "new")
            process.send_signal(signal.SIGHUP)  # the same run once more
            begun = len(answers)
            wait_until(lambda: len(answers) > begun + 500)
            wait_until(lambda: len(workers(process)) == 2)
        assert failures == []
        assert {answer["served_by"]["seed"] for answer in answers} == {0, 1}
        with load(address, retries=5) as (answers, failures):
            for kills in range(3):
                wait_until(lambda kills=kills: len(answers) > 20 * (kills + 1))
                os.kill(workers(process)[0], signal.SIGKILL)
                wait_until(lambda: len(workers(process)) == 2)
        assert failures == []
        process.terminate()
        assert process.wait(timeout=60) == 0
        assert "all requests that had begun were answered" in process.stdout.read()


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_in_the_end(two_runs):
    with serving(two_runs / "new", "--workers", "2") as (address, process):
        sent(address, "GET", "/readyz")
        hanging = workers(process)[0]
        os.kill(hanging, signal.SIGSTOP)
        process.terminate()
        assert process.wait(timeout=LAST_SECONDS + 20) == 0
        said = process.stdout.read()
        assert f"Worker {hanging} does not end, and is killed." in said
        assert said.endswith("Stopped.\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_leaves_no_worker_behind(two_runs, number):
    with serving(two_runs / "new", "--workers", "2") as (address, process):
        sent(address, "GET", "/readyz")
        hanging = workers(process)[0]
        os.kill(hanging, signal.SIGSTOP)
        process.terminate()
        time.sleep(1)
        process.send_signal(number)
        process.wait(timeout=20)
        with pytest.raises(ProcessLookupError):
            os.kill(hanging, 0)


def test_connections_beyond_the_limit_of_open_files_wait_and_are_told_once(two_runs):
    with serving(two_runs / "new") as (address, process):
        (worker,) = workers(process)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (48, 48))
        host, port = address.removeprefix("http://").split(":")
        many = [socket.create_connection((host, int(port)), timeout=5) for _ in range(100)]
        time.sleep(3)  # asyncio tries again each second
        for connection in many:
            connection.close()
        wait_until(lambda: sent(address, "GET", "/readyz")[0] == 200)
        process.terminate()
        said = process.stdout.read().splitlines()
        assert sum("no more files may be open" in line for line in said) == 1
        assert len(said) < 5


@pytest.mark.slow
def test_what_was_begun_is_finished_before_the_end(two_runs):
    with serving(two_runs / "new") as (address, process):
        connection = HTTPConnection(address.removeprefix("http://"), timeout=30)
        connection.putrequest("POST", "/v1/playlist")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "10")
        connection.endheaders()
        connection.send(b'{"n":')
        time.sleep(0.5)
        process.terminate()
        time.sleep(0.5)
        connection.send(b" 100}")
        response = connection.getresponse()
        assert response.status == 200
        assert len(json.loads(response.read())["songs"]) == 100
        connection.close()
        assert process.wait(timeout=60) == 0


@pytest.mark.slow
def test_a_thousand_idle_connections_are_borne(two_runs):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with serving(two_runs / "new") as (address, _):
        host, port = address.removeprefix("http://").split(":")
        idle = [socket.create_connection((host, int(port)), timeout=30) for _ in range(1_000)]
        for half in idle[::2]:
            half.sendall(b"POST /v1/recommend HTTP/1.1\r\nHost: 127")
        with Client(address) as client:
            for _ in range(20):
                assert client.recommend("t_00000003:full")["songs"]
        for connection in idle:
            connection.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


REFUSALS = """
[checks]
negative_data_rejection.expected-statuses = ["400", "404", "405", "413", "415", "422"]
"""


@pytest.mark.slow
def test_whatever_the_schema_allows_is_answered_and_the_rest_refused(address, tmp_path):
    """Schemathesis: no 5xx, no answer that the schema does not know, nothing wrong accepted.

    A schema does not say which agents there are: that all it allows is accepted is not checked.
    """
    (tmp_path / "refusals.toml").write_text(REFUSALS)
    program = [os.path.join(os.path.dirname(sys.executable), "schemathesis")]
    program += ["--config-file", str(tmp_path / "refusals.toml"), "run"]
    options = ["--exclude-checks", "positive_data_acceptance", "--max-examples", "100"]
    options += ["--seed", "0", "--request-timeout", "20"]
    done = subprocess.run(
        [*program, f"{address}/openapi.json", *options],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-6_000:]


def test_a_changed_run_must_still_have_the_agents_that_were_served(tmp_path, synthetic, capsys):
    for name in ("ddpg", "popularity"):
        write_training(tmp_path / "run", name, synthetic)
    load_anew = Loader(ServeConfig(tmp_path / "run"), None)
    assert load_anew()
    (tmp_path / "run/agents/ddpg/seed-0/best/weights.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="ddpg cannot be served, see above"):
        load_anew()
    assert "weights.npz: " in capsys.readouterr().err
    shutil.rmtree(tmp_path / "run/agents/ddpg")
    assert load_anew()


def test_every_file_of_a_training_is_the_state_of_its_run(tmp_path, synthetic):
    """Also one that has the size and the time of change of the file it replaces."""
    assert not state_of_run(tmp_path / "run")
    write_training(tmp_path / "run", "ddpg", synthetic)
    seen = [state_of_run(tmp_path / "run")]
    for name in ("training.json", "best/agent.json", "best/weights.npz"):
        file = tmp_path / "run/agents/ddpg/seed-0" / name
        times = file.stat().st_atime_ns, file.stat().st_mtime_ns
        (other := tmp_path / "other").write_bytes(file.read_bytes())
        os.utime(other, ns=times)
        os.replace(other, file)
        seen.append(state_of_run(tmp_path / "run"))
        assert state_of_run(tmp_path / "run") == seen[-1]
        assert seen[-1] not in seen[:-1]


def test_a_port_that_is_taken_is_named(two_runs):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is no place to serve .*--port"):
            run(ServeConfig(two_runs / "old", port=port))
        with pytest.raises(UserError, match=f"port {port} is no place to serve .*--port"):
            play.run(play.PlayConfig(out=two_runs / "played", port=port))
        assert not (two_runs / "played").exists()


def test_names_that_no_host_can_have_are_refused(two_runs):
    for host in ("a" * 70, "a..b", "no such host", "192.0.2.1"):
        with pytest.raises(UserError, match=r"is no place to serve .*another --host"):
            run(ServeConfig(two_runs / "old", host=host))


def test_this_machine_is_served_to_those_who_name_it_however_its_address_is_spelled(
    tmp_path, synthetic, monkeypatch
):
    write_training(tmp_path / "run", "popularity", synthetic)
    for host in ("127.0.0.1", "127.0.0.2", "127.1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"):
        config = ServeConfig(tmp_path / "run", host=host)
        assert {"127.0.0.1", "localhost", host} <= (Loader(config, None)().hosts or set())
    app = Loader(ServeConfig(tmp_path / "run", host="0.0.0.0"), TOKEN)()
    assert (app.hosts, app.token) == (None, TOKEN)


def test_names_of_folders_need_not_be_text(tmp_path, synthetic):
    folder = tmp_path / "r\udcff"
    write_training(folder, "popularity", synthetic)
    (folder / "agents/popularity").rename(folder / "agents/p\udcff")
    with served(Loader(ServeConfig(folder), None)()) as address, Client(address) as client:
        assert client.ask("GET", "/readyz")["run"] == client.about()["run"] == "r\\xff"
        answer = client.recommend(agent="p\\xff")
        assert answer["served_by"]["agent"] == client.about()["agents"][0]["agent"] == "p\\xff"


def test_a_weak_token_is_refused(tmp_path):
    faults = {
        "short": "5 characters",
        "with blanks in it, but long": "blanks or line ends",
        "two lines of it\n0123456789": "blanks or line ends",
        "\u00fc" * 20: "letters that are not ASCII",
        "\u00fc \x07": "3 characters, blanks .*, letters .*, control characters",
        "": "0 characters",
    }
    for text, fault in faults.items():
        (tmp_path / "token").write_text(text)
        with pytest.raises(UserError, match=f"holds {fault}; a token has at least 16"):
            read_token(tmp_path / "token")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_text("a" * 100_000)
    for name in ("pipe", "large"):
        with pytest.raises(UserError, match="no file of at most"):
            read_token(tmp_path / name)
    (tmp_path / "token").write_text("0123456789abcdef\n")
    assert read_token(tmp_path / "token") == "0123456789abcdef"
