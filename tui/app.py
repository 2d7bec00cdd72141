"""The program: gives the screen that is looked at its part of the news, and has done what is confirmed."""

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any, ClassVar, assert_never

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import ContentSwitcher

from heliosctl.exits import Exit, Failure
from heliosd.core.units import format_seconds
from heliosd.wire import EventView
from tui.ask import Ask
from tui.capacity import CapacityView
from tui.carry_out import carry_out
from tui.commands import SCREENS, Do, Go, Help, Leave, SortBy, parse
from tui.deeds import Verb, deed
from tui.devices import DevicesView, drain_wanted, undrain_wanted
from tui.dialogs import Confirm, Overlay, help_text
from tui.effects import effects
from tui.events import EventsView, Log
from tui.feed import Connected, Feed, Lost, News
from tui.history import History, figures
from tui.keyline import KeyLine
from tui.keys import KeysView
from tui.members import ClusterView
from tui.models import ModelsView
from tui.now import Now
from tui.prompt import Prompt, Remark
from tui.replicas import ReplicasView
from tui.status import StatusLine, Tabs
from tui.top import TopView
from tui.view import View
from tui.waiting import QueueScreen, explained

DRAW_S = 0.5
"""News that come faster are drawn together."""
GC_THRESHOLDS = (200_000, 20, 20)
SAMPLE_S = 0.9
"""The curves have a point a second; a timer may come a little early."""
FETCH_S = 5.0
"""What no feed tells is asked for again so often, while it is looked at."""


