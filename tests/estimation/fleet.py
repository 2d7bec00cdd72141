"""A fleet that never was: models whose laws are wrong by known amounts, started again and again."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from heliosd.core.units import GiB
from heliosd.estimation.account import Term
from heliosd.estimation.calibration import Calibration, apply
from heliosd.estimation.loads import Asked, Load

Draw = Callable[[random.Random], float]


def normal(chance: random.Random) -> float:
    return chance.gauss(0, 1)


def heavy(chance: random.Random) -> float:
    """Student's t with 4 degrees of freedom, brought to a spread of 1."""
    square = sum(chance.gauss(0, 1) ** 2 for _ in range(4)) / 4
    return chance.gauss(0, 1) / square**0.5 / 2**0.5


def skewed(chance: random.Random) -> float:
    """Log-normal: mostly a little below, seldom far above."""
    return chance.lognormvariate(0, 0.7) - 1.28


@dataclass(frozen=True)
class Fleet:
    draw: Draw = normal
    """How laws err from architecture to architecture and from model to model."""
    bias: float = 0.0
    """What all laws are off by, as a share."""
    spread: float = 0.02
    """Of architectures, and again of models."""
    margin: float = 0.07
    """What the law says of itself; with the spread of 0.02 it is exceeded by 0.7 % of normal models."""
    absurd: float = 0.0
    """Share of measurements that say ten times what was taken."""
    models: int = 40
    architectures: int = 6
    loads: int = 150
    warm_up: int = 0
    """First loads that do not count: nothing is known yet."""
    fresh: bool = False
    """No model is ever started twice."""


@dataclass(frozen=True)
class Outcome:
    loads: int
    under: int
    """Terms that took more than 1 % above the upper end."""
    under_by_law: int
    """The same, had nobody learned."""
    excess: float
    """Of what was booked above what was taken: the median share."""

    @property
    def under_share(self) -> float:
        return self.under / self.loads


TERMS = ("weights", "overhead")


def play(fleet: Fleet, seeds: int) -> Outcome:
    """One history for each seed, both terms of each load counted."""
    under = under_by_law = 0
    excess: list[float] = []
    for seed in range(seeds):
        chance = random.Random(seed)
        architectures = [fleet.draw(chance) * fleet.spread for _ in range(fleet.architectures)]
        models = [
            (chance.randrange(fleet.architectures), chance.uniform(1, 60) * GiB, fleet.draw(chance) * fleet.spread)
            for _ in range(fleet.loads if fleet.fresh else fleet.models)
        ]
        past: list[Load] = []
        for turn in range(fleet.loads):
            model = turn if fleet.fresh else chance.randrange(fleet.models)
            architecture, size, off = models[model]
            asked = Asked("vllm 1.0.0", f"A{architecture}", "cuda", "H100", 1, "{}", f"r{model}")
            law = {"weights": round(size), "overhead": round(GiB + size / 10)}
            wrong = 1 + fleet.bias + architectures[architecture] + off
            noise = {"weights": 0.0002, "overhead": 0.01}
            took = {term: round(law[term] * (wrong + chance.gauss(0, noise[term]))) for term in TERMS}
            said = {term: term_of(law[term], fleet.margin) for term in TERMS}
            if turn >= fleet.warm_up:
                residuals = Calibration(past).residuals(asked, said)
                for term in TERMS:
                    booked = apply(said[term], residuals[term]).high_bytes
                    under += took[term] > 1.01 * booked
                    under_by_law += took[term] > 1.01 * said[term].high_bytes
                    excess.append(booked / took[term] - 1)
            factor = 10 if chance.random() < fleet.absurd else 1
            past.append(Load(asked, law, {term: took[term] * factor for term in TERMS}))
    return Outcome(len(excess), under, under_by_law, sorted(excess)[len(excess) // 2])


def term_of(likely_bytes: int, margin: float) -> Term:
    return Term(likely_bytes, round(likely_bytes * (1 - margin)), round(likely_bytes * (1 + margin)), "law")
