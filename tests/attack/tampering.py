"""Folders that somebody tampered with: a table of mutations, and a process that uses them.

``python tampering.py FOLDER OUT played`` links the dataset folder anew for each mutation whose name
it reads, changes one file of it, and plays what is left; with ``served`` the folder is a run, whose
agent is asked for songs. It prints a line of JSON before and after each, so that whoever reads them
(`attacking.attack`) sees at which one the process died.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from musicbox_env.errors import is_message

Change = Callable[[Path], None]
SIMILARITY, LEAVING, LEARNED = "listeners/similarity.npz", "leaving.json", "listeners/learned.npz"
MOST_EARNED = 6.0
BAD_JSON = {
    **{"null": "null", "string": '"x"', "list": "[]", "object": "{}", "true": "true"},
    **{"negative": "-7", "huge": "9" * 40, "infinite": "1e999", "nan": "NaN", "fraction": "0.37"},
    **{"digits": "1" * 20_000, "deep": "[" * 50_000 + "]" * 50_000},
}
WHOLE_FILE = {
    "empty file": b"",
    "garbage": bytes(range(256)) * 9,
    "text": b"not what you look for",
    "list": b"[1, 2]",
    "cut zip": b"PK\x03\x04",
    "cut npy": b"\x93NUMPY\x01\x00\x76\x00{'descr': '<i4', 'for",
    "pickle": b"cos\nsystem\n(S'true'\ntR.",
}


# Arrays


def as_npy(array: npt.NDArray, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def changed_arrays(array: npt.NDArray) -> Iterator[tuple[str, npt.NDArray]]:
    """What an array could be instead, by name."""
    if array.ndim:
        yield "cut by one", array[:-1]
        yield "cut by half", array[: len(array) // 2]
        yield "one row more", np.concatenate([array, array[-1:]])
        yield "twice", np.concatenate([array, array])
        yield "empty", array[:0]
        yield "no dimension", array.reshape(-1)[0].reshape(())
        yield "backwards", np.ascontiguousarray(array[::-1])
    yield "one dimension more", array[..., None]
    yield "flat and last axis cut", array.reshape(-1)[:-1]
    if array.ndim > 1:
        yield "columns first", np.asfortranarray(array)
        yield "last axis cut", np.ascontiguousarray(array[..., :-1])
        yield "turned", np.ascontiguousarray(array.swapaxes(0, -1))
    for dtype in ("f2", "f4", "f8", "i1", "i8", "u8", ">i4", ">f4", "?", "c8", "U4", "M8[s]"):
        if np.dtype(dtype) != array.dtype:
            with np.errstate(all="ignore"):
                yield f"of type {dtype}", array.astype(dtype)
    yield "of structures", array.astype([("a", array.dtype)])
    for place, at in (("first", 0), ("middle", array.size // 2), ("last", array.size - 1)):
        for value in values_for(array.dtype):
            bad = np.array(array)
            bad.reshape(-1)[at] = value
            yield f"{place} value {value}", bad


def values_for(dtype: np.dtype) -> list[Any]:
    if dtype.kind == "f":
        return [math.nan, math.inf, -math.inf, 1e38, -7.5]
    limits = np.iinfo(dtype)
    near = [v for v in (-2, -1, 5, 24, 100) if limits.min <= v <= limits.max]
    return [limits.min, limits.max, limits.max // 2, *near]


def headers(array: npt.NDArray) -> Iterator[tuple[str, bytes]]:
    """Files whose header says what is not so."""
    whole, shape = as_npy(array), array.shape
    data = np.ascontiguousarray(array).tobytes()
    lies: dict[str, tuple[Any, ...]] = {
        "too long": (shape[0] * 1000, *shape[1:]),
        "beyond all memory": (2**62, *shape[1:]),
        "overflowing": (2**33, 2**33),
        "negative": (-len(array), *shape[1:]),
    }
    for name, lie in lies.items():
        file = io.BytesIO()
        header = {"descr": array.dtype.str, "fortran_order": False, "shape": lie}
        np.lib.format.write_array_header_2_0(file, header)
        yield f"header {name}", file.getvalue() + data
    yield "cut in its data", whole[: -len(data) // 2]
    yield "cut to its header", whole[: len(whole) - len(data)]
    yield "with bytes behind", whole + b"\0" * 64
    text = repr({"descr": array.dtype.str, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (len(text) % 2) + b"\n"
    yield "unaligned", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data
    objects = np.array([None, "x"], object)
    yield "of objects", as_npy(objects, allow_pickle=True)
    npz = io.BytesIO()
    np.savez(npz, array)
    yield "an archive", npz.getvalue()


def of_array(path: Path) -> Iterator[tuple[str, Change]]:
    array = np.load(path)
    for name, other in changed_arrays(array):
        yield name, partial(replace, content=as_npy(other))
    for name, content in headers(array):
        yield name, partial(replace, content=content)


# JSON


def nodes(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of a JSON value: each key, and of each list the first and the last entry."""
    if path:
        yield path
    if isinstance(content, dict):
        for key, value in content.items():
            yield from nodes(value, (*path, key))
    elif isinstance(content, list) and content:
        for place in sorted({0, len(content) - 1}):
            yield from nodes(content[place], (*path, place))


