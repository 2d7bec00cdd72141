"""What the metrics are made of at one moment, gathered from the rooms that know it."""

import asyncio
from dataclasses import replace

from heliosd.api.parts import Parts
from heliosd.cluster.member import MemberState
from heliosd.telemetry.metrics import Scrape


async def scrape_of(parts: Parts, *, engines: bool = True) -> Scrape:
    """`engines`: with the engines' own metrics, which take by far the longest. Raises HeliosError and OSError."""
    snapshot = parts.node.snapshot()
    found = [(replica.id, parts.node.engine(replica.id)) for replica in snapshot.replicas] if engines else []
    running = [(replica, engine) for replica, engine in found if engine is not None]
    await parts.totals.look(parts.store)
    recording = parts.recording
    # An engine's registry alone has hundreds of series: nothing of it is read while requests wait for the loop.
    told = await asyncio.to_thread(lambda: [(replica, engine.metrics()) for replica, engine in running])
    survey = await asyncio.to_thread(parts.survey)
    heard_at = parts.peers.heard_at
    members = [member.state for member in parts.peers.members() if member.state is not MemberState.SELF]
    return Scrape(
        snapshot=snapshot,
        version=parts.identity.version,
        models=parts.totals.models,
        store_logical_bytes=parts.totals.logical_bytes,
        store_physical_bytes=parts.totals.physical_bytes,
        fetched=parts.store.fetched,
        journal_entries=parts.journal.written,
        journal_lost=parts.journal.lost,
        recorded_events=recording.events if recording else 0,
        recorded_lost=recording.lost if recording else 0,
        engines=told,
        surroundings=replace(
            survey,
            members=tuple(map(str, members)),
            heard_s=None if heard_at is None else asyncio.get_running_loop().time() - heard_at,
        ),
        firing=parts.alerts.firing(),
    )
