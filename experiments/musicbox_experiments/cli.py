"""The ``musicbox`` command: each subcommand is a module of this package of that name."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from musicbox_env.schema import suggest

COMMANDS = {
    "compare": "train agents, judge them on sessions they never saw, write a report",
    "train": "train one agent over seeds",
    "frontier": "draw skips against variety for a trained agent under other acting settings",
    "ablate": "measure what each option of the DDPG agent is worth",
    "fit-listener": "learn a user simulator from logged sessions",
    "cross-validate": "hold the learned listener against boosting on training sessions",
    "fit-leaving": "learn when listeners leave from logged sessions",
    "evaluate": "judge the agents of a run again",
    "recommend": "print the next songs for a listening history",
    "ingest": "turn listening logs into a dataset folder",
    "describe": "print what is in a dataset folder",
    "trust": "report how far each listener can be believed",
    "pool-trust": "average trust reports over divisions of the same sessions",
    "export": "write logged sessions as a Minari data set",
    "benchmark": "measure speed and memory side by side with peers and limits",
    "synthesize": "make synthetic sessions, as a dataset folder or as raw logs",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand; errors that a user can mend are printed without a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"musicbox: no command {name!r}; {suggest(name, COMMANDS)}", file=sys.stderr)
        raise SystemExit(2)
    run_command(name, rest)


def run_command(name: str, arguments: Sequence[str]) -> None:
    """Parse the arguments of one subcommand and run it."""
    import tyro

    from musicbox_experiments.compare.presets import options_of, preset_in

    module = import_module(f"experiments.{name.replace('-', '_')}")
    config_type = getattr(module, f"{name.title().replace('-', '')}Config")
    try:
        preset = preset_in(arguments) if hasattr(config_type, "preset") else None
        config = tyro.cli(
            config_type,
            prog=f"musicbox {name}",
            description=module.__doc__,
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes,),
            **({} if preset is None else {"default": config_type(**options_of(preset))}),
        )
        module.run(config)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe had enough; nothing to tell
    except (ValueError, OSError, LookupError) as error:
        if os.environ.get("MUSICBOX_DEBUG"):
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(
            f"musicbox {name}: {message}\n(MUSICBOX_DEBUG=1 shows where this came from.)",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"\nmusicbox {name}: stopped.", file=sys.stderr)
        raise SystemExit(130) from None


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: musicbox COMMAND [options]    (musicbox COMMAND --help explains them)",
            "",
            "Music recommendation by reinforcement learning, on listening sessions.",
            "",
            *lines,
        ]
    )


if __name__ == "__main__":
    main()
