"""Traces with habits in them, made with a fixed seed: requests as (seconds, model), in the order of time."""

import random

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
Request = tuple[float, str]


def clocks(models: int = 100, days: float = 1.0) -> list[Request]:
    """Each model is asked for at a period of its own, from five minutes to two hours, some with a burst each time."""
    chance, found = random.Random(3), list[Request]()
    for number in range(models):
        period_s = chance.choice((300, 600, 900, 1800, 3600, 7200))
        late_s, times = chance.choice((1, 10, 30)), chance.choice((1, 1, 3, 20))
        at = chance.uniform(0, period_s)
        while at < days * DAY_S:
            began = at + abs(chance.gauss(0, late_s))
            found += [(began + turn * 2.0, f"c{number}") for turn in range(times)]
            at += period_s
    return sorted(found)


def chains(chains: int = 40, alone: int = 60, days: float = 1.0) -> list[Request]:
    """Three models after one another at random times, among others that come alone."""
    chance, found = random.Random(4), list[Request]()
    for number in range(chains):
        at = chance.expovariate(1 / 2400)
        while at < days * DAY_S:
            step_at = at
            for step in range(3):
                found.append((step_at, f"s{number}.{step}"))
                step_at += chance.uniform(5, 40)
                if chance.random() < 0.1:
                    break
            at += chance.expovariate(1 / 2400)
    for number in range(alone):
        rate = 10 ** chance.uniform(-5, -2)
        at = chance.expovariate(rate)
        while at < days * DAY_S:
            found.append((at, f"n{number}"))
            at += chance.expovariate(rate)
    return sorted(found)


def offices(models: int = 60, weeks: int = 4) -> list[Request]:
    """Each model is asked for at random, but only in some hours of some days of the week."""
    chance, found = random.Random(5), list[Request]()
    for number in range(models):
        hours = set(chance.sample(range(24), chance.choice((1, 2, 4, 8))))
        days = set(chance.sample(range(7), chance.choice((1, 5, 7))))
        rate = 10 ** chance.uniform(-3.5, -1.5)
        for hour in range(weeks * 168):
            if hour % 24 in hours and hour // 24 % 7 in days:
                at = hour * HOUR_S + chance.expovariate(rate)
                while at < (hour + 1) * HOUR_S:
                    found.append((at, f"o{number}"))
                    at += chance.expovariate(rate)
    return sorted(found)
