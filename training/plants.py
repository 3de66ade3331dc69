"""Random synthetic plants: what the universal imputation network is trained on. No recording of a real plant is used.

A plant is a handful of latent factors (noise of short and long memory, oscillation, daily cycles, batch cycles, on-off
states, set points, bursts) that reach its sensors through sparse loadings with transport delays and thermal lags; each
sensor then has its own characteristic (saturation, valve, quantisation, dead band), noise and drift. Half-way through the
plant may change its regime, what follows what may drift over the whole recording, and by day all may be livelier than by
night. Everything is a function of the generator that is handed in. numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Rng = np.random.Generator
Shape = tuple[int, ...]


def plant(rng: Rng, tags: int, rows: int) -> np.ndarray:
    """One recording (rows, tags), float64, each tag in units of its own."""
    factors = int(rng.integers(1, tags + 2))
    menu = rng.choice(len(_FACTORS), size=rng.integers(1, 5), p=_SHARES)
    latent = np.stack([_unit(_FACTORS[rng.choice(menu)](rng, rows)) for _ in range(factors)], 1)
    lively = _lively(rng, rows)
    latent *= np.where(rng.random(factors) < 0.7, lively[:, None], 1)
    loadings = _loadings(rng, factors, tags)
    other = np.where(rng.random(loadings.shape) < 0.5, loadings, _loadings(rng, factors, tags))
    changed = _changed(rng, rows)[:, None]
    columns = _carried(rng, latent * (1 - changed), loadings) + _carried(rng, latent * changed, other)
    own = rng.random(tags) < 0.4  # sensors that also live a life of their own
    for k in np.flatnonzero(own).tolist():
        columns[:, k] += rng.uniform(0.1, 1.2) * _unit(_FACTORS[rng.choice(menu)](rng, rows))
    columns = _unit(columns)
    noisy = rng.choice([0.0, 0.02, 0.1, 0.3], p=[0.2, 0.3, 0.3, 0.2])
    for k in range(tags):
        columns[:, k] = _sensor(rng, columns[:, k], latent, noisy, lively)
    return columns * rng.lognormal(0, 1, tags) + rng.normal(0, 3, tags)


def _lively(rng: Rng, rows: int) -> np.ndarray:
    """(rows,) positive: by how much factors swing more at some hours than at others; mostly 1."""
    if rng.random() < 0.6:
        return np.ones(rows)
    phase = 2 * np.pi * (np.arange(rows) / rng.choice([24.0, 24.0, 48.0, 96.0, float(rng.integers(8, 169))]) + rng.random())
    wave = sum(rng.normal(0, 0.5 / n) * np.sin(n * phase + rng.uniform(0, 6.3)) for n in range(1, 4))
    out: np.ndarray = np.exp(wave)
    return out


def _changed(rng: Rng, rows: int) -> np.ndarray:
    """(rows,) 0 ... 1: how far the plant has gone over to its other loadings: not at all, at one row, or to and fro slowly."""
    kind = rng.random()
    if kind < 0.5:
        return np.zeros(rows)
    if kind < 0.7:
        return (np.arange(rows) > rng.integers(rows // 10, rows)).astype(float)
    out: np.ndarray = 1 / (
        1 + np.exp(-rng.normal(-0.5, 1) - _unit(_smoothed(rng.standard_normal(rows), rows / rng.uniform(2, 12))))
    )
    return out


def _loadings(rng: Rng, factors: int, tags: int) -> np.ndarray:
    weight = rng.standard_normal((factors, tags)) * rng.lognormal(0, 0.5, (factors, 1))
    return weight * (rng.random((factors, tags)) < rng.uniform(0.3, 1.0))


def _carried(rng: Rng, latent: np.ndarray, loadings: np.ndarray) -> np.ndarray:
    """Factors at the sensors (rows, tags): delayed by up to 12 rows and, at some sensors, smoothed by a thermal lag."""
    tags = loadings.shape[1]
    late = rng.random() < 0.5
    out = np.empty((len(latent), tags))
    for k in range(tags):
        delay = int(rng.integers(0, 13)) if late else 0
        column = np.roll(latent, delay, axis=0) @ loadings[:, k]
        out[:, k] = _smoothed(column, rng.uniform(2, 30)) if rng.random() < 0.2 else column
    return out


def _sensor(rng: Rng, x: np.ndarray, latent: np.ndarray, noisy: float, lively: np.ndarray) -> np.ndarray:
    """A sensor's own characteristic, then its noise, drift and resolution."""
    shape = rng.choice(8, p=[0.52, 0.1, 0.08, 0.08, 0.06, 0.08, 0.04, 0.04])
    if shape == 1:
        x = np.tanh(x * rng.uniform(0.7, 2))
    elif shape == 2:
        x = np.exp(x * rng.uniform(0.3, 0.8))
    elif shape == 3:
        x = np.clip(x, *np.quantile(x, [rng.uniform(0, 0.4), rng.uniform(0.7, 1)]))
    elif shape == 4:
        x = x + rng.uniform(0.2, 0.6) * x**2
    elif shape == 5:  # behind a valve
        x = np.where(latent[:, rng.integers(latent.shape[1])] > rng.normal(0, 0.7), x + rng.uniform(0, 2), rng.normal(0, 0.3))
    elif shape == 6:  # reports only changes larger than a dead band
        x = _held(x, rng.uniform(0.1, 0.5))
    elif shape == 7:  # a switch
        x = (x > rng.normal(0, 0.7)).astype(float)
    level = noisy * rng.lognormal(0, 0.7) if rng.random() < 0.8 else rng.uniform(0, 2)
    x = _unit(x) + level * _noise(rng, len(x)) * (lively if rng.random() < 0.5 else 1)
    if rng.random() < 0.1:  # rare spikes
        x = x + (rng.random(len(x)) < rng.uniform(0.001, 0.02)) * rng.standard_t(3, len(x)) * rng.uniform(1, 4)
    if rng.random() < 0.15:  # drift
        x = x + rng.normal(0, 1) * np.linspace(0, 1, len(x))
    if rng.random() < 0.15:  # a shifted zero, as after a service
        x = x + rng.normal(0, 0.7) * (np.arange(len(x)) > rng.integers(len(x)))
    if rng.random() < 0.3:
        step = rng.choice([0.02, 0.1, 0.3, 0.7, 1.3])
        x = np.round(x / step) * step
    return x


