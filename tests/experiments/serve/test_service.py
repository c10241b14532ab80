"""The service over real connections: answers, refusals, bounds."""

import json
import re
import socket
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from musicbox_experiments.cli import main
from musicbox_experiments.serve.client import Client, ServiceError
from musicbox_experiments.serve.recommend import RecommendConfig, recommend
from musicbox_experiments.serve.service.app import PAGE
from served_runs import TOKEN, sent

from musicbox_env.ingest.histories.levels import LevelConfig
from musicbox_env.schema import Level

HEARD = "t_00000003:full,t_00000017:skipped,t_00000042:kept"


def ids(answer):
    return [song["id"] for song in answer["songs"]]


def test_each_agent_answers_what_the_command_prints(client, run, engine):
    for name in engine.agents.keys() - {"random"}:
        answer = client.recommend(HEARD, agent=name)
        assert ids(answer) == recommend(RecommendConfig(run, HEARD, agent=name))
        assert answer["served_by"] == {
            "run": "all",
            "agent": name,
            "seed": 0,
            "dataset": engine.fingerprint,
        }


def test_many_at_once_are_each_answered_as_if_alone(client, address, engine):
    rng = np.random.default_rng(0)
    histories = [
        [{"song": engine.songs.id(int(row)), "level": 4} for row in rng.integers(0, 200, n)]
        for n in rng.integers(0, 40, 60)
    ]
    expected = [ids(client.recommend(heard, k=5)) for heard in histories]
    together = [None] * len(histories)

    def ask(place):
        with Client(address) as one:
            together[place] = ids(one.recommend(histories[place], k=5))

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(histories))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == expected


def test_songs_are_named_in_any_way_and_heard_in_any_way(client, engine):
    row = 11
    name, track = engine.songs.name(row), engine.songs.id(row)
    length = float(engine.durations[row])
    for share, level in zip((0.0, 0.2, 0.5, 0.95, 1.0), Level.__members__, strict=False):
        assert level  # the five edges below are those of `LevelConfig`
        number = int(np.searchsorted(LevelConfig().edges, share, side="right"))
        expected = ids(client.recommend([{"song": track, "level": number}]))
        heard = [{"song": name.upper(), "share": share}]
        assert ids(client.recommend(heard)) == expected
        heard = [{"song": name, "milliseconds": round(share * length)}]
        assert ids(client.recommend(heard)) == expected
    skipped = ids(client.recommend([{"song": track, "skipped": True}]))
    assert skipped == ids(client.recommend(f"{track}:skipped"))


def test_unknown_songs_are_named_and_change_nothing(client):
    known = [{"song": "t_00000003", "level": "full"}]
    answer = client.recommend([*known, {"song": "No - Such", "skipped": True}], exclude=["x"])
    assert ids(answer) == ids(client.recommend(known))
    assert [one["song"] for one in answer["unknown"]] == ["No - Such", "x"]


def test_context_and_excluded_songs_count(client, engine, synthetic):
    plain = ids(client.recommend(HEARD, k=10))
    assert len({*plain}) == 10
    assert ids(client.recommend(HEARD, k=4)) == plain[:4]
    left = ids(client.recommend(HEARD, k=9, exclude=plain[:1]))
    assert plain[0] not in left
    context = {"hour": 3, "premium": True, "shuffle": False, "type": "radio"}
    assert len(ids(client.recommend(HEARD, context=context))) == 3


def test_a_playlist_is_what_the_command_prints(client, run, engine, capsys):
    for name in ("ddpg", "best-rate", "lird"):
        # First the command, which has as long as it takes to compile kernels.
        main(["recommend", str(run), "--heard", HEARD, "--songs", "7", "--agent", name])
        _, *lines = capsys.readouterr().out.splitlines()
        answer = client.playlist(HEARD, n=7, agent=name)
        assert [re.search(r"t_\d{8}", line)[0] for line in lines] == ids(answer)
        chances = [f"{song['skip_chance']:.0%} skip" for song in answer["songs"]]
        assert all(chance in line for chance, line in zip(chances, lines, strict=True))


def test_songs_are_found_by_name_with_typos(client, engine):
    name = engine.songs.name(5)
    found = client.tracks(name[:3] + name[4:])
    assert found[0]["row"] == 5
    assert client.ask("GET", "/v1/tracks/5") == found[0]
    with pytest.raises(ServiceError, match="no row 200") as refused:
        client.ask("GET", "/v1/tracks/200")
    assert refused.value.status == 404


