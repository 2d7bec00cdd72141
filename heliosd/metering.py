"""Meters what each account uses: tokens as engines count them, and device memory as the scheduler promises it.

Kept in memory and added to the database every `WRITE_S` while anything is served: so much a crash may lose, and the
next start says so.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from heliosd.core.budgets import Spent, exhausted
from heliosd.core.hardware import Device
from heliosd.core.messages import Command, Event, Grant, RequestArrived, RequestReleased
from heliosd.core.metering import IDLE, MICROSECONDS, NO_KEY, NO_TOKENS, Holding, MemoryMeter, Tokens
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.prices import Cost, Prices
from heliosd.core.scheduler import Scheduler
from heliosd.engines.engine import Engine
from heliosd.engines.meter import Meter
from heliosd.errors import EngineFailed, OverBudget
from heliosd.lease import LocalLease
from heliosd.state.journal import Journal
from heliosd.state.keys import Key, Keys
from heliosd.state.metered import Amount, MeteredTable, UsageOf
from heliosd.telemetry.metrics import Metrics

log = logging.getLogger("heliosd.metering")

WRITE_S = 0.1
"""What a crash of the daemon may lose of what is served."""
IDLE_WRITE_S = 60.0
"""What it may lose of the account of idle memory while nothing is served."""


@dataclass(eq=False)
class _Open:
    """A request that an engine works on."""

    meter: Meter
    replica: ReplicaId
    account: str
    model: str
    device: str
    taken: Tokens = NO_TOKENS
    ended: bool = False


@dataclass
class _Followed:
    """An engine whose counters are compared with what was metered."""

    engine: Engine
    model: str
    seen: Tokens = NO_TOKENS
    quiet: bool = False
    """It works on nothing, and has said all that it counted."""


class Metering:
    """One for each daemon; used on the event loop. `load` first; `run` must be running for anything to be kept."""

    def __init__(
        self,
        table: MeteredTable,
        keys: Keys,
        journal: Journal,
        metrics: Metrics,
        prices: Callable[[], Prices],
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        """`now` is the node's clock, `clock` seconds since the epoch."""
        self.table = table
        self.prices = prices
        self._keys = keys
        self._journal = journal
        self._metrics = metrics
        self._now = now
        self._clock = clock
        self._memory = MemoryMeter()
        self._devices: dict[DeviceId, Device] = {}
        self._accounts: dict[Ticket, str] = {}
        self._open: set[_Open] = set()
        self._followed: dict[ReplicaId, _Followed] = {}
        self._pending: dict[UsageOf, Amount] = {}
        self._counted: dict[tuple[str, str], Tokens] = {}
        self._rest_us: dict[Holding, int] = {}
        """Bytes times microseconds that do not make a whole byte times second yet."""
        self._spent: dict[str, Spent] = {}
        self._spent_day = ""
        self._life = 0
        self._memory_day = self.day()
        self._begun = asyncio.Event()

    # ---- what happens ----------------------------------------------------------

    def happened(self, event: Event, commands: Sequence[Command], scheduler: Scheduler) -> None:
        """The scheduler took an event in and answered it."""
        if isinstance(event, RequestArrived):
            self._accounts[event.ticket] = self.account(event.terms.key)
        elif isinstance(event, RequestReleased):
            self._memory.released(event.at, event.ticket)
            self._accounts.pop(event.ticket, None)
        self._devices = scheduler.ledger.devices
        replicas = scheduler.replicas
        self._memory.promised(event.at, scheduler.ledger.promised, lambda replica: replicas[replica].demand.model)
        for command in commands:
            if isinstance(command, Grant):
                account = self._accounts.get(command.ticket, NO_KEY)
                self._memory.granted(event.at, command.replica, command.ticket, account)

    def account(self, key: str) -> str:
        """On whose account a request with a key of this id is; a peer's client is known to the peer only."""
        if not key:
            return NO_KEY
        known = self._keys.named(key)
        return known.name if known is not None else f"peer/{key}"

    @contextmanager
    def request(self, key: str, lease: LocalLease) -> Iterator[Meter]:
        """While an engine answers a request with a key of this id; to be given to the engine with it."""
        device = self._device_name(self._memory.device_of(lease.replica))
        open_ = _Open(Meter(), lease.replica, self.account(key), lease.model, device)
        self._open.add(open_)
        self._followed.setdefault(lease.replica, _Followed(lease.engine, lease.model)).quiet = False
        self._begun.set()
        requests = 1
        try:
            yield open_.meter
        except EngineFailed:
            requests = 0  # nothing was written, and it may be asked once more
            raise
        finally:
            open_.ended = True
            self._take(open_, requests)

    # ---- budgets ---------------------------------------------------------------

    def check(self, key: Key | None, ticket: Ticket) -> None:
        """Raises OverBudget when the key has used up what it may."""
        if key is None or not (key.budget.amount or key.budget.tokens_per_day):
            return
        now = datetime.fromtimestamp(self._clock(), UTC)
        found = exhausted(key.name, key.budget, self.spent(key.name), now, self.prices().currency)
        if found is not None:
            self._metrics.over_budget(key.name)
            self._journal.note("over budget", found.message, ticket=ticket, detail={"key": key.name})
            raise OverBudget(found.message, retry_after_s=found.renewed_in_s)

    def spent(self, account: str) -> Spent:
        """By an account on this day and in this month."""
        self._turn_over()
        return self._spent.get(account, Spent())

    def _turn_over(self) -> None:
        day = self.day()
        if day == self._spent_day:
            return
        kept = day[:7] == self._spent_day[:7]
        self._spent = {name: Spent(0.0, each.month_cost, 0) for name, each in self._spent.items()} if kept else {}
        self._spent_day = day

    # ---- accounts --------------------------------------------------------------

    def day(self) -> str:
        """Of UTC, now."""
        return datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%d")

    def _take(self, open_: _Open, requests: int = 0) -> None:
        """What a request used since this was asked last."""
        read = open_.meter.read()
        tokens, open_.taken = read.minus(open_.taken), read
        if open_.ended and open_.meter.over:
            self._open.discard(open_)
        if requests or any(tokens):
            cost = Cost(0.0, *self.prices().tokens(tokens))
            self._book(self.day(), open_.account, open_.model, open_.device, Amount(requests, tokens, 0, cost))
            self._metrics.key_tokens(open_.account, tokens.prompt, tokens.cached, tokens.completion)

    def _take_memory(self) -> None:
        day, prices = self._memory_day, self.prices()
        for holding, byte_us in self._memory.take(self._now()).items():
            byte_s, self._rest_us[holding] = divmod(byte_us + self._rest_us.get(holding, 0), MICROSECONDS)
            if byte_s:
                device = self._devices.get(holding.device)
                amount = Amount(0, NO_TOKENS, byte_s, Cost(prices.memory(device, byte_s)))
                self._book(day, holding.account, holding.model, self._device_name(holding.device), amount)
                self._metrics.key_memory(holding.account, byte_s)
        self._memory_day = self.day()

    def _take_counters(self) -> None:
        """What engines say themselves. One that has said all is not asked again before it has something to do."""
        busy = {each.replica for each in self._open}
        for replica, followed in list(self._followed.items()):
            if followed.quiet and self._memory.device_of(replica) is None:
                del self._followed[replica]
            if followed.quiet:
                continue
            said = followed.engine.counted()
            if any(more := said.minus(followed.seen)):
                of = (self.day(), followed.model)
                self._counted[of] = self._counted.get(of, NO_TOKENS).plus(more)
                followed.seen = said
            else:
                followed.quiet = replica not in busy

    def _book(self, day: str, account: str, model: str, device: str, amount: Amount) -> None:
        of = UsageOf(day, account, model, device, self.prices().currency)
        self._pending[of] = self._pending.get(of, Amount()).plus(amount)
        if account != IDLE and day == self.day():
            before, cost = self.spent(account), amount.cost.total
            tokens = amount.tokens.prompt + amount.tokens.completion
            self._spent[account] = replace(
                before,
                day_cost=before.day_cost + cost,
                month_cost=before.month_cost + cost,
                day_tokens=before.day_tokens + tokens,
            )

    def _device_name(self, device: DeviceId | None) -> str:
        known = self._devices.get(device) if device is not None else None
        return known.name if known is not None else ""

    # ---- keeping ---------------------------------------------------------------

    async def load(self) -> None:
        """Take up where the last life ended, and tell when it did not end well."""
        day = self._spent_day = self.day()
        self._spent = await self.table.spent(day, self.prices().currency)
        self._life, before = await self.table.begin(self._clock())
        if before is not None and not before.ended:
            at = datetime.fromtimestamp(before.written_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            text = (
                f"the daemon before this one did not end well: usage was written last at {at}, "
                f"and of what was served then at most {WRITE_S:g} s are not counted, of idle memory {IDLE_WRITE_S:g} s"
            )
            log.warning(text)
            self._journal.note("usage", text)

    async def run(self) -> None:
        """Keep what is used until cancelled; what is left then is still written."""
        try:
            while True:
                if not self._open and not self._pending and all(each.quiet for each in self._followed.values()):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(min(IDLE_WRITE_S, self._day_left_s())):
                            await self._begun.wait()
                self._begun.clear()
                await asyncio.sleep(min(WRITE_S, self._day_left_s()))
                await self.write()
        finally:
            await self.write(ended=True)

    async def write(self, *, ended: bool = False) -> None:
        """Add to the database what was used since the last time. What cannot be written is kept for the next."""
        for each in list(self._open):
            self._take(each)
        self._take_counters()
        self._take_memory()
        rows, self._pending = self._pending, {}
        counted, self._counted = self._counted, {}
        if not rows and not counted and not ended:
            return
        try:
            await asyncio.shield(self.table.add(self._life, self._clock(), rows, counted, ended=ended))
        except sqlite3.Error as error:  # a full disk delays the account, never the service
            log.error("usage not written", extra={"rows": len(rows), "cause": str(error)})
            for of, amount in rows.items():
                self._pending[of] = amount.plus(self._pending.get(of, Amount()))
            for key, tokens in counted.items():
                self._counted[key] = tokens.plus(self._counted.get(key, NO_TOKENS))

    def _day_left_s(self) -> float:
        now = datetime.fromtimestamp(self._clock(), UTC)
        midnight = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
        return max(0.001, (midnight - now).total_seconds())
