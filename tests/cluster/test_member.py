import pytest

from heliosd.cluster.load import load_of
from heliosd.cluster.member import (
    MAX_META_BYTES,
    MOST_READY,
    Load,
    Meta,
    catalogue_hash,
    meta_of,
    parse_name,
    reachable_url,
    ready_of,
    short,
)
from heliosd.core.hardware import Device, DeviceKind, DeviceReading
from heliosd.core.lifecycle import State
from heliosd.core.messages import Footprint
from heliosd.core.snapshot import DeviceAccount, ReplicaStatus, Snapshot, Waiting
from heliosd.core.units import GiB
from heliosd.errors import ConfigError
from tests.cluster.nodes import peer


def test_what_a_node_gossips_is_read_back_by_its_peers():
    meta = Meta("https://[fd00::5]:8484", "0.1.0", "0123456789abcdef", draining=True)
    assert meta_of(meta.tags()) == meta


def test_a_node_that_does_not_drain_does_not_spend_bytes_on_it():
    assert "d" not in Meta("http://10.0.0.1:8484", "0.1.0").tags()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://a/b", "http://user@a", "http://a\r\nX: y", "x"])
def test_an_address_that_is_no_plain_http_address_is_not_believed(url):
    assert meta_of({"u": url, "v": "1"}).api_url is None


def test_an_address_that_peers_would_not_believe_is_refused_where_it_is_configured():
    with pytest.raises(ConfigError, match="without a path"):
        Meta("http://a/b", "1").tags()


def test_tags_longer_than_gossip_bears_are_refused_with_the_numbers():
    with pytest.raises(ConfigError, match=f"at most {MAX_META_BYTES}"):
        Meta("http://" + "a" * 200, "1").tags()


def test_a_long_host_name_still_fits():
    host = ".".join(["a" * 60, "helios", "svc", "cluster", "local"])
    assert Meta(f"http://{host}:65535", "10.20.30", catalogue_hash(["a"]), draining=True).tags()


def test_load_is_told_in_round_numbers_that_promise_nothing_too_much():
    load = Load.of(["org/a", "b"], 20 * GiB - 1, 5)
    assert (load.free_bytes, load.queue_length) == (19 * GiB, 8)
    assert [Load.of([], 0, waiting).queue_length for waiting in (0, 1, 2, 3, 1000)] == [0, 1, 2, 4, 1024]
    assert Load.of([], -3 * GiB, 0).free_bytes == 0
    meta = Meta("http://10.0.0.1:8484", "0.1.0", "0123456789abcdef", load=load)
    assert meta_of(meta.tags()) == meta
    assert ready_of(peer("b", load=load), ["a", "b", "org/a", "c"]) == ("b", "org/a")


def test_a_node_that_tells_nothing_of_its_load_spends_no_bytes_on_it():
    assert Meta("http://10.0.0.1:8484", "1").tags().keys() == {"u", "v", "c"}
    assert meta_of({"u": "", "v": "1"}).load == Load()


@pytest.mark.parametrize("tags", [{"f": "many"}, {"f": "-1"}, {"f": "1" * 9}, {"f": "1", "q": "x"}])
def test_a_load_that_cannot_be_read_is_none(tags):
    assert meta_of(tags).load == Load()


def test_ready_models_are_left_out_where_gossip_has_no_room_for_them():
    host = ".".join(["a" * 60, "b" * 40, "helios", "svc", "cluster", "local"])
    load = Load.of([f"model-{number}" for number in range(40)], 80 * GiB, 1000)
    assert len(load.ready) == MOST_READY
    told = meta_of(Meta(f"http://{host}:65535", "10.20.30", catalogue_hash(["a"]), draining=True, load=load).tags())
    assert told.load.free_bytes == 80 * GiB
    assert told.load.ready == load.ready[: len(told.load.ready)] != ()
    assert len(told.load.ready) < MOST_READY


def test_the_load_is_read_off_the_node():
    def device(name, free, fault=None):
        reading = DeviceReading(name, 0, 0, fault=fault)
        card = Device(name, DeviceKind.CUDA, "card", 80 * GiB)
        return DeviceAccount(card, reading, 0, 0, Footprint(0, 0, 0), 0, free)

    def replica(model, state, idle_since):
        nothing = Footprint(0, 0, 0)
        return ReplicaStatus(model, model, "r", state, (), frozenset(), nothing, None, 0.0, idle_since, 300.0)

    snapshot = Snapshot(
        at=9.0,
        devices=(device("g0", 10 * GiB), device("g1", 30 * GiB), device("g2", 80 * GiB, "lost")),
        replicas=(
            replica("old", State.READY, 1.0),
            replica("late", State.READY, 8.0),
            replica("used", State.READY, None),
            replica("coming", State.STARTING, None),
        ),
        waiting=(Waiting("t1", "x", 0.0, ""),),
        draining=False,
    )
    assert load_of(snapshot) == Load(tuple(short(model) for model in ("used", "late", "old")), 30 * GiB, 1)


def test_a_catalogue_hash_names_the_set_and_not_its_order():
    assert catalogue_hash(["a/b", "c"]) == catalogue_hash(["c", "a/b", "c"])
    assert len({catalogue_hash(names) for names in ([], ["a"], ["b"], ["a", "b"])}) == 4


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 57, "a\n", "ä"])
def test_a_name_that_would_not_fit_a_log_line_or_header_is_refused(name):
    with pytest.raises(ValueError, match="cannot call a node"):
        parse_name(name)


@pytest.mark.parametrize(
    ("host", "bind", "url"),
    [
        ("10.0.0.1", "10.0.0.1:7946", "http://10.0.0.1:8484"),
        ("0.0.0.0", "10.0.0.1:7946", "http://10.0.0.1:8484"),
        ("::", "[fd00::5]:7946", "http://[fd00::5]:8484"),
        ("127.0.0.1", "127.0.0.1:7946", "http://127.0.0.1:8484"),
        ("127.0.0.1", "10.0.0.1:7946", None),
        ("0.0.0.0", "0.0.0.0:7946", None),
        ("127.0.0.1", "0.0.0.0:7946", None),
    ],
)
def test_peers_are_told_an_address_that_means_this_node_to_them_or_none(host, bind, url):
    assert reachable_url(host, 8484, bind) == url
    if url is not None:
        assert meta_of(Meta(url, "1").tags()).api_url == url