REFUSED = {
    '{"k": 0}': "body.k: Input should be greater than or equal to 1",
    '{"k": 101}': "body.k: Input should be less than or equal to 100",
    '{"k": "3"}': "body.k: Input should be a valid integer",
    '{"k": NaN}': "body.k",
    '{"kk": 3}': "body.kk: no such name; /docs lists those that are known",
    '{"agent": "ddgp"}': "did you mean 'ddpg'?",
    '{"heard": "t_1"}': "'t_1' is no song heard; expected SONG:LEVEL",
    '{"heard": [{"song": "a"}]}': "body.heard.0: give exactly one",
    '{"heard": [{"song": "a", "level": 5}]}': "less than 5",
    '{"heard": [{"song": "a", "share": 1.5}]}': "less than or equal to 1",
    '{"heard": [{"song": "a", "share": Infinity}]}': "finite number",
    '{"heard": [{"song": "", "level": 1}]}': "at least 1 character",
    '{"context": {"hour": 24}}': "body.context.hour",
    "[]": "body: expected a JSON object, sent with Content-Type: application/json",
    json.dumps({"heard": [{"song": "a", "level": 1}] * 501}): "at most 500 items",
    '{"heard": ["t_1"]}': "body.heard.0: expected a JSON object",
    '{"heard": ",,,"}': "',,,' names no song heard; expected SONG:LEVEL",
    '{"a[b]": 1}': "body.a[b]: no such name",
    json.dumps({"heard": f"{'a' * 301}:full"}): "of 301 characters",
}


@pytest.mark.parametrize("body", REFUSED, ids=lambda body: body[:40])
def test_what_cannot_be_is_refused_in_a_sentence(address, body):
    status, _, answer = sent(address, "POST", "/v1/recommend", body)
    assert (status, REFUSED[body] in json.loads(answer)["detail"]) == (422, True), answer


OF_UNIONS = {
    '{"heard": [{"song": "a"}]}': "body.heard.0: give exactly one of level, skipped, "
    "share and milliseconds",
    '{"heard": [{"song": "a", "level": 5}]}': "body.heard.0.level: Input should be less than 5",
    '{"heard": [{"song": "a", "level": "loud"}]}': "body.heard.0.level: Input should be 'skipped', "
    "'kept', 'brief', 'short', 'most', 'cut' or 'full'",
    '{"heard": [{"song": "a", "level": true}]}': "body.heard.0.level: Input should be a valid "
    "integer",
    '{"heard": 5}': "body.heard: Input should be a valid list",
    '{"heard": [5]}': "body.heard.0: expected a JSON object",
}


@pytest.mark.parametrize("body", OF_UNIONS)
def test_a_value_of_one_type_is_not_refused_for_another(address, body):
    status, _, answer = sent(address, "POST", "/v1/recommend", body)
    assert (status, json.loads(answer)["detail"]) == (422, OF_UNIONS[body])


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/tracks?query=a&limits=3", None),
        ("GET", "/v1/tracks/5?limits=3", None),
        ("GET", "/v1/about?limits=3", None),
        ("GET", "/v1/map?limits=3", None),
        ("POST", "/v1/recommend?limits=3", "{}"),
        ("POST", "/v1/look?limits=3", "{}"),
    ],
)
def test_names_behind_a_question_mark_are_refused_where_they_are_not_known(
    address, method, path, body
):
    status, _, answer = sent(address, method, path, body)
    known = "query.limits: no such name; /docs lists those that are known"
    assert (status, json.loads(answer)["detail"]) == (422, known)


@pytest.mark.parametrize("size", [1 << 18, 10 << 20])
def test_a_body_of_megabytes_is_refused_and_its_sender_reads_why(address, size):
    body = b'{"agent": "' + b"x" * size + b'"}'
    status, _, answer = sent(address, "POST", "/v1/recommend", body)
    assert (status, json.loads(answer)["detail"]) == (413, "The body is larger than 262,144 bytes.")


@pytest.mark.parametrize(
    "name", ["nobody", "../ddpg", "ddpg\0", "\ud800", "DDPG" * 40, "D" * 1_101, ""]
)
def test_agents_that_are_not_there_are_named_to_no_harm(address, name):
    status, _, answer = sent(address, "POST", "/v1/recommend", json.dumps({"agent": name}))
    assert status == 422
    assert re.search("No agent .* is served|unicode|at most 1100", json.loads(answer)["detail"])


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 20_000])
def test_what_is_no_json_is_refused(address, body):
    status, _, answer = sent(address, "POST", "/v1/recommend", body)
    assert status == 400, answer


