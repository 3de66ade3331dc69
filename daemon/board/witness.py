"""What a board admits to, in words: a supply that sags, over-current, throttling. Nobody sees the lightning bolt on a
gateway without a screen, so it is said as problems for people and as news for the log. Pure.
"""

from __future__ import annotations

from dataclasses import replace

from ..core.reading import Reading, Traits

_WANTED_A = 5.0
_FLAGS = ("under_voltage", "throttled")
_COUNTERS = ("under_voltage_events", "over_current_events", "throttle_events")


def known(before: Reading | None, reading: Reading) -> Reading:
    """The reading, with what it does not answer as it was known before: silence neither begins nor ends anything."""
    if before is None:
        return reading
    silent = [name for name in _FLAGS + _COUNTERS if getattr(reading, name) is None]
    return replace(reading, **{name: getattr(before, name) for name in silent})


def problems(reading: Reading, traits: Traits) -> list[str]:
    """What a person should see to, the worst first. reading: with what is `known`."""
    found = []
    if reading.under_voltage or reading.under_voltage_events:
        when = "now" if reading.under_voltage else f"{_times(reading.under_voltage_events)} since boot"
        weak = f" (it promises {traits.supply_a:g} A, {_WANTED_A:g} A are wanted)" if _weak(traits) else ""
        found.append(f"under-voltage {when}: the power supply or its cable is too weak{weak}; the board may go off under load")
    if reading.throttled:
        found.append("throttled now: the board slows itself down; see to cooling and supply")  # no figure: it is retained
    elif reading.throttle_events:
        found.append(f"throttled {_times(reading.throttle_events)} since boot: see to cooling and supply")
    return found


def news(before: Reading | None, reading: Reading) -> list[str]:
    """Lines for the log about what has begun, ended or been counted since the reading before; none where nothing has.
    Both with what is `known`."""
    found, before = [], before or Reading(reading.at, None)
    heat = "" if reading.temp_c is None else f" at {reading.temp_c:.1f} C"
    if reading.under_voltage is not None and reading.under_voltage != bool(before.under_voltage):
        found.append("under-voltage: the supply sags" if reading.under_voltage else "under-voltage is over")
    elif _more(before.under_voltage_events, reading.under_voltage_events):
        found.append(f"under-voltage {_times(reading.under_voltage_events)} since boot")
    if reading.throttled is not None and reading.throttled != bool(before.throttled):
        found.append(f"throttling began{heat}" if reading.throttled else f"throttling ended{heat}")
    elif _more(before.throttle_events, reading.throttle_events):
        found.append(f"throttled {_times(reading.throttle_events)} since boot")
    if _more(before.over_current_events, reading.over_current_events):
        found.append(f"over-current protection acted {_times(reading.over_current_events)} since boot")
    return found


def _weak(traits: Traits) -> bool:
    return traits.supply_a is not None and traits.supply_a < _WANTED_A


def _more(before: int | None, now: int | None) -> bool:
    return now is not None and now > (before or 0)


def _times(count: int | None) -> str:
    return "once" if count == 1 else f"{count or 0} times"
