"""The outcome of an ablation: table for a terminal, page in markdown, picture, records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from musicbox_env.data.writing import write_json
from musicbox_experiments.compare import plots
from musicbox_experiments.compare.ablation import AGENT, BASES, CONFIDENCE, Base, Effect
from musicbox_experiments.evaluate.statistics import Estimate, interquartile_mean
from musicbox_experiments.text import columns, percent, signed_points

FORMAT_VERSION: Final = 1
HEADER: Final = (
    "nr",
    "option",
    "skips, points",
    "effective catalog size",
    "skip rate with",
    "without",
)


def write_ablation(out: Path, found: Sequence[Effect], about: Mapping[str, Any]) -> str:
    """Write ``ablate.json``, ``ablate.md`` and ``ablate-*.png``.

    Args:
        out: Folder of the run.
        found: The effects.
        about: How they were measured.

    Returns:
        The tables for a terminal.
    """
    records = [effect.record() for effect in found]
    write_json(out / "ablate.json", {"format_version": FORMAT_VERSION, **about, "effects": records})
    pictures = {}
    for base in BASES:
        of_base = [effect for effect in found if effect.pair.base == base]
        if of_base:
            picture = out / f"ablate-{base}.png"
            picture.write_bytes(plots.png(_drawn(of_base)))
            pictures[base] = picture.name
    (out / "ablate.md").write_text(_page(found, about, pictures), encoding="utf-8")
    blocks = [
        f"Around {title}: the agent with the option minus the agent without it\n"
        + columns([HEADER, *_rows(found, base)], left=2)
        for base, title in BASES.items()
        if any(effect.pair.base == base for effect in found)
    ]
    return "\n\n".join([*blocks, _legend(found, about)])


def _drawn(found: Sequence[Effect]) -> plots.Figure:
    points = {
        f"[{e.pair.departure.number}] {e.pair.departure.name}": (
            _point(e.skip_rate),
            _point(e.effective_catalog_size),
        )
        for e in found
    }
    return plots.effects(points, labels=("skip rate, points", "effective catalog size"))


def _point(estimate: Estimate) -> plots.Point:
    return plots.Point(estimate.value, estimate.low, estimate.high)


def _rows(found: Sequence[Effect], base: Base) -> list[tuple[str, ...]]:
    """One row an option, in the order of the page."""
    rows: list[tuple[str, ...]] = []
    for effect in found:
        if effect.pair.base != base:
            continue
        option = effect.pair.departure
        mark = "*" if base == "default" and option.in_defaults else ""
        rates = {
            side: float(interquartile_mean(effect.values[side]["skip_rate"]))
            for side in ("present", "absent")
        }
        rows.append(
            (
                str(option.number),
                option.name + mark,
                _interval(effect.skip_rate, signed_points),
                _interval(effect.effective_catalog_size, lambda value: f"{value:+.0f}"),
                percent(rates["present"]),
                percent(rates["absent"]),
            )
        )
    return rows


def _interval(estimate: Estimate, text: Any) -> str:
    if estimate.low is None or estimate.high is None:
        return str(text(estimate.value))
    return f"{text(estimate.value)} [{text(estimate.low)}, {text(estimate.high)}]"


def _legend(found: Sequence[Effect], about: Mapping[str, Any]) -> str:
    chance = (1 - CONFIDENCE) * len(found)
    sure = sum(_excludes_zero(effect.skip_rate) for effect in found)
    return (
        f"{about['sessions']:,} {about['split']} sessions, evaluator {about['evaluator']}, trained "
        f"with {about['trained_with']}, checkpoints picked by {about['picked_by']} on other "
        f"validation sessions, {about['seeds']} paired seeds of {about['train_steps']:,} "
        f"slates. Below 0 points is fewer skips. [ ] {percent(CONFIDENCE, 0)} intervals: of skips "
        "over sessions and seeds, of songs over seeds. * in the agent's defaults.\n"
        f"{sure} of {len(found)} intervals of skips leave out 0; if no option did anything, about "
        f"{chance:.1f} would by chance."
    )


def _excludes_zero(estimate: Estimate) -> bool:
    if estimate.low is None or estimate.high is None:
        return False
    return estimate.low > 0 or estimate.high < 0


def _page(found: Sequence[Effect], about: Mapping[str, Any], pictures: Mapping[Base, str]) -> str:
    """The same as markdown."""
    parts = [f"# What each option of `{AGENT}` is worth", _legend(found, about)]
    for base, picture in pictures.items():
        rows = _rows(found, base)
        parts += [
            f"## Around {BASES[base]}",
            "The agent with the option minus the agent without it.",
            "\n".join(
                [
                    "| " + " | ".join(HEADER) + " |",
                    "|" + " --- |" * len(HEADER),
                    *("| " + " | ".join(row) + " |" for row in rows),
                ]
            ),
            f"![Effects around {BASES[base]}]({picture})",
        ]
    options = {effect.pair.departure.name: effect.pair.departure for effect in found}
    parts += [
        "## The options",
        "\n".join(
            [
                "| nr | option | what it is | without | with | both sides |",
                "| --- | --- | --- | --- | --- | --- |",
                *(
                    f"| {o.number} | {o.name} | {o.about} | {_settings(o.published)} | "
                    f"{_settings(o.taken)} | {_settings(o.needs)} |"
                    for o in options.values()
                ),
            ]
        ),
        "## Reproduce",
        f"```\n{about['command']}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in values.items())