def changed_json(content: dict[str, Any]) -> Iterator[tuple[str, Callable[[], str]]]:
    """What makes texts of the content with one thing changed, by name."""
    for path in nodes(content):
        where = "/".join(map(str, path))
        for name, text in BAD_JSON.items():
            yield f"{where} {name}", partial(with_value, content, path, text)
        yield f"{where} missing", partial(without, content, path)
    for path in [(), *(p for p in nodes(content) if isinstance(at(content, p), dict))]:
        yield f"{'/'.join(map(str, path))} unknown key", partial(with_more, content, path)


def at(content: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        content = content[key]
    return content


def with_value(content: dict[str, Any], path: tuple[Any, ...], text: str) -> str:
    changed = json.loads(json.dumps(content))
    at(changed, path[:-1])[path[-1]] = "<here>"
    return json.dumps(changed).replace('"<here>"', text)


def without(content: dict[str, Any], path: tuple[Any, ...]) -> str:
    changed = json.loads(json.dumps(content))
    del at(changed, path[:-1])[path[-1]]
    return json.dumps(changed)


def with_more(content: dict[str, Any], path: tuple[Any, ...]) -> str:
    changed = json.loads(json.dumps(content))
    at(changed, path)["unknown key"] = 1
    return json.dumps(changed)


def of_json(path: Path) -> Iterator[tuple[str, Change]]:
    for name, text in changed_json(json.loads(path.read_text())):
        yield name, partial(replace, content=partial(encoded, text))


def encoded(text: Callable[[], str]) -> bytes:
    return text().encode()


# Archives of arrays


def of_arrays(path: Path) -> Iterator[tuple[str, Change]]:
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    about = json.loads(str(arrays.pop("about"))) if "about" in arrays else None
    short = {**about, "inputs": {}} if about and "inputs" in about else about or {}
    inputs = json.dumps((about or {}).get("inputs"))

    def with_about(text: Callable[[], str]) -> bytes:
        return as_npz(arrays, text().replace('"inputs": {}', f'"inputs": {inputs}'))

    for name, text in changed_json(short):
        yield f"about {name}", partial(replace, content=partial(with_about, text))
    said = None if about is None else json.dumps(about)
    for member, array in arrays.items():
        for name, other in changed_arrays(array):
            changed = partial(as_npz, {**arrays, member: other}, said)
            yield f"{member} {name}", partial(replace, content=changed)
        for name, content in headers(array) if array.ndim else ():
            changed = partial(as_npz, arrays, said, {f"{member}.npy": content})
            yield f"{member} {name}", partial(replace, content=changed)
        left = {name: a for name, a in arrays.items() if name != member}
        yield f"{member} missing", partial(replace, content=partial(as_npz, left, said))
    more = {**arrays, "more": np.zeros(3)}
    yield "one member more", partial(replace, content=partial(as_npz, more, said))
    yield "without about", partial(replace, content=partial(as_npz, arrays, None))


def as_npz(
    arrays: dict[str, npt.NDArray], about: str | None, raw: dict[str, bytes] | None = None
) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as members:
        for name, array in arrays.items():
            members.writestr(f"{name}.npy", (raw or {}).get(f"{name}.npy") or as_npy(array))
        if about is not None:
            members.writestr("about.npy", as_npy(np.array(about)))
    return file.getvalue()


# Tables


def of_table(path: Path) -> Iterator[tuple[str, Change]]:
    table = pq.read_table(path)
    for name in table.column_names:
        column = table.schema.get_field_index(name)
        others = {
            "of nothing": pa.nulls(len(table)),
            "of lists": pa.array([[1]] * len(table)),
            "of bytes": pa.array([b"\xff\xfe"] * len(table)),
            "of text": pa.array(["x"] * len(table)),
            "of NaN": pa.array([math.nan] * len(table)),
            "negative": pa.array([-1] * len(table)),
            "huge": pa.array([2**63 - 1] * len(table)),
            "with a gap": pa.array([None, *table[name].to_pylist()[1:]], table[name].type),
        }
        for how, values in others.items():
            yield f"{name} {how}", as_table(table.set_column(column, name, values))
        yield f"{name} missing", as_table(table.drop_columns([name]))
        yield f"{name} twice", as_table(table.append_column(name, table[name]))
    for how, other in {
        "empty": table[:0],
        "cut": table[:-1],
        "twice": pa.concat_tables([table, table]),
        "first row twice": pa.concat_tables([table[:1], table[:-1]]),
    }.items():
        yield how, as_table(other)


def as_table(table: pa.Table) -> Change:
    def content() -> bytes:
        file = io.BytesIO()
        pq.write_table(table, file)
        return file.getvalue()

    return partial(replace, content=content)


# All


def replace(path: Path, content: bytes | Callable[[], bytes]) -> None:
    """Write a content in place of a file, or what makes it: of most mutations it is not needed."""
    path.unlink()
    path.write_bytes(content if isinstance(content, bytes) else content())


def gone(path: Path) -> None:
    path.unlink()


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def of_any(path: Path) -> Iterator[tuple[str, Change]]:
    whole = path.read_bytes()
    for name, content in WHOLE_FILE.items():
        yield name, partial(replace, content=content)
    for share in (0.01, 0.3, 0.9, 0.999):
        yield f"cut at {share}", partial(replace, content=whole[: int(share * len(whole))])
    for number, change in enumerate((gone, folder_instead, pipe_instead)):
        yield ("gone", "a folder", "a pipe")[number], change
    rng = np.random.default_rng(0)
    for number in range(4):
        bits = bytearray(whole)
        for place in rng.integers(len(whole), size=8):
            bits[place] ^= 1 << int(rng.integers(8))
        yield f"bits flipped {number}", partial(replace, content=bytes(bits))


KINDS = {".npy": of_array, ".json": of_json, ".npz": of_arrays, ".parquet": of_table}
LEFT_OUT = ("embeddings/content.json", "embeddings/colisten.json", "embeddings/hybrid.json")
"""Read by people alone."""


def mutations(folder: Path) -> Iterator[tuple[str, str, Change]]:
    """Every mutation of a dataset folder: its name, the file, the change."""
    for path in sorted(folder.rglob("*.*")):
        file = path.relative_to(folder).as_posix()
        if file in LEFT_OUT or path.is_dir():
            continue
        for name, change in (*of_any(path), *KINDS.get(path.suffix, lambda path: ())(path)):
            yield f"{file}: {name}", file, change


def prepare(source: Path, folder: Path) -> None:
    """Copy a synthetic dataset and put a file of each kind that can be received beside it.

    It states no fingerprints: whoever changes a file can state those of what is there then.
    """
    from musicbox_env.data.dataset import Dataset
    from musicbox_env.listeners.files import write_fit
    from musicbox_env.listeners.learned.listener import BUNDLED, FittedNetwork
    from musicbox_env.listeners.leaving import FITTED_ON, LeavingModel
    from musicbox_env.listeners.similarity import SimilarityConfig

    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("spaces"))
    about = json.loads((folder / "dataset.json").read_text())
    del about["identity"]
    (folder / "dataset.json").write_text(json.dumps(about))
    of = {FITTED_ON: Dataset(folder).identity}
    LeavingModel.published().save(folder / LEAVING, of)
    settings = {**vars(SimilarityConfig(memory=500, seed=1))}
    write_fit(folder / SIMILARITY, {"listener": "similarity", "settings": settings}, {})
    fit = FittedNetwork.load(BUNDLED)
    dataclasses.replace(fit, about={**fit.about, **of}).save(folder / LEARNED)
    play(folder)  # makes spaces/
    (folder / "spaces/hybrid+rate.faiss").write_bytes(b"IwFl" + bytes(400))


