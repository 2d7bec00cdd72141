"""The loop: one event at a time to the scheduler, its commands to whoever carries them out, both to the journal."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from heliosd.core.messages import Command, Event, ReplicaBecameReady, ReplicaExited, Tick
from heliosd.core.scheduler import Scheduler
from heliosd.narrate import command_entry, event_entry
from heliosd.node.answers import Answers
from heliosd.node.measurements import Measurements
from heliosd.node.performing import Performing
from heliosd.node.starts import Starts
from heliosd.state.journal import Journal
from heliosd.state.recording import Recording

if TYPE_CHECKING:
    from heliosd.metering import Metering
    from heliosd.telemetry.tracing_node import NodeSpans


class Loop:
    """The only caller of `Scheduler.handle`."""

    def __init__(
        self,
        scheduler: Scheduler,
        inbox: asyncio.Queue[Event],
        journal: Journal,
        recording: Recording | None,
        answers: Answers,
        starts: Starts,
        measurements: Measurements,
        performing: Performing,
        now: Callable[[], float],
        spans: "NodeSpans | None" = None,
        metering: "Metering | None" = None,
    ) -> None:
        self._spans = spans
        self._metering = metering
        self._scheduler = scheduler
        self._inbox = inbox
        self._journal = journal
        self._recording = recording
        self._answers = answers
        self._starts = starts
        self._measurements = measurements
        self._performing = performing
        self._now = now

    async def next_event(self) -> Event:
        """The next thing that happened, or a `Tick` when the time comes that the scheduler waits for."""
        wakeup = self._scheduler.next_wakeup
        try:
            async with asyncio.timeout_at(wakeup):
                return await self._inbox.get()
        except TimeoutError:
            return Tick(self._now())

    def handle(self, event: Event, tasks: asyncio.TaskGroup) -> None:
        """Have the scheduler answer an event; what is slow of that lives in `tasks`."""
        timeline = self._starts.timeline(event)
        event_entry(self._journal, event, self._scheduler, timeline)
        self._measurements.count(event)
        if isinstance(event, ReplicaBecameReady):
            tasks.create_task(self._measurements.keep(event), name=f"measure {event.replica}")
        if isinstance(event, ReplicaExited):
            self._starts.gone(event.replica)
        if self._spans:
            self._spans.happened(event, timeline)
        commands = self._decide(event)
        if self._metering:
            self._metering.happened(event, commands, self._scheduler)
        if self._spans:
            self._spans.decided(event, commands, self._scheduler)
        for command in commands:
            command_entry(self._journal, command, self._scheduler, self._answers.models)
            self._performing.do(command, tasks)

    def _decide(self, event: Event) -> list[Command]:
        """Ask the scheduler, and keep what it answered for replay: above all the event that it fails on."""
        commands: list[Command] | None = None
        try:
            commands = self._scheduler.handle(event)
        finally:
            if self._recording:
                self._recording.note(self._scheduler, event, commands)
        return commands
