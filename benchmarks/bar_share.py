"""What predictors get of the bar's gain over constants, one run's simulations at a time.

Under `aged` and `srw` the gain is in seconds from arrival to end, under `triage` in missed
deadlines. `simulated` runs in a process of its own for each run; `added` brings them together.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from malearn.learning import knowledge, simulation
from malearn.learning.knowledge import Knowledge
from malearn.learning.policy_comparison import Settings
from malearn.learning.simulated_predictors import Constants, Noisy, Predictor

__all__ = ["Makers", "Totals", "added", "ends_of_the_scale", "share", "simulated"]

#: By policy, predictor and seed: seconds from arrival to end, missed deadlines under triage.
Totals = Mapping[tuple[str, str, int], float]
#: By the name of a predictor what makes it for a seed.
Makers = Mapping[str, Callable[[int], Predictor]]

_DEFAULT, _BAR = "default", "bar"


def ends_of_the_scale(sigma: float) -> Makers:
    """Constants, which get nothing of the gain, and the bar of noise `sigma`, which gets it all."""
    return {_DEFAULT: lambda seed: Constants(), _BAR: lambda seed: Noisy(sigma, seed)}


def simulated(known: Knowledge, makers: Makers, settings: Settings) -> Totals:
    """What the run's workflows take at all loads, seeds and policies of `settings`, under its first
    deadline."""
    found: dict[tuple[str, str, int], float] = defaultdict(float)
    slots = settings.slots[settings.resource]
    for load, seed in itertools.product(settings.loads, range(settings.seeds)):
        assert load is not None
        arrivals = knowledge.poisson(known.run, load, slots, settings.resource, seed, known.begins)
        for (name, make), policy in itertools.product(makers.items(), settings.policies):
            done = simulation.simulate(
                arrivals, policy, make(seed), settings.slots, settings.deadlines[0]
            )
            found[policy, name, seed] += sum(
                one.late if policy == "triage" else one.seconds for one in done
            )
    return dict(found)


def added(runs: Iterable[Totals]) -> Totals:
    """The totals of all `runs`."""
    totals: dict[tuple[str, str, int], float] = defaultdict(float)
    for found in runs:
        for key, value in found.items():
            totals[key] += value
    return totals


def share(totals: Totals, policy: str, name: str, seeds: Collection[int]) -> float:
    """The share of the bar's gain under `policy` that predictor `name` got over `seeds`."""
    default, own, bar = (
        sum(totals[policy, who, seed] for seed in seeds) for who in (_DEFAULT, name, _BAR)
    )
    # Of few runs the bar may miss as many deadlines as constants.
    return (default - own) / ((default - bar) or math.nan)