def _noise(rng: Rng, rows: int) -> np.ndarray:
    kind = rng.integers(4)
    if kind == 0:
        e = rng.standard_t(rng.uniform(2.5, 6), rows)
    elif kind == 1:
        e = rng.laplace(size=rows)
    else:
        e = rng.standard_normal(rows)
    if kind == 3:  # loud and quiet times
        e = e * np.exp(rng.uniform(0.3, 1) * _unit(_memory(rng, rows)))
    return np.clip(_unit(e), -8, 8)


# ------------------------------------------------------------------ latent factors, each (rows,)
def _memory(rng: Rng, rows: int) -> np.ndarray:
    """AR(1), memory from one row to the whole recording."""
    return _smoothed(_shocks(rng, rows), np.exp(rng.uniform(0, np.log(1500))))


def _smooth(rng: Rng, rows: int) -> np.ndarray:
    """Twice smoothed: temperatures of heavy bodies."""
    tau = np.exp(rng.uniform(0.7, np.log(200)))
    return _smoothed(_smoothed(_shocks(rng, rows), tau), tau * rng.uniform(0.2, 1))


def _oscillation(rng: Rng, rows: int) -> np.ndarray:
    """AR(2) with complex poles: a loop that hunts."""
    radius, w = 1 - np.exp(rng.uniform(np.log(0.005), np.log(0.3))), 2 * np.pi / np.exp(rng.uniform(np.log(4), np.log(120)))
    return _filtered(_shocks(rng, rows), [1.0], [1.0, -2 * radius * np.cos(w), radius**2])


def _arma(rng: Rng, rows: int) -> np.ndarray:
    """A random stable ARMA(2, 2)."""
    poles = rng.uniform(-0.5, 0.98, 2)
    return _filtered(_shocks(rng, rows), [1.0, *rng.normal(0, 0.6, 2)], list(np.poly(poles)))


def _season(rng: Rng, rows: int) -> np.ndarray:
    """A cycle with harmonics whose height breathes: day and night, shifts."""
    period = rng.choice([24.0, 24.0, 48.0, 60.0, 96.0, 144.0, 168.0, np.exp(rng.uniform(np.log(8), np.log(600)))])
    phase = 2 * np.pi * (np.arange(rows) / period + rng.random()) + rng.uniform(0, 0.5) * _unit(_smooth(rng, rows))
    wave = sum(rng.normal(0, 1 / n) * np.sin(n * phase + rng.uniform(0, 6.3)) for n in range(1, int(rng.integers(2, 7))))
    out: np.ndarray = wave * (1 + rng.uniform(0, 0.5) * _unit(_memory(rng, rows))) + rng.uniform(0, 1) * _unit(
        _memory(rng, rows)
    )
    return out


def _states(rng: Rng, rows: int) -> np.ndarray:
    """On and off with random durations: pumps, heaters."""
    on, off = np.exp(rng.uniform(np.log(3), np.log(150), 2))
    lengths = np.stack([rng.exponential(on, rows) + 1, rng.exponential(off, rows) + 1], 1).reshape(-1)
    return (np.searchsorted(np.cumsum(lengths), np.arange(rows)) % 2).astype(float)


