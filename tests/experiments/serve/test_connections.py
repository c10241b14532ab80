"""Connections and load: what waits, what is late, what is no HTTP, and what clients make of it."""

import json
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from musicbox_experiments.serve.client import Client, ServiceError
from musicbox_experiments.serve.service import connections
from musicbox_experiments.serve.service.connections import MALFORMED
from musicbox_experiments.serve.service.guard import Guard, Limits
from musicbox_experiments.serve.service.metrics import Metrics
from served_runs import sent, served
from starlette.responses import Response


def at_once(address, path, bodies):
    """Statuses of requests that are sent together."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        return [*pool.map(lambda body: sent(address, "POST", path, body)[0], bodies)]


def test_looks_wait_for_each_other_and_songs_for_one_of_them(address, looker, monkeypatch):
    """Of many looks some are refused; whoever asks for songs in their midst is answered."""
    show = looker.look

    def slow(request):
        time.sleep(0.1)
        return show(request)

    monkeypatch.setattr(looker, "look", slow)
    looks = [json.dumps({"heard": [], "agents": ["popularity"] * 50})] * 50
    with ThreadPoolExecutor(1) as pool:
        statuses = pool.submit(at_once, address, "/v1/look", looks)
        time.sleep(0.5)
        assert sent(address, "POST", "/v1/recommend", "{}")[0] == 200
        assert sent(address, "GET", "/readyz")[0] == 200
        assert not statuses.done()
        assert {*statuses.result()} == {200, 503}


@pytest.fixture
def slow_slates(engine, monkeypatch):
    """Slates of popularity take a while."""
    agent = engine.agents["popularity"]
    add_slates = agent.add_slates

    def slow(asked):
        time.sleep(0.1)
        add_slates(asked)

    monkeypatch.setattr(agent, "add_slates", slow)


def test_requests_of_many_songs_count_as_several_that_wait(address, slow_slates):
    body = '{"agent": "popularity", "k": 100}'
    statuses = at_once(address, "/v1/recommend", [body] * 200)
    assert {*statuses} == {200, 503}
    assert statuses.count(200) >= 102


def test_requests_for_few_songs_do_not_wait_for_those_for_many(address, slow_slates):
    many, few = (json.dumps({"agent": "popularity", "k": number}) for number in (100, 3))
    with ThreadPoolExecutor(1) as pool:
        answered = pool.submit(at_once, address, "/v1/recommend", [many] * 3)
        time.sleep(0.5)
        assert sent(address, "POST", "/v1/recommend", few)[0] == 200
        assert not answered.done()
        assert answered.result() == [200] * 3


def test_an_agent_named_twice_is_shown_once(client):
    answer = client.ask("POST", "/v1/look", {"heard": [], "agents": ["ddpg", "bc", "ddpg"]})
    assert [view["agent"] for view in answer["agents"]] == ["ddpg", "bc"]


def raw(address, *parts, end=False):
    """What is answered until the connection closes; each part is sent after a while."""
    host, port = urlsplit(address).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        with suppress(ConnectionError):  # it may be closed meanwhile
            for part in parts:
                connection.sendall(part)
                time.sleep(0.1)
        if end:
            connection.shutdown(socket.SHUT_WR)
        answer = bytearray()
        with suppress(ConnectionError):
            while part := connection.recv(65_536):
                answer += part
        return bytes(answer)


def test_what_is_no_http_is_refused_in_json(address):
    heads = [b"what\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000]
    for head in heads:
        answered, _, body = raw(address, head).partition(b"\r\n\r\n")
        assert answered.startswith(b"HTTP/1.1 400 ")
        assert json.loads(body)["detail"] == MALFORMED


@pytest.mark.parametrize("size", [512, 4_096, 16_384, 32_000])
def test_the_head_of_a_request_holds_64_kib_in_parts_of_any_size(address, size):
    for letters, answer in ((62_000, b"HTTP/1.1 200 "), (68_000, b"HTTP/1.1 400 ")):
        head = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: " + b"x" * letters
        host, port = urlsplit(address).netloc.split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with suppress(ConnectionError):
                for start in range(0, len(head), size):
                    connection.sendall(head[start : start + size])
                    time.sleep(0.001)
                time.sleep(0.1)
                connection.sendall(b"\r\n\r\n")
            assert connection.recv(13) == answer


@pytest.mark.parametrize("target", [b"http://[::1/x", b"http://", b"a:b", b"http://a?b"])
def test_targets_that_are_no_addresses_are_no_fault_of_the_service(address, target):
    head = b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    assert raw(address, b"GET " + target + head).startswith((b"HTTP/1.1 4", b"HTTP/1.1 200 "))


def test_a_client_that_sends_no_more_is_answered(address):
    head = b"POST /v1/recommend HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    answer = raw(address, head + b"Content-Length: 2\r\n\r\n{}", end=True)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert raw(address, end=True) == raw(address, b"GET / HT", end=True) == b""


def test_heads_of_requests_must_come_in_time(address, monkeypatch):
    """Connections that sent nothing, or half a head, or drip one, are closed."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    head = b"GET /healthz HTTP/1.1\r\n"
    begun = time.monotonic()
    for parts in ([], [head[:9]], [b"%c" % byte for byte in head][:8]):
        assert raw(address, *parts) == b""
    assert time.monotonic() - begun < 10
    whole = head + b"Host: a\r\n\r\n"
    assert b"200 OK" in raw(address, whole + head)  # half a second request after an answer


