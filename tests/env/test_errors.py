"""What a file causes is told from what MusicBox causes."""

import concurrent.futures
import errno
import json
import os
import pickle
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from musicbox_env.errors import (
    InputError,
    UserError,
    is_message,
    reading,
    reason,
    remove_tree,
    shown,
)
from musicbox_env.schema import require_known


def error_of(action):
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("no error")


@pytest.mark.parametrize(
    "action",
    [
        lambda: require_known("split", "tset", ["test"]),
        lambda: require_known("split", "tset", ["test"], KeyError),
    ],
)
def test_errors_that_musicbox_raises_are_messages(action):
    assert is_message(error_of(action))


@pytest.mark.parametrize(
    "action",
    [
        lambda: {}["split"],
        lambda: int("x"),
        lambda: np.zeros(3)[[5]],
        lambda: np.zeros(3) + np.zeros(4),
        lambda: require_known("split", "tset", None),
        lambda: require_known("split", "tset", [], lambda message: RuntimeError(message)),
        lambda: [].index(1),
    ],
)
def test_errors_that_others_raise_are_none(action):
    assert not is_message(error_of(action))


def test_errors_of_users_stay_messages_across_processes():
    for kind in (UserError, InputError):
        assert is_message(pickle.loads(pickle.dumps(kind("x"))))
    assert not is_message(concurrent.futures.BrokenExecutor("x"))


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (lambda: {}["critic.weight"], r"f\.npz: cannot be read \('critic\.weight' is missing\)\."),
        (lambda: b"\xff".decode(), r"f\.npz: cannot be read \(byte 0 is no UTF-8 text\)\."),
        (lambda: json.loads("{"), r"f\.npz: cannot be read \(Expecting property name"),
        (lambda: int("x"), r"f\.npz: cannot be read \(invalid literal"),
        (lambda: require_known("agent", "x", ["y"]), r"f\.npz: Unknown agent 'x'"),
    ],
)
def test_what_fails_while_a_file_is_read_is_named(action, says):
    with pytest.raises(InputError, match=says), reading("f.npz"):
        action()


def test_what_says_its_file_is_left_as_it_is():
    for error in (
        InputError("g: is empty"),
        FileNotFoundError(errno.ENOENT, "none", "g"),
        OSError(errno.ENOSPC, "full"),
    ):
        with pytest.raises(type(error)) as caught, reading("f"):
            raise error
        assert caught.value is error


def test_nothing_in_shown_text_moves_turns_or_hides():
    assert shown("\x1b[31m\n\r\t\x00\x7f\x9b\u202e\u2066\u200f\u2028\udcff") == (
        r"\x1b[31m\n\r\t\x00\x7f\x9b\u202e\u2066\u200f\u2028\xff"
    )
    for kept in ("Édith Piaf", "שיר", "夜に駆ける", "👩\u200d🚀", "50 % \\ 'x'"):
        assert shown(kept) == kept


def test_a_reason_is_one_line_without_the_data_that_decoders_quote():
    assert reason(ValueError("parse error\n  private words")) == "parse error"
    assert reason(ValueError()) == "ValueError"
    assert reason(RecursionError("x")) == "it is nested too deep"


@contextmanager
def nobody():
    """Without the rights of the superuser, whom no mode of a folder keeps out."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_what_cannot_be_removed_is_named_with_its_folder():
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        part = Path(top) / "parts" / "one"
        part.mkdir(parents=True)
        (part / "plays.arrows").write_text("")
        part.chmod(0o555)
        with pytest.raises(PermissionError) as raised, nobody():
            remove_tree(part.parent)
        part.chmod(0o755)
        assert raised.value.filename == str(part / "plays.arrows")


def test_a_tree_is_removed_and_what_its_links_point_to_stays(tmp_path):
    tree, kept = tmp_path / "tree", tmp_path / "kept"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").write_text("")
    kept.mkdir()
    (kept / "file").write_text("")
    for link in ("link", "a/link"):
        (tree / link).symlink_to(kept)
    (tree / "dead").symlink_to(tmp_path / "nothing")
    remove_tree(tree)
    assert not tree.exists()
    assert (kept / "file").is_file()
