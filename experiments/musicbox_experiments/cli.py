"""The ``musicbox`` command; `COMMANDS` says which module each subcommand is."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module

from musicbox_env.errors import DISK_FULL, PACKAGES, is_message, is_nameless
from musicbox_env.schema import suggest
from musicbox_experiments.options import OPTIONS, RENAMED, WORD_OPTIONS
from musicbox_experiments.text import say

USER_ERROR, INTERNAL_ERROR = 2, 70
"""Exit codes: of what a user can mend, and of a fault of MusicBox (EX_SOFTWARE)."""

COMMANDS = {
    "compare": ("compare.compare", "train agents, evaluate them on held-out sessions, report"),
    "train": ("train.train", "train one agent over seeds"),
    "tune": ("train.tune", "search for settings of an agent on validation sessions"),
    "calibrate-gain": (
        "compare.calibrate_gain",
        "measure what gains at learned evaluators are worth",
    ),
    "fit-listener": ("listeners.fit_listener", "learn a user simulator from logged sessions"),
    "fit-leaving": ("listeners.fit_leaving", "learn when listeners leave from logged sessions"),
    "evaluate": ("compare.evaluate", "evaluate the agents of a run again"),
    "recommend": ("serve.recommend", "print the next songs for a listening history"),
    "serve": ("serve.serve", "serve the agents of a run over HTTP, with a page to look at them"),
    "play": ("serve.play", "open a page to play with agents, trained first where no run is named"),
    "ingest": ("data.ingest", "turn listening logs into a dataset folder"),
    "describe": ("data.describe", "print what is in a dataset folder"),
    "trust": ("trust.trust", "validate listeners as user simulators on held-out sessions"),
    "export": ("data.export", "write logged sessions as a Minari data set"),
    "benchmark": ("benchmark.benchmark", "measure speed and memory beside peers and limits"),
    "synthesize": ("data.synthesize", "make synthetic sessions, as a dataset or as raw logs"),
}
"""Module of this package, and what it does, of each command.

The module holds a configuration class named after the command (``fit-leaving``:
``FitLeavingConfig``), whose fields are the options, and a function ``run`` that takes one. Where
defaults depend on the command line, a function ``defaults`` makes them from its arguments.
"""


_OS_ERRORS: tuple[tuple[type[OSError], str], ...] = (
    (FileExistsError, "there is a file of that name where a folder is needed"),
    (NotADirectoryError, "a part of that path is a file, not a folder"),
    (IsADirectoryError, "that is a folder, and a file is needed"),
    (PermissionError, "it may not be read or written by you"),
    (FileNotFoundError, "there is no such file or folder"),
)
"""What errors of the operating system mean for whoever named the file."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came: the command ends as after an interrupt from the keyboard."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand; errors that a user can mend are printed without a traceback.

    Any other error is a fault of MusicBox, and printed with one and the request to report it.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            with _terminated_cleanly():
                _run(arguments)
        finally:
            if sys.stdout is not None:  # it was closed before the command began
                sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the pipe closed it. Python flushes once more on exit: to nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt as stop:
        if sys.stderr.isatty():  # which shows ^C
            say("", to_errors=True)
        say(f"musicbox {arguments[0]}: stopped.", to_errors=True)
        number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        raise SystemExit(128 + number) from None