def _setpoints(rng: Rng, rows: int) -> np.ndarray:
    """Levels that an operator chooses, sometimes approached along a first-order lag."""
    level = np.cumsum(rng.random(rows) < 1 / np.exp(rng.uniform(np.log(10), np.log(300))))
    x = rng.standard_normal(int(level[-1]) + 1)[level]
    return _smoothed(x, rng.uniform(1, 20)) if rng.random() < 0.5 else x


def _batch(rng: Rng, rows: int) -> np.ndarray:
    """A machine cycle: the same shape again and again, its length jittering."""
    period = np.exp(rng.uniform(np.log(6), np.log(200)))
    pace = np.cumsum(np.exp(rng.uniform(0, 0.3) * rng.standard_normal(rows))) / period
    shape = _smoothed(rng.standard_normal(64), rng.uniform(1, 10))
    return np.interp(pace % 1 * 64, np.arange(65), np.append(shape, shape[0]))


def _bursts(rng: Rng, rows: int) -> np.ndarray:
    """Rare kicks that die away: load strokes, door openings."""
    kicks = (rng.random(rows) < rng.uniform(0.005, 0.1)) * rng.exponential(1, rows)
    return _smoothed(kicks, np.exp(rng.uniform(0, np.log(40))))


_FACTORS: tuple[Callable[[Rng, int], np.ndarray], ...] = (
    _memory, _smooth, _oscillation, _arma, _season, _states, _setpoints, _batch, _bursts,
)  # fmt: skip
_SHARES = np.array([0.2, 0.12, 0.08, 0.1, 0.2, 0.08, 0.08, 0.08, 0.06])


def _shocks(rng: Rng, rows: int) -> np.ndarray:
    return rng.standard_t(3.0, rows) if rng.random() < 0.25 else rng.standard_normal(rows)


# ------------------------------------------------------------------ small tools
def _unit(x: np.ndarray) -> np.ndarray:
    out: np.ndarray = (x - x.mean(0)) / (x.std(0) + 1e-9)
    return out


def _smoothed(x: np.ndarray, tau: float) -> np.ndarray:
    """First-order lag with time constant tau rows."""
    return _filtered(x, [1 - np.exp(-1 / tau)], [1.0, -np.exp(-1 / tau)])


def _filtered(x: np.ndarray, b: list[float], a: list[float]) -> np.ndarray:
    """The rational filter b(z) / a(z) along the rows, circular (by its frequency response)."""
    z = np.exp(-2j * np.pi * np.fft.rfftfreq(len(x)))
    response = np.polyval(b[::-1], z) / np.polyval(a[::-1], z)
    return np.fft.irfft(np.fft.rfft(x) * response, len(x))


def _held(x: np.ndarray, band: float) -> np.ndarray:
    """Keeps its last value until the input has moved by more than `band`."""
    out, last = np.empty_like(x), x[0]
    for i, value in enumerate(x):
        if abs(value - last) > band:
            last = value
        out[i] = last
    return out


# ------------------------------------------------------------------ what drops out
PATTERNS = ("point", "block", "dead", "blackout", "tail", "mixed")


def dropout(rng: Rng, rows: int, tags: int) -> np.ndarray:
    """(rows, tags) True = missing, never all: cells alone, blocks of a sensor, dead sensors, all at once, the newest rows."""
    kind = rng.choice(PATTERNS, p=[0.38, 0.18, 0.14, 0.14, 0.08, 0.08])
    mask = np.zeros((rows, tags), bool)
    if kind in ("point", "mixed"):
        share = rng.choice([0.1, 0.5, 0.9, rng.uniform(0.02, 0.95)]) if kind == "point" else rng.uniform(0.02, 0.4)
        mask |= rng.random((rows, tags)) < share
    if kind in ("block", "mixed"):
        hit = rng.random(tags) < 0.5
        hit[rng.integers(tags)] = True
        for k in np.flatnonzero(hit):
            n = int(rng.integers(5, min(31, rows)))
            at = int(rng.integers(0, rows - n + 1))
            mask[at : at + n, k] = True
    if kind == "dead" and tags > 1:
        mask[:, rng.permutation(tags)[: 1 if rng.random() < 0.8 else rng.integers(1, tags)]] = True
    if kind == "blackout" or (kind == "dead" and tags == 1):
        n = int(rng.integers(5, min(31, rows)))
        at = int(rng.integers(0, rows - n + 1))
        mask[at : at + n] = True
    if kind == "tail":
        mask[rows - int(rng.integers(1, 9)) :, rng.random(tags) < rng.uniform(0.2, 1)] = True
    if rng.random() < 0.05:  # a window shorter than the model's
        mask[: int(rng.integers(1, rows // 2))] = True
    if mask.all():
        mask[rng.integers(rows), rng.integers(tags)] = False
    if not mask.any():
        mask[rng.integers(rows), rng.integers(tags)] = True
    return mask
