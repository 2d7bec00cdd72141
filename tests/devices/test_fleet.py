from pathlib import Path

import pytest

from heliosd.core.units import GiB
from heliosd.devices.fleet import parse_fleet, read_fleet
from heliosd.errors import ConfigError

NODE = """
[[device]]
name = "g"
capacity = "80GiB"
count = 4
kind = "NVIDIA H100 80GB HBM3"
numa = 0
nvlink = true

[[device]]
name = "desk"
capacity = "24 GiB"
foreign = "2GiB"
"""


def test_a_fleet_is_what_the_file_says() -> None:
    fleet = parse_fleet(NODE)
    assert [one.id for one in fleet] == ["g0", "g1", "g2", "g3", "desk"]
    assert (fleet[3].name, fleet[3].capacity_bytes) == ("NVIDIA H100 80GB HBM3", 80 * GiB)
    assert (fleet[3].numa_node, fleet[3].nvlink, fleet[3].foreign_bytes) == (0, True, 0)
    assert (fleet[4].name, fleet[4].foreign_bytes, fleet[4].numa_node) == ("simulated GPU", 2 * GiB, None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it has no device"),
        ("[device]\nname = 'g'", "it has no device"),
        ("device = [3]", "it has no device"),
        ("[[devices]]\nname = 'g'", "the file has an unknown key 'devices': did you mean 'device'?"),
        ("[[device]]\nname = 'g'\ncapcity = '1GiB'", "device 1 has an unknown key 'capcity': did you mean 'capacity'?"),
        ("[[device]]\ncapacity = '1GiB'", "device 1 has no name"),
        ("[[device]]\nname = 'g'", r"device 1 \(g\) has no capacity"),
        ("[[device]]\nname = 'g'\ncapacity = 'big'", "device 1: capacity: cannot read 'big' as a size"),
        ("[[device]]\nname = 'g'\ncapacity = 1.5", "device 1: capacity is 1.5; write a size"),
        ("[[device]]\nname = 'g'\ncapacity = '1GiB'\nforeign = '2GiB'", "of 1.0 GiB capacity, 2.0 GiB cannot be"),
        ("[[device]]\nname = 'g'\ncapacity = '1GiB'\nforeign = -1", "cannot be foreign"),
        ("[[device]]\nname = 'g'\ncapacity = '1GiB'\ncount = 0", "count is 0; it must be 1 or more"),
        ("[[device]]\nname = 'g'\ncapacity = '1GiB'\nnvlink = 1", "nvlink is 1, which is no bool"),
        ("[[device]]\nname = 'g'\ncapacity = 1\n" * 2, "g is there twice"),
    ],
)
def test_a_file_at_fault_is_told_where(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"cannot use the fleet .*fleet\.toml: .*{says}"):
        read_fleet(file)


def test_a_file_that_is_not_there_or_no_toml_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_fleet(tmp_path / "fleet.toml")
    (tmp_path / "fleet.toml").write_text("[[device")
    with pytest.raises(ConfigError, match="at the end of an array declaration"):
        read_fleet(tmp_path / "fleet.toml")
