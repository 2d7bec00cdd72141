"""Carries the scheduler's commands to the engines and to those who wait. What is slow gets a task of its own."""

import asyncio
import logging
from typing import assert_never

from heliosd.core.causes import eviction_cause
from heliosd.core.messages import (
    Command,
    DrainReplica,
    Forward,
    Grant,
    Hold,
    Note,
    Refuse,
    SleepReplica,
    StartReplica,
    StopReplica,
    WakeReplica,
)
from heliosd.engines.pool import Pool
from heliosd.node.answers import Answers
from heliosd.node.launching import Launching
from heliosd.telemetry.metrics import Metrics

log = logging.getLogger("heliosd.node")


class Performing:
    def __init__(self, pool: Pool, answers: Answers, launching: Launching, metrics: Metrics) -> None:
        self._pool = pool
        self._answers = answers
        self._launching = launching
        self._metrics = metrics

    def do(self, command: Command, tasks: asyncio.TaskGroup) -> None:
        """Returns at once; starts live in `tasks`."""
        name = type(command).__name__.removesuffix("Replica").lower()
        self._metrics.decided(name, command.code if isinstance(command, Refuse) else "")
        if isinstance(command, DrainReplica | StopReplica | SleepReplica) and (cause := eviction_cause(command.reason)):
            self._metrics.reasons.evicted(name, cause)
        match command:
            case Grant() | Forward() | Refuse() | Hold():
                self._answers.give(command)
            case StartReplica(replica, demand, devices, reason):
                start = {"replica": replica, "model": demand.model, "devices": "+".join(devices), "reason": reason}
                log.info("start replica", extra=start)
                self._pool.expect(replica)
                tasks.create_task(self._launching.run(command), name=f"replica {replica}")
            case DrainReplica(replica, reason):
                log.info("drain replica", extra={"replica": replica, "reason": reason})
            case StopReplica(replica):
                self._pool.stop(replica)
            case SleepReplica(replica, level, reason):
                log.info("put replica to sleep", extra={"replica": replica, "sleep_level": level, "reason": reason})
                self._pool.sleep(replica, level)
            case WakeReplica(replica, reason):
                log.info("wake replica", extra={"replica": replica, "reason": reason})
                self._pool.wake(replica)
            case Note(subject=subject, reason=reason, warning=warning):
                log.log(logging.WARNING if warning else logging.INFO, reason, extra={"subject": subject})
            case _:
                assert_never(command)