def test_large_and_slow_bodies_are_cut_off(guarded):
    token = {"Authorization": f"Bearer {TOKEN}"}
    status, _, _ = sent(guarded, "POST", "/v1/recommend", b" " * 10_001, token)
    assert status == 413
    with socket.create_connection(urlsplit(guarded).netloc.split(":"), timeout=20) as connection:
        head = (
            f"POST /v1/recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
        )
        connection.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(11):
            connection.sendall(b"3e8\r\n" + b" " * 1000 + b"\r\n")
        assert b"413" in connection.recv(100)
    with socket.create_connection(urlsplit(guarded).netloc.split(":"), timeout=20) as connection:
        connection.sendall(head.encode() + b"Content-Length: 5\r\n\r\n{")
        assert b"408" in connection.recv(100)


def test_a_token_and_a_host_name_are_required_where_they_are_set(guarded):
    with Client(guarded, token=f"{TOKEN}\n") as client:  # as a file holds it
        assert client.recommend(HEARD)["songs"]
    for given in ({}, *({"Authorization": text} for text in ("Bearer wrong", TOKEN, "Basic x"))):
        for path in ("/v1/about", "/metrics", "/v1/map"):
            status, headers, _ = sent(guarded, "GET", path, headers=given)
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert sent(guarded, "GET", "/healthz")[0] == sent(guarded, "GET", "/")[0] == 200
    assert sent(guarded, "GET", "/", headers={"Host": "evil.example"})[0] == 421
    for host in ("LocalHost:80", "localhost", "127.0.0.1:1", "[::1]", "[::1]:80"):
        assert sent(guarded, "GET", "/", headers={"Host": host})[0] == 200
    for host in ("", "::1:80", "[::1", "localhost.evil.example", "localhost:80:80"):
        assert sent(guarded, "GET", "/", headers={"Host": host})[0] == 421
    for scheme in ("bearer", "BEARER"):
        given = {"Authorization": f"{scheme} {TOKEN}"}
        assert sent(guarded, "GET", "/v1/about", headers=given)[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/v1/recomend", None, 404, "no such page or operation; /docs lists them"),
        ("GET", "/page/nothing.js", None, 404, "no such page or operation; /docs lists them"),
        ("GET", "/v1/tracks/9999999", None, 404, "The catalog has no row 9999999"),
        ("GET", "/v1/recommend", None, 405, "another method; /docs lists them"),
        ("GET", "/v1/tracks", None, 422, "query.query: is missing; /docs lists what is needed"),
        ("POST", "/v1/recommend", b"\x1f\x8b\x08", 400, "no JSON in UTF-8; compressed or very"),
        ("GET", "http://a/v1/nothing", None, 404, "no such page or operation"),
        ("POST", "/v1/recommend", b"{heard:[]}", 400, "body.1: from this character on it is no"),
    ],
)
def test_what_is_asked_wrongly_is_told_how_to_ask(address, method, path, body, status, said):
    answered, _, text = sent(address, method, path, body)
    assert answered == status
    assert said in json.loads(text)["detail"]


def test_a_request_may_name_the_service_as_clients_name_a_proxy(address):
    for path in ("http://127.0.0.1/healthz", "http://127.0.0.1/v1/tracks?query=a"):
        assert sent(address, "GET", path)[0] == 200