REPLAY = {"listener": "replay", "candidates": "catalog"}


def plays(folder: Path) -> Iterator[dict[str, Any]]:
    """Options under which a folder is played: each kind of file is read by one of them."""
    data = str(folder)
    yield {"data": data, "leaving": "fitted", **REPLAY, "reward": {"novelty": 1.0}}
    yield {"data": data, "action": "slate", "observation": "ids", "listener": "ground_truth"}
    yield {"data": data, "candidates": "session", "listener": str(folder / LEARNED)}
    yield {"data": data, "embedding": "colisten", "listener": str(folder / SIMILARITY)}
    yield {"data": data, **REPLAY, "embedding": "content", "action": "proto_list"}


def play(folder: Path) -> None:
    """Play sessions of a folder through the vector environment, all answers being in range."""
    import gymnasium as gym

    import musicbox_env

    for options in plays(folder):
        env = gym.make_vec(
            musicbox_env.ENV_ID, 3, vectorization_mode="vector_entry_point", **options
        )
        observation, info = env.reset(seed=0)
        tracks = len(env.unwrapped.assets.dataset.catalog)
        for _ in range(4):
            assert env.observation_space.contains(observation), "an observation out of its space"
            observation, reward, *_, info = env.step(env.action_space.sample())
            assert (np.abs(reward) <= MOST_EARNED).all(), "a reward"
            assert ((info["slate_levels"] >= -1) & (info["slate_levels"] <= 4)).all(), "a level"
            assert ((info["slate"] >= -1) & (info["slate"] < tracks)).all(), "a track"
    assert len(env.unwrapped.assets.dataset.sessions.session_ids) > 0