class HeliosTop(App[Failure | None]):
    """Ends with None, or with the Failure that makes going on useless."""

    TITLE = "Helios"
    CSS = """
    ContentSwitcher { height: 1fr; }
    .stale { opacity: 60%; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"go('{name}')", name, show=False) for number, name in enumerate(SCREENS, 1)),
        # With priority, so that what is typed right behind them is for the prompt and not for the table.
        Binding("slash", "prompt('/')", "filter", key_display="/", priority=True),
        Binding("colon", "prompt(':')", "command", key_display=":", priority=True),
        Binding("r", "fetch", "ask again", show=False),
        Binding("escape", "clear", "all", show=False),
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("q", "quit", "quit"),
    ]

    def __init__(
        self, feed: Feed, *, screen: str = "top", read_only: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._clock = clock
        self._sampled_at = clock()
        self.read_only = read_only
        self.feed, self._ask = feed, Ask(feed.place)
        self._now: Now | None = None
        self._events, self._history = Log(), History()
        self._lost: Lost | None = None
        self._undrawn, self._drawn_at = False, -DRAW_S
        self._status, self._tabs = StatusLine(str(feed.place)), Tabs()
        self._prompt, self._remark = Prompt(), Remark()
        self._wanted_words: dict[str, str] = {}
        self._stale_fetch = asyncio.Event()
        """Set when the screen looked at should ask again."""
        views = [
            TopView(self._events), DevicesView(), ReplicasView(), ModelsView(), QueueScreen(), EventsView(self._events),
            KeysView(), ClusterView(), CapacityView(),
        ]  # fmt: skip
        self._views: dict[str, View] = dict(zip(SCREENS, views, strict=True))
        self._first = screen
        self._switch = ContentSwitcher(*views, initial=screen)

    def compose(self) -> ComposeResult:
        yield self._status
        yield self._tabs
        yield self._switch
        yield self._remark
        yield self._prompt
        yield KeyLine()

    def on_mount(self) -> None:
        self.theme = "textual-dark"
        self.action_go(self._first)
        self.begin()

    def begin(self) -> None:
        """Listen, for as long as the program runs."""
        self.run_worker(self._follow(), group="feed")
        self.run_worker(self._keep_fetched(), group="fetch")
        self.set_interval(1.0, self._tick)
        self.set_interval(DRAW_S, self._draw_if_needed)

    @property
    def view(self) -> View:
        """The screen that is looked at."""
        return self._views[self._switch.current or "top"]

    # ---- news --------------------------------------------------------------------------

    async def _follow(self) -> None:
        try:
            async for news in self.feed.news():
                self.take(news)
        except Failure as failure:
            self.exit(failure, return_code=int(failure.exit_code))

    def take(self, news: News) -> None:
        match news:
            case Now():
                self._show(news)
            case EventView():
                self._events.tell(news)
                if news.kind in self.view.ABOUT:
                    self._stale_fetch.set()
                self._undrawn = True
            case Connected(away_s):
                self._set_stale(None)
                if away_s is not None:
                    self._events.remark(f"connected again after {format_seconds(away_s)}", time.time())
                self._stale_fetch.set()
            case Lost():
                self._set_stale(news)
            case _:
                assert_never(news)

    def _show(self, now: Now) -> None:
        first, self._now = self._now is None, now
        if first:
            self._history.add(figures(now))
        self._undrawn = True
        if first or self._drawn_at + DRAW_S < self._clock():
            self._draw()

    @property
    def _age_s(self) -> float:
        """How old the snapshot is."""
        return max(0.0, self._clock() - self._now.seen_at) if self._now else 0.0

    def _draw(self) -> None:
        """Bring what came since onto the screen. Lines that stay as they are cost nothing."""
        if self._now is None or not self.is_running:
            return
        self._undrawn, self._drawn_at = False, self._clock()
        self._status.show(self._now, self._age_s)
        self.view.show(self._now, self._history, self._age_s)
        screen = self.screen
        if isinstance(screen, Overlay) and screen.key is not None:
            screen.show(self.view.detail(screen.key))

    def _draw_if_needed(self) -> None:
        if self._undrawn:
            self._draw()

    def _tick(self) -> None:
        """A second has passed."""
        if self._lost is not None or self._now is None:
            return
        if (at := self._clock()) >= self._sampled_at + SAMPLE_S:
            self._sampled_at = at
            self._history.add(figures(self._now))
        if self._drawn_at + SAMPLE_S < at:
            self._status.tick(self._age_s)
            self.view.tick(self._history, self._age_s)

    def _set_stale(self, lost: Lost | None) -> None:
        """What is shown was true when the connection broke; it stays, but pale."""
        if (lost is None) != (self._lost is None):
            self._switch.set_class(lost is not None, "stale")
        self._lost = lost
        if lost is not None:
            self._status.lost(lost)

    # ---- what no feed tells --------------------------------------------------------------

    async def _keep_fetched(self) -> None:
        while True:
            self._stale_fetch.clear()
            await self.fetch()
            try:
                async with asyncio.timeout(FETCH_S):
                    await self._stale_fetch.wait()
            except TimeoutError:
                pass

    async def fetch(self) -> None:
        """Ask for what the screen looked at shows besides the feed's news."""
        view = self.view
        if self._lost is not None:
            return
        try:
            await view.fetch(self._ask)
        except Failure as failure:
            if self._lost is None and failure.exit_code is not Exit.UNREACHABLE:
                self._remark.say(failure.message, wrong=True)

    def action_fetch(self) -> None:
        self._stale_fetch.set()

    # ---- going about -----------------------------------------------------------------------

    def action_go(self, name: str) -> None:
        self._switch.current = name
        self._tabs.show(name, self.read_only)
        self._remark.say("")
        self.screen.set_focus(self.view.table)
        self._draw()
        self._stale_fetch.set()
        self.refresh_bindings()

    def on_tabs_clicked(self, message: Tabs.Clicked) -> None:
        self.action_go(message.screen_name)

    def action_help(self) -> None:
        self.push_screen(Overlay("help", help_text(self.view.id or "", self.view.HELP)))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In the prompt and in a dialog `/` and `:` are letters; the footer goes on showing them."""
        elsewhere = self._prompt.display or len(self.screen_stack) > 1
        return None if action == "prompt" and elsewhere else True

    def action_prompt(self, mode: str) -> None:
        self._prompt.open(
            "/" if mode == "/" else ":", self._wanted_words.get(self.view.id or "", "") if mode == "/" else ""
        )

    def action_clear(self) -> None:
        self._remark.say("")
        self._filter("")

    def on_prompt_typed(self, message: Prompt.Typed) -> None:
        self._filter(message.text)

    def _filter(self, text: str) -> None:
        if self._wanted_words.get(self.view.id or "", "") != text:
            self._wanted_words[self.view.id or ""] = text
            self.view.table.look_for(text)
            shown, total = len(self.view.table.rows), self.view.table.total
            self._remark.say(f"/{text}: {shown} of {total}, Escape shows all" if text else "")

    def on_prompt_left(self, message: Prompt.Left) -> None:
        self.view.table.focus()

    def on_prompt_said(self, message: Prompt.Said) -> None:
        try:
            command = parse(message.text)
            match command:
                case Go(screen):
                    self.action_go(screen)
                case Do(verb, subject):
                    self.on_view_wanted(self._named(verb, subject))
                case SortBy(column):
                    self.view.table.sort_named(column)
                case Help():
                    self.action_help()
                case Leave():
                    self.exit()
                case _:
                    assert_never(command)
        except ValueError as error:
            self._remark.say(str(error), wrong=True)

    # ---- details ---------------------------------------------------------------------------

    def on_view_opened(self, message: View.Opened) -> None:
        overlay = Overlay(message.title, message.text, message.key)
        self.push_screen(overlay)
        if message.explain is not None:
            self.run_worker(self._explain(overlay, message.explain), group="explain", exclusive=True)

    async def _explain(self, overlay: Overlay, subject: str) -> None:
        from rich.text import Text

        try:
            overlay.add(await explained(self._ask, subject))
        except Failure as failure:
            overlay.add(Text(f"! {failure.message}"))

    # ---- deeds -------------------------------------------------------------------------------

    def _named(self, verb: Verb, subject: str) -> View.Wanted:
        """What a command means. Raises ValueError."""
        if verb not in ("drain", "undrain"):
            return View.Wanted(verb, subject, subject)
        if self._now is None or subject not in {device.id for device in self._now.devices}:
            raise ValueError(f"cannot {verb} {subject}: there is no such device; `:devices` shows them")
        return drain_wanted(self._now, subject) if verb == "drain" else undrain_wanted(subject)

    def on_view_wanted(self, wanted: View.Wanted) -> None:
        if self.read_only:
            said = f"cannot {wanted.verb} {wanted.about}: this screen is read-only; start it without --read-only"
            self._remark.say(said, wrong=True)
        else:
            self.run_worker(self._confirm(wanted), group="confirm", exclusive=True)

    async def _confirm(self, wanted: View.Wanted) -> None:
        dialog = Confirm(f"{wanted.verb} {wanted.about}?")
        answer = self.push_screen(dialog, wait_for_dismiss=True)
        self.run_worker(self._tell_effects(dialog, wanted), group="effects", exclusive=True)
        if await answer:
            self.run_worker(self._do(wanted), group="deeds")

    async def _tell_effects(self, dialog: Confirm, wanted: View.Wanted) -> None:
        dialog.told(await effects(self._ask, wanted.verb, wanted.concerned))

    async def _do(self, wanted: View.Wanted) -> None:
        self._remark.say(deed(wanted.verb, wanted.subject).doing)
        try:
            self._remark.say(await carry_out(self._ask, wanted.verb, wanted.subject, wanted.concerned))
        except Failure as failure:
            cause = f" ({failure.cause.strip().splitlines()[-1]})" if failure.cause else ""
            self._remark.say(failure.message + cause, wrong=True)
        self._stale_fetch.set()


async def watch(feed: Feed, *, screen: str = "top", read_only: bool = False) -> Exit:
    """Show the screen until the person leaves. Raises Failure when the daemon refuses this client."""
    # A snapshot of a thousand replicas is ten thousand objects, none of them in a cycle; with the usual thresholds the
    # collector would look through all of the screen's library for each.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    failure: Any = await HeliosTop(feed, screen=screen, read_only=read_only).run_async()
    if failure is not None:
        raise failure
    return Exit.OK
