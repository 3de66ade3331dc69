"""Faults at random moments, and the promise afterwards: one final result for each job, and the bytes of an undisturbed run.

`make chaos` plays many rounds (CHAOS_ROUNDS, CHAOS_SEED); a few run with the tests. A failure names its seed and round:
`make chaos CHAOS_SEED=3 CHAOS_ROUND=17` plays that one again. The plan is the same then, the machine's own timing is not.
What must hold is in `rounds.settle`; where the promise starts, in `record`.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter

import pytest
from denoised.demo.broker import find_mosquitto
from denoised.tests.chaos.plant import Plant
from denoised.tests.chaos.rounds import COUNTS, plan, play, settle

SEED = int(os.environ.get("CHAOS_SEED", "1"))
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "3"))
ONLY = os.environ.get("CHAOS_ROUND")
NUMBERS = range(ROUNDS) if ONLY is None else [int(ONLY)]


class Chaos:
    """The plant of all rounds; one that broke its promise is replaced by a fresh one."""

    def __init__(self, tmp_path_factory, models):
        self._factory, self._models = tmp_path_factory, models
        self.plant: Plant | None = None
        self.calm: dict[tuple[int, int], str] = {}

    def fresh(self) -> Plant:
        if self.plant is None:
            self.plant = Plant(self._factory.mktemp("plant"), self._models)
            self.plant.__enter__()
            if not (self.plant.disk and self.plant.disk.can_be_filled):
                warnings.warn("only root may mount a tmpfs: a full disk is not tried, a failing one is", stacklevel=1)
            self._calm_down(self.plant)
        return self.plant

    def _calm_down(self, plant: Plant) -> None:
        """What each kind of request gives where nothing disturbs it."""
        wanted = {(seed, count): f"calm-{seed}-{count}" for seed in range(2) for count in COUNTS}
        for (seed, count), name in wanted.items():
            plant.requester.submit({"id": name, "seed": seed, "params": {"count": count}})
        plant.wait(lambda: all(plant.record.known(n).arrived for n in wanted.values()), "no results in all calm")
        self.calm = {kind: plant.record.known(n).result["artifacts"][0]["sha256"] for kind, n in wanted.items()}  # type: ignore[index]

    def close(self) -> None:
        if self.plant:
            self.plant.__exit__()
        self.plant = None


@pytest.fixture(scope="module")
def chaos(tmp_path_factory, toy_models):
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: sudo apt-get install mosquitto")
    made = Chaos(tmp_path_factory, toy_models)
    yield made
    made.close()


@pytest.mark.parametrize("number", NUMBERS)
def test_whatever_fails_each_job_has_one_result_and_its_own_bytes(chaos, number):
    plant = chaos.fresh()
    made, before = plan(plant, SEED, number), len(plant.logged())
    why = ""
    try:
        play(plant, made)
        settle(plant, made, chaos.calm)
    except AssertionError as e:
        story, log = "\n".join(made.story), plant.logged()[before:][-6000:]
        again = f"make chaos CHAOS_SEED={SEED} CHAOS_ROUND={number}"
        why = f"{e}\n\nplay it again: {again}\nthe round:\n{story}\nthe daemon:\n{log}"
        chaos.close()
    if why:  # outside of the except block, which pytest would tell about once more
        pytest.fail(why, pytrace=False)
    results = [plant.record.known(i).result for i in made.requests]
    resumed = sum("resumed_steps" in result for result in results)
    states = dict(Counter(result["state"] for result in results))
    print(f"{made.name}: {states}, {resumed} resumed; {'; '.join(made.dealt)}")
