"""Nothing is done before it is confirmed, and the question says what it frees and costs."""

import pytest

from tests.heliosctl.stand_in_replies import Refusal
from tests.tui.looking import sees, shown, until
from tui.deeds import VERBS, deed
from tui.dialogs import Confirm

WORTH = {
    "loss_s": 2.5, "slower_s": 9.0, "frees_bytes": 14 * 2**30, "sleeps": True, "rank": 2, "of": 5, "protected": None,
}  # fmt: skip
APPETITE = {"asked_per_minute": 0.5, "reuse_ratio": 0.28, "horizon_s": 600.0, "waiting": 0, "reload_s": 14.0}


def posted(daemon) -> list[tuple[str, str, object]]:
    return [(method, path, body) for method, path, _, body in daemon.asked if method != "GET"]


@pytest.fixture
def told(household):
    running = household.replicas[1].model_dump(mode="json")
    household.explanations["r2"] = {
        "replica": {"model": "meta/llama-3.1-8b", "running": running, "worth": WORTH, "appetite": APPETITE}
    }
    estimate = household.estimate.model_dump(mode="json")
    household.explanations["microsoft/phi-4"] = {
        "model": {"estimate": estimate, "replicas": [], "appetite": APPETITE, "failure": None}
    }
    return household


async def test_sleep_says_what_it_frees_and_costs_and_waits_for_yes(told, show):
    top = show("replicas")
    async with top.run_test(size=(100, 30)) as pilot:
        await until(pilot, sees(top, "meta/llama-3.1-8b"))
        await pilot.press("j", "z")
        await until(pilot, sees(top, "sleep r2 of meta/llama-3.1-8b?", "its 3 requests are finished first",
                                "frees 14.0 GiB on each of 1 device", "costs 2.5 s of waiting, as forecast",
                                "next waits 9.0 s", "28% that somebody asks within 10m 00s"))  # fmt: skip
        assert posted(told) == []
        await pilot.press("y")
        await until(pilot, sees(top, "r2 sleeps", "z asleep 1"))
    assert posted(told) == [("POST", "/helios/v1/sleep/r2", None)]


@pytest.mark.parametrize("key", ["n", "escape", "q", "enter"])
async def test_anything_but_yes_does_nothing(told, show, key):
    top = show("replicas")
    async with top.run_test(size=(100, 30)) as pilot:
        await until(pilot, sees(top, "meta/llama-3.1-8b"))
        await pilot.press("x")
        await until(pilot, lambda: isinstance(top.screen, Confirm))
        await pilot.press(key)
        await until(pilot, lambda: not isinstance(top.screen, Confirm))
        assert top.is_running
    assert posted(told) == []


async def test_the_mouse_can_say_yes(told, show):
    top = show("replicas")
    async with top.run_test(size=(100, 30)) as pilot:
        await until(pilot, sees(top, "meta/llama-3.1-8b"))
        await pilot.press("j", "x")
        await until(pilot, sees(top, "as sleep would"))
        await pilot.click("#yes")
        await until(pilot, lambda: "stop" in str(posted(told)) or posted(told))
        await until(pilot, sees(top, "r2 has stopped"))
    assert posted(told) == [("DELETE", "/helios/v1/replicas/r2", None)]


async def test_load_says_what_it_takes(told, show):
    top = show("models")
    async with top.run_test(size=(100, 40)) as pilot:
        await until(pilot, sees(top, "microsoft/phi-4 "))
        await pilot.press("slash", *"phi-4", "enter", "l")
        await until(pilot, sees(top, "load microsoft/phi-4?", "takes 1.6 GiB on each of 1 device",
                                "fits: needs 1.6 GiB, 5.8 GiB free on gpu0", "a start took 14.0 s"))  # fmt: skip
        await pilot.press("y")
        await until(pilot, sees(top, "microsoft/phi-4 is ready"))
    assert posted(told) == [("POST", "/helios/v1/replicas", {"model": "microsoft/phi-4"})]


