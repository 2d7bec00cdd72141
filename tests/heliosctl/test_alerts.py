import json

from heliosd.wire import AlertRuleView, AlertView

FIRING = AlertView(
    name="HeliosDiskFull", state="firing", severity="warning", labels={"place": "store"}, value=1e9,
    summary="0.9 GiB are free where the store is kept", advice="remove what nobody needs", runbook="docs/x.md#y",
    since=1_000_000.0, fired_at=1_000_300.0,
)  # fmt: skip
RULE = AlertRuleView(
    name="HeliosDiskFull", severity="warning", condition="helios_disk_free_bytes < 5", for_s=300.0, summary="{value}",
    advice="remove", runbook="docs/x.md#y", firing=1,
)  # fmt: skip


def test_alerts_are_listed_with_what_to_do(daemon, ctl):
    daemon.alerts.append(FIRING)
    lines = ctl("alerts").out.splitlines()
    assert lines[0].split() == ["STATE", "SEVERITY", "ALERT", "SINCE", "WHAT"]
    assert lines[1].split()[:3] == ["firing", "warning", "HeliosDiskFull"]
    assert lines[1].endswith("0.9 GiB are free where the store is kept")
    assert "remove what nobody needs" in ctl("alerts", "-o", "wide").out
    assert json.loads(ctl("alerts", "-o", "json").out)["alerts"][0]["labels"] == {"place": "store"}


def test_no_alert_is_said_in_words(daemon, ctl):
    ended = ctl("alerts")
    assert (ended.code, ended.out) == (0, "no alert fires or is about to\n")


def test_the_rules_show_their_conditions(daemon, ctl):
    daemon.alert_rules.append(RULE)
    lines = ctl("alerts", "--rules").out.splitlines()
    assert " ".join(lines[1].split()) == "HeliosDiskFull warning 1 5m 00s helios_disk_free_bytes < 5"
