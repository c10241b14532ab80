"""Errors that a file causes, told from those that MusicBox causes.

A user can mend a file or an option; nobody but its authors can mend MusicBox. So three kinds are
kept apart. An `InputError` is what a file causes, and says which file and where. A `ValueError`,
`LookupError` or `OSError` that a ``raise`` statement of MusicBox raised carries a message for
whoever gave the value (`is_message`). Every other one is a fault of MusicBox.
"""

from __future__ import annotations

import dis
import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final

PACKAGES: Final = ("musicbox_env", "musicbox_agents", "musicbox_experiments")
DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_RAISE: Final = dis.opmap["RAISE_VARARGS"]
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters, line ends, marks that turn text, and bytes of names that are not UTF-8."""


@contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """Name the extra of pip that holds a package which is missing.

    Raises:
        ModuleNotFoundError: As the import within raised it, with the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package in PACKAGES:
            raise
        raise ModuleNotFoundError(
            f"{package} is not installed; {what} needs the extra [{extra}]: "
            f'pip install "musicbox-env[{extra}]".',
            name=error.name,
        ) from None


class UserError(ValueError):
    """What a user can mend; the message says how."""


class InputError(UserError):
    """A file cannot be used; the message says which, where, why, and how to mend it."""


def is_message(error: BaseException) -> bool:
    """Whether a ``raise`` statement of MusicBox raised an error, its message meant to be read.

    Errors that Python, NumPy or another library raise within MusicBox are faults of MusicBox:
    what they say explains nothing to a user.
    """
    if isinstance(error, UserError):
        return True
    if not isinstance(error, ValueError | LookupError | OSError | ImportError):
        return False
    trace: TracebackType | None = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
    return package in PACKAGES and trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE


@contextmanager
def reading(file: Path | str, mend: str = "Fetch or make the file again.") -> Iterator[None]:
    """Name the file and what is wrong with it where its content makes the block fail.

    For blocks that do nothing but read a file and take its parts: what fails there fails for what
    the file holds.

    Args:
        file: The file or folder that is read.
        mend: What to do about it, a sentence.

    Raises:
        InputError: The block failed, other than by an error with a message of its own.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or (isinstance(error, OSError) and not is_nameless(error)):
            raise
        if is_message(error):
            if str(file) in str(error):
                raise
            of_key = isinstance(error, KeyError) and error.args
            said = error.args[0] if of_key else error
            raise InputError(f"{shown(file)}: {said} {mend}") from error
        raise InputError(f"{shown(file)}: cannot be read ({reason(error)}). {mend}") from error


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Name the file or folder that the block writes where the error of a full disk does not.

    Raises:
        OSError: The disk is full; with the file's name.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL or error.filename is not None or is_message(error):
            raise
        raise OSError(error.errno, error.strerror, str(file)) from error


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it, but not what its links point to.

    Raises:
        OSError: With the whole path of what cannot be removed; `shutil.rmtree` names its last part.
    """
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files:
            os.unlink(os.path.join(parent, name))
        for name in folders:
            path = os.path.join(parent, name)
            if os.path.islink(path):
                os.unlink(path)
            else:
                os.rmdir(path)
    os.rmdir(folder)


def resolved(path: Path | str) -> Path:
    """An absolute path, links followed.

    Raises:
        UserError: It is too long, or nothing that can be a path.
    """
    try:
        found = Path(path).resolve()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.stat(found)
    except (OSError, ValueError, RuntimeError) as error:
        said = getattr(error, "strerror", None) or error
        raise UserError(f"{shown(path)[:60]}... cannot be a path ({said}).") from None
    return found


def nameable(path: Path | str) -> Path:
    """The absolute path of a file or folder that is to be made, links followed.

    Raises:
        UserError: It has no name, or is no text.
    """
    path = resolved(path)
    if not path.name:
        raise UserError(f"{path} is no name for something to be made. Name a folder in it.")
    require_text(path)
    return path


def require_text(path: Path) -> None:
    """Refuse a path that is no UTF-8 text, as which readers and writers of tables take it.

    Raises:
        UserError: It is not.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{shown(path)}: the path is no UTF-8 text, which files of tables need. Rename the "
            "folder whose name is not, or name another one."
        ) from None


def is_nameless(error: OSError) -> bool:
    """Whether an error of the operating system says neither its file nor that a disk is full."""
    return error.filename is None and error.errno not in DISK_FULL


def reason(error: BaseException) -> str:
    """What an error says, on one line, without the piece of a file that decoders quote below."""
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start:,} is no UTF-8 text"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, KeyError) and error.args:
        return f"{shown(str(error.args[0]))!r} is missing"
    said = (str(error).splitlines() or [""])[0].strip()
    return shown(said) or type(error).__name__


def shown(text: str | Path) -> str:
    r"""Text from a file, or its name, fit for a terminal: nothing in it moves, turns or hides.

    >>> shown("Red \x1b[31mLight"), shown("line\nbreak")
    ('Red \\x1b[31mLight', 'line\\nbreak')
    """
    return _UNSAFE.sub(lambda found: _escaped(found[0]), os.fspath(text))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return ascii(character)[1:-1]