POST = b"POST /v1/recommend HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


def test_a_request_gives_its_length_in_one_way(address):
    """Else a proxy before the service might see another request begin where it ends."""
    two = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    next_one = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = raw(address, POST + two + next_one)
    assert (answer.count(b"HTTP/1.1"), answer.startswith(b"HTTP/1.1 400 ")) == (1, True)
    assert b"its length in two ways" in answer


def test_half_a_request_is_not_answered_when_its_sender_is_gone(address, engine, monkeypatch):
    asked, reset = [], struct.pack("ii", 1, 0)
    monkeypatch.setattr(engine, "agent", asked.append)
    chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
    for length in (b"Content-Length: 9\r\n\r\n{}", chunked):
        with socket.create_connection(urlsplit(address).netloc.split(":")) as connection:
            connection.sendall(POST + length)
            time.sleep(0.3)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    time.sleep(0.3)
    assert asked == []


def test_who_may_not_ask_reads_so_after_a_large_body(guarded):
    body = b" " * (8 << 20)
    for headers, expected in (({}, 401), ({"Host": "evil.example"}, 421)):
        statuses = {sent(guarded, "POST", "/v1/recommend", body, headers)[0] for _ in range(3)}
        assert statuses == {expected}
    waiting = POST.replace(b" a\r", b" 127.0.0.1\r") + b"Expect: 100-continue\r\n"
    assert raw(guarded, waiting + b"Content-Length: 2\r\n\r\n").startswith(b"HTTP/1.1 401 ")


def test_answers_that_nobody_reads_are_dropped_and_slow_readers_are_not(monkeypatch):
    monkeypatch.setattr(connections, "READ_SECONDS", 0.5)
    large = Response(b" " * (16 << 20))
    with served(Guard(large, Metrics(), limits=Limits(), token=None, hosts=None)) as address:
        for stall, pause in ((2.0, 0.0), (0.0, 0.005)):
            with socket.create_connection(urlsplit(address).netloc.split(":")) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                time.sleep(stall)
                size = 0
                with suppress(ConnectionError):
                    while size < 16 << 20 and (part := connection.recv(1 << 18)):
                        size += len(part)
                        time.sleep(pause)
                assert (size >= 16 << 20) == (stall == 0)


def test_a_head_is_answered_as_what_it_is_the_head_of(address):
    for path in ("/healthz", "/readyz", "/", "/v1/about"):
        status, headers, body = sent(address, "HEAD", path)
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) == len(sent(address, "GET", path)[2])
    assert sent(address, "HEAD", "/v1/recommend")[0] == 405


def test_many_names_are_looked_up_beside_the_event_loop(address, engine, monkeypatch):
    find = engine.songs.find

    def slow(name):
        time.sleep(0.01)
        return find(name)

    monkeypatch.setattr(engine.songs, "find", slow)
    body = json.dumps({"exclude": ["t_00000001"] * 200})
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(sent, address, "POST", "/v1/recommend", body)
        time.sleep(0.5)
        begun = time.monotonic()
        assert sent(address, "GET", "/healthz")[0] == 200
        assert time.monotonic() - begun < 1
        assert not answer.done()
        assert answer.result()[0] == 200


def test_pages_of_proxies_are_refusals_and_late_answers_are_not_asked_for_again():
    asked = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path.startswith("/v1/tracks"):
                time.sleep(1)
            self.send_response(502)
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(b"<h1>Bad gateway")

        def log_message(self, *texts):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever).start()
        with Client(f"127.0.0.1:{proxy.server_port}", timeout=0.3) as client:
            with pytest.raises(ServiceError, match="no answer of the service") as bad:
                client.about()
            with pytest.raises(TimeoutError):
                client.tracks("a")
        proxy.shutdown()
    assert (bad.value.status, "Bad gateway" in str(bad.value)) == (502, True)
    assert len(asked) == 2
