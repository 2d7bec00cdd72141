import pytest

from heliosd.cluster.member import MAX_META_BYTES, Meta, catalogue_hash, meta_of, parse_name, reachable_url
from heliosd.errors import ConfigError


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