@contextmanager
def _terminated_cleanly() -> Iterator[None]:
    """Let SIGTERM raise, so that what a command began is put away and its workers end."""

    def stop(number: int, frame: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        say(_overview())
        return
    if arguments[0] == "--version":
        from musicbox_env import __version__

        say(f"musicbox {__version__}")
        return
    name, *rest = arguments
    if name not in COMMANDS:
        say(f"musicbox: no command {name!r}; {suggest(name, COMMANDS)}", to_errors=True)
        raise SystemExit(USER_ERROR)
    _require_options(name, rest)
    run_command(name, rest)


def _require_options(name: str, arguments: Sequence[str]) -> None:
    """Refuse options that a command does not have, before the seconds that its imports take."""
    word = arguments[0] if arguments else "-"
    if name in WORD_OPTIONS and not word.startswith("-"):
        option = WORD_OPTIONS[name]
        meant = f"If {word!r} is what {option} takes, write `musicbox {name} {option} {word}`;"
        listed = f"`musicbox {name} --help` lists all options."
        said = f"{word!r} stands behind no option; each value needs one. {meant} {listed}"
        say(f"musicbox {name}: {said}", to_errors=True)
        raise SystemExit(USER_ERROR)
    for argument in arguments:
        option = argument.partition("=")[0].replace("_", "-")
        if not option.startswith("--") or option in (*OPTIONS[name], "--help"):
            continue
        near = " or ".join(get_close_matches(option, OPTIONS[name], n=2, cutoff=0.6))
        said = RENAMED.get((name, option)) or (f"Did you mean {near}?" if near else "")
        listed = f"`musicbox {name} --help` lists all."
        message = " ".join(filter(None, [f"there is no option {option}.", said, listed]))
        say(f"musicbox {name}: {message}", to_errors=True)
        raise SystemExit(USER_ERROR)


def run_command(name: str, arguments: Sequence[str]) -> None:
    """Parse the arguments of one subcommand and run it."""
    try:
        import tyro

        from musicbox_experiments.cluster.tasks import Where, connected
        from musicbox_experiments.option_types import plain_words

        module = import_module(f"musicbox_experiments.{COMMANDS[name][0]}")
    except ModuleNotFoundError as error:
        raise SystemExit(_without_extras(name, error)) from None
    config_type, config = getattr(module, f"{name.title().replace('-', '')}Config"), None
    try:
        default = module.defaults(arguments) if hasattr(module, "defaults") else None
        config = tyro.cli(
            config_type,
            prog=f"musicbox {name}",
            description=module.__doc__,
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes,),
            registry=plain_words(),
            **({} if default is None else {"default": default}),
        )
        where = Where(getattr(config, "workers", None) or 0, getattr(config, "cluster", None))
        with connected(where):
            module.run(config)
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("MUSICBOX_DEBUG"):
            raise
        raise SystemExit(_explain(name, error, getattr(config, "out", None))) from None


def _without_extras(name: str, error: ModuleNotFoundError) -> int:
    """Print which extra of the package a command needs; the exit code."""
    package = str(error.name).partition(".")[0]
    if package in PACKAGES:
        raise error
    say(
        f"musicbox {name}: {package} is not installed; commands need the extra [experiments]: "
        'pip install "musicbox-env[experiments]".',
        to_errors=True,
    )
    return USER_ERROR


def _explain(name: str, error: Exception, out: object) -> int:
    """Print what an error of a command means for its user; the exit code that goes with it."""
    if is_message(error) or (isinstance(error, OSError) and not is_nameless(error)):
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        if isinstance(error, OSError) and not is_message(error):
            said = next((what for kind, what in _OS_ERRORS if isinstance(error, kind)), None)
            if said is not None:
                message = f"{os.fspath(error.filename)!r}: {said}."
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            message = f"{error.strerror}."
            if error.filename is not None or not is_message(error):
                file = error.filename or out
                where = "" if file is None else f"{file}: "
                message = f"{where}{message} Make room and run the same command again."
        hint = "(MUSICBOX_DEBUG=1 shows where this came from.)"
        say(f"musicbox {name}: {message}\n{hint}", to_errors=True)
        return USER_ERROR
    trace = "".join(traceback.format_exception(error)).rstrip()
    say(
        trace,
        f"musicbox {name}: this is a fault of MusicBox, not of your input or options. Please "
        "report it with the lines above and the command; they may name files, but no plays.",
        to_errors=True,
    )
    return INTERNAL_ERROR


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: musicbox COMMAND [options]    (musicbox COMMAND --help explains them)",
            "",
            "Music recommendation by reinforcement learning, on listening sessions.",
            "",
            *lines,
            "",
            "musicbox --version prints which version this is.",
        ]
    )
