"""Machine code is kept on disk, and used for the sources alone that it was made from."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import musicbox_env
from musicbox_env import cache
from musicbox_env.synthetic.generator import bundled_dataset


@pytest.mark.parametrize(
    ("file", "rule", "other"),
    [
        ("kernels.py", "return 0 <= level < SKIP_THRESHOLD\n", "return level < 1\n"),
        ("schema.py", "SKIP_THRESHOLD: Final = int(Level.MOST)\n", "SKIP_THRESHOLD: Final = 1\n"),
    ],
    ids=["kernel", "constant"],
)
def test_machine_code_of_another_version_is_not_used(file, rule, other, tmp_path):
    """A kernel follows when another file changes: one whose kernel it calls, or a constant's."""
    package = tmp_path / "musicbox_env"
    of_code = shutil.ignore_patterns("__pycache__", "fitted")
    shutil.copytree(Path(musicbox_env.__file__).parent, package, ignore=of_code)
    source = (package / file).read_text()
    assert source.count(rule) == 1
    assert _skips_of_another_file(tmp_path) == 2
    (package / file).write_text(source.replace(rule, other))
    assert _skips_of_another_file(tmp_path) == 1


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of one source file that was never compiled; nothing is kept elsewhere."""
    source = tmp_path / "package/cache.py"
    source.parent.mkdir()
    source.write_text("")
    monkeypatch.setattr(cache, "__file__", str(source))
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "user"))
    cache.kernel_folder.cache_clear()
    yield source.parent
    cache.kernel_folder.cache_clear()


def test_machine_code_lies_in_the_package_or_where_the_user_says(package, tmp_path):
    folder = cache.kernel_folder("")
    assert folder.is_dir()
    assert folder.parent == package / "__pycache__"
    assert cache.kernel_folder(str(tmp_path / "own")) == tmp_path / "own" / folder.name


def test_every_change_of_a_source_has_a_folder_of_its_own(package):
    folders = {cache.kernel_folder("")}
    for change in ("edited", "edited too"):
        (package / "cache.py").write_text(change)
        cache.kernel_folder.cache_clear()
        folders.add(cache.kernel_folder(""))
    assert len(folders) == 3
    long_ago = 1_000_000_000
    for folder in folders:
        os.utime(folder, (long_ago, long_ago))
    (package / "another.py").write_text("")
    cache.kernel_folder.cache_clear()
    newest = cache.kernel_folder("")
    assert list((package / "__pycache__").iterdir()) == [newest]


def test_where_nothing_can_be_written_machine_code_is_temporary(package, tmp_path):
    (package / "__pycache__").write_text("a file")
    assert cache.kernel_folder("").parent == tmp_path / "user"
    cache.kernel_folder.cache_clear()
    shutil.rmtree(tmp_path / "user")
    (tmp_path / "user").write_text("a file")
    with pytest.warns(UserWarning, match="set NUMBA_CACHE_DIR"):
        assert cache.kernel_folder("").is_dir()


@pytest.mark.parametrize("given", ["a file", "a file/below", "/proc/none"])
def test_a_folder_of_the_user_that_can_be_none_is_told_and_not_used(package, tmp_path, given):
    """Numba would take `__pycache__` itself, where code of other sources may lie."""
    (tmp_path / "a file").write_text("")
    with pytest.warns(UserWarning, match="which NUMBA_CACHE_DIR names, cannot be written"):
        folder = cache.kernel_folder(str(tmp_path / given))
    assert folder == cache.kernel_folder("")


def test_a_tilde_that_no_shell_replaced_is_the_home(package, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(cache.CACHE_VARIABLE, "~/kept")
    assert cache.cache_folder() == tmp_path / "kept"
    assert cache.kernel_folder("~/code").parent == tmp_path / "code"


@pytest.mark.parametrize("given", ["a file", "a file/below", "n" * 300])
def test_a_cache_that_can_be_no_folder_is_named(tmp_path, monkeypatch, given):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / given))
    with pytest.raises(OSError, match=cache.CACHE_VARIABLE):
        bundled_dataset()


@pytest.mark.parametrize("home", ["read-only", "none"])
def test_nothing_that_can_be_written_falls_back_to_a_temporary_folder(
    package, tmp_path, monkeypatch, home
):
    for name in (cache.CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "a file").write_text("where no folder can be made, whoever asks")
    monkeypatch.setenv("HOME", str(tmp_path / "a file") if home == "read-only" else "~")
    shutil.rmtree(package)
    package.write_text("no folder either")
    with pytest.warns(UserWarning, match="set MUSICBOX_CACHE"):
        kernels = cache.kernel_folder("")
    assert kernels.is_dir()
    assert kernels.parent == cache.cache_folder() == cache.writable_cache()
    assert cache.kept_in_cache("data") == kernels.parent / "data"
    assert os.environ[cache.CACHE_VARIABLE] == str(kernels.parent)


def test_what_is_kept_already_is_found_where_nothing_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.CACHE_VARIABLE, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "musicbox/data").mkdir(parents=True)

    def refuse(**_):
        raise PermissionError

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert cache.kept_in_cache("data") == tmp_path / "musicbox/data"
    with pytest.warns(UserWarning, match="set MUSICBOX_CACHE"):
        assert not cache.kept_in_cache("other").is_relative_to(tmp_path)


def _skips_of_another_file(folder):
    """Skips among levels 0, 1, 4 as a kernel of `summaries` sees them, in a fresh process."""
    code = (
        "import numpy as np; from musicbox_env.data.summaries import running_skips\n"
        "print(int(running_skips(np.array([[0], [1], [4]]), 0.0).sum()))"
    )
    here = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache")}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=here,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(ran.stdout)
