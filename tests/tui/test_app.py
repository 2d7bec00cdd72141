import asyncio

import pytest
from textual.widgets import Static

from heliosctl.exits import Exit
from heliosd.wire import QueueView
from tests.heliosctl.samples import device, replica
from tests.heliosctl.stand_in import StandIn, serving
from tests.heliosctl.stand_in_replies import Refusal
from tui.app import HeliosTop
from tui.events import EventLog
from tui.replicas import QueueTable, ReplicaTable
from tui.screens import KeysScreen, ReplicaScreen
from tui.status import StatusLine

SIZES = [(80, 24), (120, 40)]


def shown(top: HeliosTop) -> str:
    """What is on the screen now, as text."""
    strips = top.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in strips)


async def until(pilot, condition) -> None:
    """Let the screen work until the condition holds."""
    async with asyncio.timeout(10):
        while not condition():
            await pilot.pause(0.01)


def rows(top: HeliosTop) -> list[str]:
    return [str(row.value) for row in top.query_one(ReplicaTable).rows]


@pytest.mark.parametrize("size", SIZES)
async def test_one_screen_has_all_panels(daemon, top, size):
    daemon.note("start", "r1: org/small fits on gpu0", replica="r1")
    daemon.queue = [QueueView(ticket="t-3", model="org/big", waiting_s=2.0, reason="r1 is busy")]
    async with top.run_test(size=size) as pilot:
        await until(pilot, lambda: all(w in shown(top) for w in ("r1 is busy", "fits on gpu0", "quit")))
        text = shown(top)
        lines = text.splitlines()
        assert len(lines) == size[1] and max(map(len, lines)) <= size[0]
        for words in (
            "Helios node-a", "devices", "gpu0", "█", "▓", "weights", "KV cache", "overhead", "foreign", "safety",
            "free", "replicas", "org/small", "ready", "1.5 GiB", "queue: 1 waiting", "org/big", "events", "quit",
            "details",
        ):  # fmt: skip
            assert words in text, words


async def test_eight_devices_leave_room_for_the_rest(daemon, top):
    daemon.devices = [device(f"gpu{number}") for number in range(8)]
    async with top.run_test(size=(80, 24)) as pilot:
        # All at once, on one screen: panels are laid out one after the other.
        await until(pilot, lambda: all(word in shown(top) for word in ("org/small", "gpu7", "events")))


async def test_changes_are_shown_as_they_come(daemon, top):
    async with top.run_test() as pilot:
        await until(pilot, lambda: rows(top) == ["r1"])
        daemon.replicas = [replica("r2", state="starting", measured=None), replica("r1", leases=3)]
        daemon.changed()
        await until(pilot, lambda: sorted(rows(top)) == ["r1", "r2"])
        assert top.query_one(ReplicaTable).get_cell("r1", "LEASES") == "3"
        daemon.replicas = []
        daemon.changed()
        await until(pilot, lambda: rows(top) == [])


async def test_the_queue_is_there_only_while_somebody_waits(daemon, top):
    async with top.run_test() as pilot:
        await until(pilot, lambda: rows(top) == ["r1"])
        assert not top.query_one(QueueTable).display
        daemon.queue = [QueueView(ticket="t-3", model="org/big", waiting_s=2.0, reason="r1 is busy")]
        daemon.changed()
        await until(pilot, lambda: top.query_one(QueueTable).display)


async def test_j_and_k_move_and_enter_opens_details_that_live(daemon, top):
    daemon.replicas = [replica("r1"), replica("r2", model="org/other", state="starting", measured=None, phases={})]
    async with top.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: rows(top) == ["r1", "r2"])
        await pilot.press("j")
        assert top.query_one(ReplicaTable).cursor_row == 1
        await pilot.press("k", "j", "enter")
        await until(pilot, lambda: isinstance(top.screen, ReplicaScreen) and "not started yet" in shown(top))
        daemon.replicas = [replica("r1"), replica("r2", model="org/other")]
        daemon.changed()
        await until(pilot, lambda: "started in 1.5 s" in shown(top))
        assert "predicted" in shown(top) and "measured" in shown(top)
        daemon.replicas = []
        daemon.changed()
        await until(pilot, lambda: "replica (gone)" in shown(top))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(top.screen, ReplicaScreen))


async def test_question_mark_shows_the_keys(daemon, top):
    async with top.run_test(size=(80, 24)) as pilot:
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(top.screen, KeysScreen) and "details of the replica" in shown(top))
        await pilot.press("q")
        await until(pilot, lambda: not isinstance(top.screen, KeysScreen))
        assert top.is_running


async def test_q_leaves(daemon, top):
    async with top.run_test() as pilot:
        await pilot.press("q")
    assert top.return_code == 0


async def test_a_restarted_daemon_is_found_again_and_that_is_said(socket_path, top):
    stand_in = StandIn()
    async with top.run_test(size=(120, 40)) as pilot:
        async with serving(stand_in, socket_path):
            await until(pilot, lambda: rows(top) == ["r1"])
        await until(pilot, lambda: "DISCONNECTED" in shown(top))
        assert top.query_one(ReplicaTable).has_class("stale")
        stand_in.replicas = [replica("r2")]
        async with serving(stand_in, socket_path):
            await until(pilot, lambda: rows(top) == ["r2"])
            await until(pilot, lambda: "connected again after" in shown(top))
            assert "DISCONNECTED" not in shown(top)
            assert not top.query_one(ReplicaTable).has_class("stale")


async def test_without_a_daemon_it_waits_for_one(socket_path, top):
    async with top.run_test() as pilot:
        await until(pilot, lambda: "DISCONNECTED no such file or directory" in shown(top))
        assert isinstance(top.query_one(StatusLine), Static)
        async with serving(StandIn(), socket_path):
            await until(pilot, lambda: rows(top) == ["r1"])


async def test_a_refused_client_leaves_with_the_reason(daemon, top):
    daemon.refusals["GET /helios/v1/events"] = Refusal(403, "not_allowed", "cannot show events: an admin key is needed")
    async with top.run_test() as pilot:
        await until(pilot, lambda: top.return_value is not None)
    assert top.return_value.exit_code is Exit.NOT_ALLOWED
    assert top.return_code == Exit.NOT_ALLOWED


async def test_events_can_be_scrolled_without_being_pulled_back(daemon, top):
    for number in range(100):
        daemon.note("grant", f"event {number}")
    async with top.run_test(size=(80, 24)) as pilot:
        log = top.query_one(EventLog)
        await until(pilot, lambda: "event 99" in shown(top))
        log.focus()
        await pilot.press("k", "k", "k")
        await until(pilot, lambda: not log.is_vertical_scroll_end)
        daemon.note("grant", "event 100")
        await until(pilot, lambda: len(log.lines) == 101)
        assert "event 100" not in shown(top)
        await pilot.press("end")
        await until(pilot, lambda: "event 100" in shown(top))
        daemon.note("grant", "event 101")
        await until(pilot, lambda: "event 101" in shown(top))