def test_a_fault_says_nothing_to_the_client(client, address, engine, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("/home/somebody/secret")

    monkeypatch.setattr(engine.agents["popularity"], "add_slates", fail)
    status, _, answer = sent(address, "POST", "/v1/recommend", '{"agent": "popularity"}')
    assert (status, b"secret" in answer, b"Traceback" in answer) == (500, False, False)
    assert client.recommend(HEARD)["songs"]


def test_one_fault_does_not_fail_the_batch(address, engine, monkeypatch):
    agent = engine.agents["best-rate"]
    choose = agent.choose

    def fail_some(sessions):
        if any(len(one.tracks) == 7 for one in sessions):
            raise RuntimeError("one of them")
        time.sleep(0.05)
        return choose(sessions)

    monkeypatch.setattr(agent, "choose", fail_some)
    statuses = {}

    def ask(number):
        heard = [{"song": "t_00000003", "level": 1}] * number
        body = json.dumps({"heard": heard, "agent": "best-rate"})
        statuses[number] = sent(address, "POST", "/v1/recommend", body)[0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {number: 500 if number == 7 else 200 for number in range(4, 12)}


def test_answers_hold_no_path_of_the_host(address, run, synthetic_folder):
    places = (str(run.parent), str(synthetic_folder.parent), "/home", "site-packages")
    for path in ("/v1/about", "/openapi.json", "/readyz", "/metrics", "/nothing", "/page/nothing"):
        _, _, answer = sent(address, "GET", path)
        assert not any(place in answer.decode() for place in places)


NOTHING = {"default-src", "base-uri", "form-action", "frame-ancestors"}


def test_pages_need_no_other_host_and_nothing_inline(address):
    for path in ("/", "/docs"):
        status, headers, body = sent(address, "GET", path)
        assert status == 200
        parts = headers["content-security-policy"].split("; ")
        policy = dict(part.split(" ") for part in parts)
        assert {name for name in policy if policy[name] == "'none'"} == NOTHING
        assert {*policy.values()} == {"'none'", "'self'"}
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        page = body.decode()
        assert not re.search(r"https?://|\son\w+=|style=|<style|<script(?![^>]*src=)", page)
        for name in re.findall(r'(?:src|href)="(page/[^"]+)"', page):
            assert sent(address, "GET", f"/{name}")[0] == 200
    sources = "".join(file.read_text() for file in PAGE.glob("*.js"))
    assert "innerHTML" not in sources
    assert "http" not in sources.replace("http://www.w3.org/2000/svg", "")


def test_every_field_is_described(address):
    _, _, answer = sent(address, "GET", "/openapi.json")
    schema = json.loads(answer)
    own = {n: of for n, of in schema["components"]["schemas"].items() if "Validation" not in n}
    assert {"RecommendRequest", "Look", "Problem"} <= own.keys()
    for name, shape in own.items():
        for field, of in shape["properties"].items():
            assert of.get("description"), f"{name}.{field}"
    parameters = schema["paths"]["/v1/tracks"]["get"]["parameters"]
    assert {one["name"]: one["schema"].get("default") for one in parameters} == {
        "query": None,
        "limit": 10,
    }
    assert all(one["description"] for one in parameters)


def test_files_of_the_page_are_answered_whole(address):
    """Refusals of ranges would be no JSON."""
    whole = sent(address, "GET", "/")[2]
    for part in ("bytes=0-3", "bytes=5-2", "bytes=99999999-", "lines=1-2"):
        status, _, body = sent(address, "GET", "/", headers={"Range": part})
        assert (status, body) == (200, whole)


def test_the_map_holds_every_song(address, engine, looker):
    _, headers, body = sent(address, "GET", "/v1/map")
    number = int(np.frombuffer(body, "<u4", 1)[0])
    assert (number, len(body)) == (len(engine.songs), 4 + 7 * number)
    places = np.frombuffer(body, "<u2", 2 * number, 4).reshape(2, number).T / 65_535
    np.testing.assert_allclose(places, looker.map.places(looker.map.vectors), atol=1e-4)
    keep = np.frombuffer(body, "u1", number, 4 + 4 * number) / 255
    np.testing.assert_allclose(keep, 1 - engine.dataset.catalog.skip_rate(), atol=1 / 254)
    again = sent(address, "GET", "/v1/map", headers={"If-None-Match": headers["etag"]})
    assert again[0] == 304


def test_the_map_keeps_what_two_dimensions_can(looker):
    """Its axes are those of largest variance: no other two keep more of it."""
    vectors = np.asarray(looker.map.vectors, np.float64)
    largest = np.linalg.eigvalsh(np.cov(vectors.T))[-2:].sum()
    places = looker.map.places(vectors) * looker.map.scale
    assert places.var(axis=0, ddof=1).sum() == pytest.approx(largest, rel=1e-4)


def test_counters_count(client, address):
    client.recommend(HEARD)
    _, _, text = sent(address, "GET", "/metrics")
    counts = dict(re.findall(r"^(\S+) ([\d.e+-]+)$", text.decode(), re.MULTILINE))
    assert float(counts['musicbox_requests_total{route="/v1/recommend",status="200"}']) >= 1
    assert float(counts["musicbox_batch_size_count"]) >= 1