async def test_a_pin_is_taken_back_with_the_same_key(told, show):
    top = show("models")
    async with top.run_test(size=(100, 40)) as pilot:
        await until(pilot, sees(top, "meta/llama-3.3-70b"))
        await pilot.press("p")
        await until(pilot, sees(top, "unpin meta/llama-3.3-70b?"))
        await pilot.press("y")
        await until(pilot, sees(top, "is treated like any other"))
        await until(pilot, lambda: not top.view.table.row[0]["pinned"])
        await pilot.press("p")
        await until(pilot, sees(top, "pin meta/llama-3.3-70b?"))
        await pilot.press("y")
        await until(pilot, sees(top, "is kept ready"))
    assert [method for method, _, _ in posted(told)] == ["DELETE", "PUT"]


async def test_a_device_is_drained_by_the_daemon_and_taken_back(told, show):
    told.drains = []
    top = show("devices")
    async with top.run_test(size=(100, 40)) as pilot:
        await until(pilot, sees(top, "gpu3"))
        await pilot.press("j", "d")
        await until(pilot, sees(top, "drain gpu1, with 3 replicas?", "r2: frees 14.0 GiB"))
        await pilot.press("y")
        await until(pilot, sees(top, "gpu1 is drained: nothing starts there until", "gpu1 v", "v drained: nothing is"))
        await pilot.press("d")
        await until(pilot, sees(top, "undrain gpu1?"))
        await pilot.press("y")
        await until(pilot, sees(top, "gpu1 is in service again"))
        await until(pilot, lambda: not top.view.table.row[0].drained)
    assert posted(told) == [("POST", "/helios/v1/drain", {"device": "gpu1"}), ("DELETE", "/helios/v1/drain", None)]


async def test_where_the_daemon_keeps_no_device_out_its_replicas_stop(told, show):
    top = show("devices")
    async with top.run_test(size=(100, 40)) as pilot:
        await until(pilot, sees(top, "gpu3"))
        await pilot.press("colon", *"drain gpu1", "enter")
        await until(pilot, sees(top, "drain gpu1, with 3 replicas?", "r2: frees 14.0 GiB"))
        await pilot.press("y")
        await until(pilot, sees(top, "3 replicas have stopped; this daemon may start others"))
    assert sorted(path for method, path, _ in posted(told) if method == "DELETE") == [
        "/helios/v1/replicas/r10", "/helios/v1/replicas/r2", "/helios/v1/replicas/r6",
    ]  # fmt: skip


async def test_a_refusal_is_shown_with_its_reason(told, show):
    told.refusals["POST /helios/v1/sleep/r2"] = Refusal(409, "cannot_sleep", "cannot put r2 to sleep: it is a CPU's")
    top = show("replicas")
    async with top.run_test(size=(100, 30)) as pilot:
        await until(pilot, sees(top, "meta/llama-3.1-8b"))
        await pilot.press("j", "z")
        await until(pilot, lambda: isinstance(top.screen, Confirm))
        await pilot.press("y")
        await until(pilot, sees(top, "! cannot put r2 to sleep: it is a CPU's"))


async def test_what_cannot_be_forecast_can_still_be_done(told, show):
    told.refusals["GET /helios/v1/explain/r1"] = Refusal(404, "not_found", "cannot explain r1: nothing is known of it")
    top = show("replicas")
    async with top.run_test(size=(100, 30)) as pilot:
        await until(pilot, sees(top, "meta/llama-3.1-8b"))
        await pilot.press("x")
        await until(pilot, sees(top, "what it would do is not known: cannot explain r1"))


async def test_read_only_shows_no_deeds_and_does_none(told, show):
    top = show("replicas", read_only=True)
    async with top.run_test(size=(100, 30)) as pilot:
        await until(pilot, sees(top, "meta/llama-3.1-8b", "read-only", "quit"))
        footer = shown(top).splitlines()[-1]
        assert "sleep" not in footer and "stop" not in footer
        await pilot.press("x", "z", "w", "p")
        assert not isinstance(top.screen, Confirm)
        await pilot.press("colon", *"stop r2", "enter")
        await until(pilot, sees(top, "! cannot stop r2: this screen is read-only"))
    assert posted(told) == []


def test_every_verb_is_one_request():
    for verb in VERBS:
        it = deed(verb, "org/a b")
        assert it.method in ("POST", "PUT", "DELETE") and " " not in it.path
        assert it.done.startswith("org/a b ") and it.doing.endswith(" org/a b …")
