"""`denoised governor simulate`: what the governor will do on a board in its enclosure, before either is bought."""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...config import typed
from ..board.simulated import PRESETS, SimulatedBoard
from ..calibration import Calibration
from ..core.governor import Limits, Option
from ..rehearsal import Outcome, Work, rehearse

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_MARGIN_K = 2.0
"""The limit lies so far below the point where the board throttles, unless one is given."""
_SAMPLE_S = 4.0
"""Of the example at its best point on all cores."""


class Usage(ValueError):
    """What was asked for makes no sense."""


@dataclass(frozen=True)
class Menu:
    """Operating points and what to call them. source: where they come from, in words."""

    options: tuple[Option, ...]
    names: tuple[str, ...]
    source: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `denoised governor --help`."""
    presets = "; ".join(f"{name}: {p.words}" for name, p in PRESETS.items())
    parser.add_argument("what", choices=("simulate",), help="simulate: the real policy over a simulated board, in seconds")
    parser.add_argument("--board", required=True, choices=PRESETS, metavar="PRESET", help=presets)
    parser.add_argument("--hours", type=float, default=1.0, metavar="N", help="how long (1)")
    parser.add_argument("--ambient", default="25", metavar="C",
                        help="air around the board: a figure (25), C:C from one to another, or a file of seconds,C")  # fmt: skip
    parser.add_argument("--jobs", nargs="+", default=["bulk"], metavar="SPEC",
                        help="bulk[:samples=N,due=2h,floor=Q], always plenty where no samples are given; "
                        "realtime:every=10s,due=3s[,samples=N,floor=Q]")  # fmt: skip
    parser.add_argument("--objective", choices=("throughput", "energy"), default="throughput")
    parser.add_argument("--limit", type=float, metavar="C", help="temperature to stay below; 2 K below the throttle point")
    parser.add_argument("--no-clock", action="store_true", help="without the right to cap the clock")
    parser.add_argument("--calibration", type=Path, metavar="FILE.json", help="operating points of `denoised calibrate`")
    parser.add_argument("--out", type=Path, metavar="PNG", help="the picture")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def main(args: argparse.Namespace) -> int:
    """0 where the governor kept the limit, every deadline and the board alive; 1 where it could not; 2 on bad usage."""
    try:
        works, ambient, menu = [work(spec) for spec in args.jobs], weather(args.ambient, args.hours), _menu(args)
        if not 0 < args.hours <= 24 * 31:
            raise Usage(f"--hours: expected more than 0 and at most 744, found {args.hours:g}")
    except Usage as e:
        print(f"denoised governor: {e}", file=sys.stderr)
        return 2
    governed, alone = (_play(args, works, ambient, menu, governed) for governed in (True, False))
    if args.out is not None:
        from .governor_plot import plot

        try:
            plot(args.out, governed, alone, _title(args), _limit(args), menu.names)
        except OSError as e:
            print(f"denoised governor: {e}", file=sys.stderr)
            return 1
    if args.json:
        facts = {"board": args.board, "limit_c": _limit(args), "operating_points": menu.source}
        print(json.dumps({**facts, "governed": _facts(governed), "without": _facts(alone)}, indent=2))
    else:
        print("\n".join([_title(args), f"operating points: {menu.source}", *table(governed, alone)]))
        if args.out is not None:
            print(f"picture: {args.out}")
    return 0 if not (governed.throttle_events or governed.missed or governed.off or governed.unfinished >= 0.5) else 1


def work(spec: str) -> Work:
    """`bulk:samples=2400,due=1h` or `realtime:every=10s,due=3s`."""
    kind, _, rest = spec.partition(":")
    keys = {"bulk": ("samples", "due", "floor"), "realtime": ("every", "due", "samples", "floor")}
    if kind not in keys:
        raise Usage(f"--jobs: unknown kind '{kind}' in '{spec}', expected bulk or realtime")
    given: dict[str, float] = {}
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if key not in keys[kind]:
            raise Usage(f"--jobs: unknown '{key}' in '{spec}'{typed.did_you_mean(key, keys[kind])}")
        given[key] = _number(value, f"--jobs: {key} of '{spec}'", timed=key in ("due", "every"))
    if not 0 <= given.get("floor", 0.0) <= 1:
        raise Usage(f"--jobs: floor of '{spec}': expected 0 to 1, found {given['floor']:g}")
    for key in ("samples", "due", "every"):
        if given.get(key, 1.0) <= 0:
            raise Usage(f"--jobs: {key} of '{spec}': expected more than 0, found {given[key]:g}")
    if kind == "bulk":
        if "due" in given and "samples" not in given:
            raise Usage(f"--jobs: '{spec}' is due, but how many samples it has is not said: samples=N")
        return Work(given.get("samples", math.inf), due_s=given.get("due"), floor=given.get("floor", 0.0))
    if "every" not in given or "due" not in given:
        raise Usage(f"--jobs: '{spec}' needs every= and due=, as in realtime:every=10s,due=3s")
    return Work(given.get("samples", 1.0), given["every"], given["due"], given.get("floor", 0.0))


def weather(words: str, hours: float) -> Callable[[float], float]:
    """Seconds -> C: a constant, a straight line over the time, or what a CSV file of `seconds,C` says."""
    parts = words.split(":")
    if len(parts) <= 2 and all(_is_number(p) for p in parts):
        first, last = (_number(p, "--ambient", timed=False) for p in (parts[0], parts[-1]))
        for value in (first, last):
            if not -60 <= value <= 100:
                raise Usage(f"--ambient: expected -60 to 100 C, found {value:g}")
        return lambda t: first + (last - first) * t / (hours * 3600)
    try:
        with Path(words).open(newline="", encoding="utf-8") as f:
            rows = [(float(r[0]), float(r[1])) for r in csv.reader(f) if len(r) >= 2 and _is_number(r[0]) and _is_number(r[1])]
    except (OSError, UnicodeDecodeError) as e:
        found = e.strerror if isinstance(e, OSError) else "not a text"
        raise Usage(f"--ambient: expected C, C:C or a file of seconds,C; '{words}' cannot be read: {found}") from e
    if not rows or rows != sorted(rows):
        raise Usage(f"--ambient: {words}: expected lines of seconds,C with rising seconds, found {len(rows)} such lines")
    return lambda t: _between(rows, t)


def _between(rows: list[tuple[float, float]], t: float) -> float:
    for (a, low), (b, high) in zip(rows, rows[1:]):
        if a <= t < b:
            return low + (high - low) * (t - a) / (b - a)
    return rows[0][1] if t < rows[0][0] else rows[-1][1]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(text: str, where: str, timed: bool) -> float:
    """A number, with s, m or h behind it where it is a time."""
    unit = _SECONDS.get(text[-1:], 1.0) if timed else 1.0
    digits = text[:-1] if timed and text[-1:] in _SECONDS else text
    if not _is_number(digits):
        raise Usage(f"{where}: expected a number{' with s, m or h' if timed else ''}, found '{text}'")
    return float(digits) * unit


def _menu(args: argparse.Namespace) -> Menu:
    preset = PRESETS[args.board]
    if args.calibration is None:
        return example(preset.full_w - preset.idle_w)
    try:
        found = typed.read(json.loads(args.calibration.read_bytes()), Calibration)
    except OSError as e:
        raise Usage(f"--calibration: {args.calibration}: cannot be read: {e.strerror}") from e
    except (ValueError, RecursionError) as e:
        raise Usage(f"--calibration: {args.calibration}: no calibration: {e}") from e
    if not found.frontier:
        raise Usage(f"--calibration: {args.calibration}: has no operating points yet; run 'denoised calibrate' again")
    points = found.frontier
    seconds = [max(1e-6, p.sample_ms / 1000) for p in points]
    options = (Option(s, max(0.1, p.energy_j / s - preset.idle_w), max(0.0, 1 - p.distance)) for s, p in zip(seconds, points))
    names = (f"{p.variant} {p.steps} steps, batch {p.batch}, {p.threads} threads" for p in points)
    return Menu(tuple(options), tuple(names), f"{found.model} {found.version}, measured on {found.fingerprint.board}")


def example(full_w: float) -> Menu:
    """A made-up network on four cores: half as many steps are twice as fast, int8 is faster than fp32, and the last threads
    bring less than they draw. full_w: watts above idle of all cores."""
    options, names = [], []
    for variant, faster, draw, worse in (("fp32", 1.0, 1.0, 0.0), ("int8", 1.8, 0.92, 0.01)):
        for steps, quality in ((20, 1.0), (10, 0.98), (5, 0.95)):
            for threads, speed, share in ((4, 1.0, 1.0), (3, 0.82, 0.77), (2, 0.6, 0.53), (1, 0.32, 0.28)):
                options.append(Option(_SAMPLE_S * steps / 20 / faster / speed, share * draw * full_w, quality - worse))
                names.append(f"{variant} {steps} steps, {threads} threads")
    return Menu(
        tuple(options), tuple(names), "an example, not measured: 'denoised calibrate' measures yours, see --calibration"
    )


def _limit(args: argparse.Namespace) -> float:
    return float(args.limit) if args.limit is not None else PRESETS[args.board].throttle_c - _MARGIN_K


def _play(
    args: argparse.Namespace, works: list[Work], ambient: Callable[[float], float], menu: Menu, governed: bool
) -> Outcome:
    board = SimulatedBoard(preset=args.board, ambient_c=ambient(0.0), capped=not args.no_clock)
    limits = Limits(_limit(args), objective=args.objective)
    return rehearse(board, menu.options, works, limits, args.hours * 3600, ambient=ambient, governed=governed)


def _title(args: argparse.Namespace) -> str:
    return f"{PRESETS[args.board].words}, {args.ambient} C, {args.hours:g} h, {' '.join(args.jobs)}, {args.objective}"


def _facts(outcome: Outcome) -> dict[str, Any]:
    return {k: v for k, v in asdict(outcome).items() if k != "rows"}


def table(governed: Outcome, alone: Outcome) -> list[str]:
    """Both outcomes side by side."""
    rows: list[tuple[str, Callable[[Outcome], str]]] = [
        ("samples", lambda o: f"{o.samples:.0f}"),
        ("bulk samples late", lambda o: f"{o.unfinished:.0f}"),
        ("deadlines missed", lambda o: f"{o.missed} of {o.urgent}"),
        ("energy above idle", lambda o: f"{o.joules:.0f} J"),
        ("energy per sample", lambda o: f"{o.joules / o.samples:.2f} J" if o.samples else "-"),
        ("throttle events", lambda o: f"{o.throttle_events}"),
        ("time throttled", lambda o: f"{o.throttled_s:.0f} s"),
        ("hottest", lambda o: f"{o.hottest_c:.1f} C"),
        ("above the limit at most", lambda o: f"{max(0.0, o.over_k):.2f} K"),
        ("switched itself off", lambda o: "yes" if o.off else "no"),
    ]
    lines = [f"  {'':24} {'with the governor':>18} {'without':>18}"]
    return lines + [f"  {name:24} {show(governed):>18} {show(alone):>18}" for name, show in rows]
