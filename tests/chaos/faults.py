"""What can go wrong, one row each, and which of it meets which round.

A fault begins at a random moment, lasts for a random time and ends; several overlap. They are dealt from a shuffled pack,
so that a few rounds see all of them, and a seed and a round's number always give the same plan.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from denoised.tests.chaos.plant import Plant
from denoised.tests.chaos.proxy import DOWN, UP

Act = Callable[[Plant, Random], None]


@dataclass(frozen=True)
class Fault:
    """`begin` now, `end` after `lasts` seconds (from, to). `needs_disk`: only where a disk can be filled."""

    begin: Act
    end: Act | None = None
    lasts: tuple[float, float] = (0.0, 0.0)
    needs_disk: bool = False


def _start(plant: Plant, rng: Random) -> None:
    plant.start()


def _any_child(plant: Plant, rng: Random) -> None:
    if children := plant.children():
        plant.worker_deaths += 1
        plant.signal([rng.choice(children)], signal.SIGKILL)


def _freeze_worker(plant: Plant, rng: Random) -> None:
    plant.worker_deaths += 1
    plant.signal(plant.children()[-1:], signal.SIGSTOP)


def _all_dead(plant: Plant, rng: Random) -> None:
    plant.kill_broker()
    plant.kill_daemon()


def _all_up(plant: Plant, rng: Random) -> None:
    plant.start_broker()
    plant.start()


def _reload(plant: Plant, rng: Random) -> None:
    if plant.daemon and plant.running:
        plant.daemon.send_signal(signal.SIGHUP)


def _swallow(plant: Plant, rng: Random) -> None:
    plant.proxy.swallow = rng.choice([{UP}, {DOWN}, {UP, DOWN}])


def _slow(plant: Plant, rng: Random) -> None:
    plant.proxy.delay = rng.uniform(0.01, 0.3)


def _heal_half_open(plant: Plant, rng: Random) -> None:
    """Only once the plant has been told the truth: the last will."""
    plant.wait(lambda: plant.status() != "online", "half open for long, and the retained status says online still")
    plant.proxy.heal()


def _heal_proxy(plant: Plant, rng: Random) -> None:
    plant.proxy.heal()


def _cut(plant: Plant, rng: Random) -> None:
    plant.proxy.cut()


def _full(plant: Plant, rng: Random) -> None:
    if plant.disk:
        plant.disk.fill()


def _room(plant: Plant, rng: Random) -> None:
    if plant.disk:
        plant.disk.free()


def _kill_at(moment: str) -> Act:
    """The supervisor dies at the worst time: when just this has left it, and before it arrives."""

    def arm(plant: Plant, rng: Random) -> None:
        plant.record.armed[moment] = plant.kill_supervisor

    return arm


def _cut_at(moment: str) -> Act:
    def arm(plant: Plant, rng: Random) -> None:
        plant.record.armed[moment] = plant.proxy.cut

    return arm


def _disarm_and_start(plant: Plant, rng: Random) -> None:
    plant.record.armed.clear()
    plant.start()


FAULTS: dict[str, Fault] = {
    "the worker is killed": Fault(lambda plant, rng: plant.kill_worker()),
    "some child is killed": Fault(_any_child),
    "the worker hangs": Fault(_freeze_worker),
    "the supervisor is killed": Fault(lambda plant, rng: plant.kill_supervisor(), _start, (0.0, 0.7)),
    "all of the daemon is killed": Fault(lambda plant, rng: plant.kill_daemon(), _start, (0.0, 0.7)),
    "the supervisor is killed at a PUBACK": Fault(_kill_at("puback"), _disarm_and_start, (0.3, 0.9)),
    "the supervisor is killed at a result": Fault(_kill_at("result"), _disarm_and_start, (0.5, 1.0)),
    "the supervisor is killed at a delivery": Fault(_kill_at("arrived"), _disarm_and_start, (0.5, 1.0)),
    "the daemon is stopped and started": Fault(lambda plant, rng: plant.stop(), _start, (0.0, 0.5)),
    "the config is reloaded": Fault(_reload),
    "the broker is killed": Fault(lambda plant, rng: plant.kill_broker(), lambda plant, rng: plant.start_broker(), (0.0, 1.5)),
    "the power is cut": Fault(_all_dead, _all_up, (0.0, 0.5)),
    "the connection is cut": Fault(_cut),
    "the connection is cut at a PUBACK": Fault(_cut_at("puback")),
    "the connection is cut at a result": Fault(_cut_at("result")),
    "the connection is half open": Fault(_swallow, _heal_half_open, (0.3, 2.0)),
    "the network is slow": Fault(_slow, _heal_proxy, (0.5, 2.5)),
    "the disk is full": Fault(_full, _room, (0.3, 1.5), needs_disk=True),
    "the disk fails": Fault(lambda plant, rng: plant.limit_files(0), lambda plant, rng: plant.limit_files(None), (0.3, 1.0)),
    "the clock jumps": Fault(lambda plant, rng: plant.set_clock(rng.choice([-86400.0, -3600.0, 0.0, 3600.0, 86400.0]))),
}
"""Name -> fault."""
PER_ROUND = 5


def deal(seed: int, round_: int, names: list[str]) -> list[str]:
    """The names of this round's faults: the next few of packs that are shuffled by the seed."""
    dealt = []
    for place in range(round_ * PER_ROUND, (round_ + 1) * PER_ROUND):
        pack, card = divmod(place, len(names))
        dealt.append(Random(f"{seed}-pack-{pack}").sample(names, len(names))[card])
    return dealt
