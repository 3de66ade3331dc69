"""Whether the temperature sensor is to be believed, judged by the thermal model. Pure.

Distrusted is what does not answer, what no board survives (also Kelvin or millidegrees), what jumps further than heat can, and
what stands still while the load moves. The last needs a second filter, the shadow: it starts where a run of equal readings
starts and believes none of them. When the run becomes impossible under it, the shadow is what the board is like. A sensor is
believed again when it agrees with the model a few times in a row, or when it has told a steady story of its own for so long
that the model must be wrong.
"""

from __future__ import annotations

import math

from .thermal import Thermal

_COLDEST_C, _HOTTEST_C = -40.0, 130.0
_AGREE = 3
"""Readings in a row that agree with the model before the sensor is believed again."""
_STORY = 30
"""Plausible readings in a row, moving as heat does, before it is believed against the model."""
_MOVES_K = 0.8
"""A sensor that stands still is stuck when the die must have moved out of its step by more than this."""
_NEVER = 1e-4
"""Less likely than this is impossible."""


class Sensor:
    """What is known of the sensor. step: K between neighbouring readings; noise: K, standard deviation before rounding."""

    def __init__(self) -> None:
        self.step, self.noise = 0.25, 0.15
        self.why: str | None = None
        """Why it is not believed; None: it is."""
        self._last: list[float] = []
        self._run = 0
        self._shadow: Thermal | None = None
        self._stuck: float | None = None
        self._good = self._seen = 0
        self._story: list[float] = []
        self._flicker = 0.0

    @staticmethod
    def possible(temp_c: float) -> bool:
        """A board can be so, and a sensor that gives 0 says nothing."""
        return math.isfinite(temp_c) and _COLDEST_C <= temp_c <= _HOTTEST_C and temp_c != 0

    def predict(self, dt: float, watts: float) -> None:
        """The shadow goes on."""
        if self._shadow is not None:
            self._shadow.predict(dt, watts, seen=False)

    def judge(self, temp_c: float | None, problem: str | None, model: Thermal) -> Thermal:
        """Takes one reading; corrects and returns the model, or the one to go on with where the sensor is found stuck."""
        why = self._doubt(temp_c, problem, model)
        if why == "stuck" and self._stuck is None:
            self._stuck = temp_c
            if self._shadow is not None and self.why is None:
                model = self._shadow.copy()
        if why is not None:
            self._good = 0
            self.why = self._words(why, temp_c)
            if why != "jump" or temp_c is None:
                self._story.clear()
            elif self._tells(temp_c):
                self._story.clear()
                self._forget()
                self.why = None
                return model.moved(temp_c)
        elif temp_c is not None:
            self._good += 1
            if self.why is None or self._good >= _AGREE:
                self.why = None
                model.correct(temp_c, self.step, self.noise)
                self._learn(temp_c)
        if temp_c is not None:
            if not self._last or temp_c != self._last[-1]:
                self._run, self._shadow = 0, model.copy()
            self._run += 1
            self._last = [*self._last[-2:], temp_c]
        return model

    def _doubt(self, temp_c: float | None, problem: str | None, model: Thermal) -> str | None:
        if temp_c is None:
            return problem or "no answer"
        if not self.possible(temp_c):
            return "impossible"
        if abs(temp_c - model.die_c) > 1.5 + self.step + 4 * math.hypot(model.die_sd, self.noise):
            return "jump"
        same = bool(self._last) and temp_c == self._last[-1]
        if self._stuck is not None:
            if temp_c == self._stuck:
                return "stuck"
            self._stuck = None
        if same and self._run >= 5 and self._shadow is not None:
            far = abs(self._shadow.die_c - temp_c) - self.step / 2
            if far > _MOVES_K and self._shadow.chance(temp_c, self.step, self.noise) < _NEVER:
                return "stuck"
            often = math.erf(self.step / 2 / (self.noise * math.sqrt(2)))
            if self._seen > 60 and self.noise > max(self.step, 0.04) and self._run * -math.log(often) > 18:
                return "stuck"
        return None

    def _words(self, why: str, temp_c: float | None) -> str:
        if temp_c is None:
            return why
        return f"{why} at {temp_c:g} C"

    def _tells(self, temp_c: float) -> bool:
        """A sensor that moves as heat does, for long enough."""
        if self._story and abs(temp_c - self._story[-1]) > 2.0 + self.step:
            self._story.clear()
        self._story.append(temp_c)
        return len(self._story) >= _STORY and len(set(self._story)) >= 3

    def _forget(self) -> None:
        self._last.clear()
        self._run, self._shadow = 0, None

    def _learn(self, temp_c: float) -> None:
        """Step and noise: noise turns back at once, heat does not, so neighbouring differences of opposite sign are noise."""
        self._seen += 1
        if self._last:
            diff = abs(temp_c - self._last[-1])
            if diff > 0.004:
                self.step = diff if self._seen < 60 and self.step == 0.25 else min(self.step, diff)
        if len(self._last) >= 2:
            a, b = self._last[-1] - self._last[-2], temp_c - self._last[-1]
            self._flicker += (min(1.0, -a * b) - self._flicker) / min(self._seen, 120)
            # Turning back between two neighbouring steps is what a reading on their border does, with next to no noise.
            flicker, border = max(0.0, self._flicker), self.step**2 / 4
            if self._seen > 20:
                self.noise = min(0.6, max(0.03, math.sqrt(min(flicker, border) / 4 + max(0.0, flicker - border))))
