import pytest

from heliosctl.exits import Exit
from heliosd.wire import QueueView
from tests.heliosctl.samples import device, replica
from tests.heliosctl.stand_in import StandIn, serving
from tests.heliosctl.stand_in_replies import Refusal
from tests.tui.looking import sees, shown, until
from tui.commands import SCREENS
from tui.dialogs import Overlay
from tui.table import Table

SIZES = [(80, 24), (120, 40), (200, 60)]


def ids(top, table: str = "#top-replicas") -> list[str]:
    return [str(row["id"]) for row in top.query_one(table, Table).rows]


@pytest.mark.parametrize("size", SIZES)
async def test_the_first_screen_has_all_panels(daemon, top, size):
    daemon.note("start", "r1: org/small fits on gpu0", replica="r1")
    daemon.queue = [QueueView(ticket="t-3", model="org/big", waiting_s=2.0, reason="r1 is busy")]
    async with top.run_test(size=size) as pilot:
        await until(pilot, sees(top, "r1 is busy", "fits on gpu0", "quit"))
        text = shown(top)
        lines = text.splitlines()
        assert len(lines) <= size[1] and max(map(len, lines)) <= size[0]
        for words in (
            "Helios node-a", "gpu0", "█", "▒", "weights", "KV used/reserved", "act+graphs", "sleepers", "foreign",
            "safety", "free", "replicas", "org/small", "● ready", "1.5 GiB", "queue: 1 waiting", "org/big", "events",
            "details", "sleep", "stop", "filter", "9 capacity",
        ):  # fmt: skip
            assert words in text, words


async def test_eight_devices_leave_room_for_the_rest(daemon, top):
    daemon.devices = [device(f"gpu{number}") for number in range(8)]
    async with top.run_test(size=(80, 24)) as pilot:
        await until(pilot, sees(top, "org/small", "gpu6", "events"))


async def test_changes_are_shown_as_they_come(daemon, top):
    async with top.run_test() as pilot:
        await until(pilot, lambda: ids(top) == ["r1"])
        daemon.replicas = [replica("r2", state="starting", measured=None), replica("r1", leases=3)]
        daemon.changed()
        await until(pilot, lambda: ids(top) == ["r2", "r1"] and "> starting" in shown(top) and "~1.6 GiB" in shown(top))
        daemon.replicas = []
        daemon.changed()
        await until(pilot, sees(top, "no replicas: a request starts one"))


async def test_the_queue_is_there_only_while_somebody_waits(daemon, top):
    async with top.run_test() as pilot:
        await until(pilot, lambda: ids(top) == ["r1"])
        assert not top.query_one("#top-queue").display
        daemon.queue = [QueueView(ticket="t-3", model="org/big", waiting_s=2.0, reason="r1 is busy")]
        daemon.changed()
        await until(pilot, lambda: top.query_one("#top-queue").display)
        daemon.queue = []
        daemon.changed()
        await until(pilot, lambda: not top.query_one("#top-queue").display)


async def test_numbers_commands_and_clicks_lead_to_the_screens(household, top):
    async with top.run_test(size=(120, 40)) as pilot:
        await until(pilot, sees(top, "meta/llama-3.3-70b"))
        for number, name in enumerate(SCREENS, 1):
            await pilot.press(str(number))
            assert top.view.id == name
        await pilot.press("colon", *"mod", "enter")
        await until(pilot, lambda: top.view.id == "models")
        await pilot.click("Tabs", offset=(3, 0))
        await until(pilot, lambda: top.view.id == "top")


async def test_a_command_that_is_none_is_told_what_there_is(household, top):
    async with top.run_test(size=(120, 40)) as pilot:
        await pilot.press("colon", *"modles", "enter")
        await until(pilot, sees(top, "! cannot do 'modles'; did you mean models?"))


async def test_details_follow_what_happens(daemon, top):
    async with top.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: ids(top) == ["r1"])
        await pilot.press("enter")
        await until(pilot, sees(top, "started in 1.5 s", "difference"))
        daemon.replicas = [replica(leases=4)]
        daemon.changed()
        await until(pilot, sees(top, "ready · 4 leases"))
        daemon.replicas = []
        daemon.changed()
        await until(pilot, sees(top, "replica (gone)"))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(top.screen, Overlay))


async def test_help_says_what_the_keys_do(daemon, top):
    async with top.run_test(size=(120, 40)) as pilot:
        await pilot.press("question_mark")
        await until(pilot, sees(top, "only rows with these words", "STOPS IN", "KV used/reserved"))
        await pilot.press("q")
        await until(pilot, lambda: not isinstance(top.screen, Overlay))
        assert top.is_running


async def test_q_leaves(daemon, top):
    async with top.run_test() as pilot:
        await pilot.press("q")
    assert top.return_code == 0