def ask(folder: Path) -> None:
    """Ask the agent of a run for songs, as `musicbox serve` does."""
    from musicbox_experiments.serve.engine import Engine
    from musicbox_experiments.serve.recommend import context_of
    from musicbox_experiments.serve.recommender import LiveSession

    (label,) = (each.name for each in (folder / "agents").iterdir())
    engine = Engine.open(folder, (label,))
    heard, levels = np.arange(5), np.arange(5, dtype=np.int8)
    (songs,) = engine.agents[label].songs([LiveSession(heard, levels, context_of())], [7])
    rows = {row for row, _ in songs}
    assert len(rows) == len(songs) == 7, "a song twice, or too few"
    assert rows <= {*range(5, len(engine.songs))}, "a song that is none, or was heard"
    assert all(math.isfinite(score) for _, score in songs), "a score"


def link(folder: Path, into: Path) -> None:
    """A folder of links to the files of another."""
    for path in folder.rglob("*"):
        target = into / path.relative_to(folder)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)


USES = {"played": play, "served": ask}


def main(folder: Path, out: Path, use: str, names: list[str]) -> None:
    """Use the folder after each mutation, and print what came of it."""
    wanted = set(names)
    for number, (name, file, change) in enumerate(mutations(folder)):
        if name not in wanted:
            continue
        print(json.dumps({"begin": name}), flush=True)
        tampered = out / f"folder-{number}"
        link(folder, tampered)
        change(tampered / file)
        outcome = {"done": name, "file": file, "error": "", "message": ""}
        try:
            USES[use](tampered)
        except Exception as error:
            outcome |= {"error": type(error).__name__, "message": str(error)}
            outcome["meant"] = is_message(error)
        print(json.dumps(outcome), flush=True)
        shutil.rmtree(tampered)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], json.loads(sys.stdin.read()))