async def test_a_restarted_daemon_is_found_again_and_that_is_said(socket_path, top):
    stand_in = StandIn()
    async with top.run_test(size=(120, 40)) as pilot:
        async with serving(stand_in, socket_path):
            await until(pilot, lambda: ids(top) == ["r1"])
        await until(pilot, sees(top, "DISCONNECTED since"))
        assert top.query_one("ContentSwitcher").has_class("stale")
        assert ids(top) == ["r1"]
        stand_in.replicas = [replica("r2")]
        async with serving(stand_in, socket_path):
            await until(pilot, lambda: ids(top) == ["r2"])
            await until(pilot, sees(top, "connected again after"))
            assert "DISCONNECTED" not in shown(top)
            assert not top.query_one("ContentSwitcher").has_class("stale")


async def test_without_a_daemon_it_waits_for_one(socket_path, top):
    async with top.run_test(size=(120, 24)) as pilot:
        await until(pilot, sees(top, "DISCONNECTED since", "no such file or directory", "trying again in"))
        async with serving(StandIn(), socket_path):
            await until(pilot, lambda: ids(top) == ["r1"])


async def test_a_refused_client_leaves_with_the_reason(daemon, top):
    daemon.refusals["GET /helios/v1/events"] = Refusal(403, "not_allowed", "cannot show events: an admin key is needed")
    async with top.run_test() as pilot:
        await until(pilot, lambda: top.return_value is not None)
    assert top.return_value.exit_code is Exit.NOT_ALLOWED
    assert top.return_code == Exit.NOT_ALLOWED


async def test_events_are_followed_unless_the_person_went_back(daemon, show):
    for number in range(100):
        daemon.note("grant", f"event {number}")
    top = show("events")
    async with top.run_test(size=(80, 24)) as pilot:
        await until(pilot, sees(top, "event 99"))
        await pilot.press("k", "k", "k")
        daemon.note("grant", "event 100")
        await until(pilot, lambda: len(top.view.table.rows) == 101)
        assert "event 100" not in shown(top)
        assert top.view.table.row.message == "event 96"
        await pilot.press("G")
        await until(pilot, sees(top, "event 100"))
        daemon.note("grant", "event 101")
        await until(pilot, sees(top, "event 101"))


async def test_what_no_feed_tells_is_asked_for_again_when_the_journal_says_so(household, show):
    top = show("keys")
    async with top.run_test(size=(120, 24)) as pilot:
        await until(pilot, sees(top, "laptop"))
        household.keys.pop("laptop")
        household.note("key", "the key named laptop was removed")
        await until(pilot, lambda: "laptop" not in shown(top))


async def test_capacity_is_not_known_until_the_daemon_tells_it(household, show):
    top = show("capacity")
    async with top.run_test(size=(120, 24)) as pilot:
        await until(pilot, sees(top, "not known yet", "GIVEN OUT", "89.9%"))
        hours = [{"hour": hour, "seen_bytes": hour, "expected_bytes": 2 * hour} for hour in range(24)]
        row = {"place": "gpu0", "name": "H100", "room_bytes": 100, "peak_bytes": 50, "expected_bytes": 90, "hours": 700,
               "full_in_s": 864000.0, "earliest_s": 432000.0, "latest_s": 1728000.0, "by_hour": hours}  # fmt: skip
        household.capacity = {
            "horizon_s": 30 * 86400.0,
            "rows": [
                row | {"state": "in_sight", "note": "it grows by 1 byte a day"},
                row | {"place": "gpu1", "state": "full"},
                row | {"place": "gpu2", "state": "not_in_sight"},
                row | {"place": "wanted", "state": "unknown", "hours": 7, "by_hour": [], "full_in_s": None},
            ],
        }
        await pilot.press("r")
        await until(pilot, sees(top, "v gpu0", "full in 10.0 d (5.0 d to 20.0 d)", "it grows by 1 byte a day",
                                "! gpu1", "full already", "● gpu2", "not full within that time",
                                "? wanted", "not known: 7 hours of history", "50% ▁"))  # fmt: skip
        assert "not known yet" not in shown(top)


async def test_a_request_is_explained_by_the_daemon(household, show):
    household.explanations["t-40"] = {
        "request": {
            "model": "deepseek/v2-lite", "state": "waiting", "arrived_at": 1_000_000.0, "waited_s": 4.0,
            "steps": [{"after_s": 0.1, "kind": "hold", "reason": "r12 has to go first", "position": 2}],
        }
    }  # fmt: skip
    top = show("queue")
    async with top.run_test(size=(120, 40)) as pilot:
        await until(pilot, sees(top, "t-40"))
        await pilot.press("enter")
        await until(pilot, sees(top, "t-40 waits for deepseek/v2-lite", "hold: r12 has to go first"))


async def test_it_does_not_stop_when_a_question_is_refused(household, show):
    household.refusals["GET /helios/v1/models"] = Refusal(500, "internal", "cannot list the models: the disk is gone")
    top = show("models")
    async with top.run_test(size=(120, 24)) as pilot:
        await until(pilot, sees(top, "! cannot list the models: the disk is gone"))
        household.refusals.clear()
        await pilot.press("r")
        await until(pilot, sees(top, "meta/llama-3.3-70b", "● ready"))
