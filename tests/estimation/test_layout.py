"""Tensors, layers and layouts count what they hold."""

from dataclasses import FrozenInstanceError, replace

import pytest

from heliosd.estimation.layout import Block, Kind, Layout, Split, Tensor, experts, linear, norm


def test_a_tensor_is_a_value() -> None:
    one = Tensor("a", 2, 3, Kind.LINEAR, Split.ROWS, 4, 1, "float32")
    assert one == Tensor("a", 2, 3, Kind.LINEAR, Split.ROWS, copies=4, heads=1, dtype="float32")
    assert hash(one) == hash(replace(one))
    assert replace(one, rows=5).rows == 5
    with pytest.raises(FrozenInstanceError):
        one.rows = 9  # type: ignore[misc]
    assert one.elements == 24
    assert one.named("b") == replace(one, name="b")
    assert one.repeated(3) == replace(one, copies=12)


def test_defaults_are_those_of_a_vector() -> None:
    assert Tensor("norm", 7) == Tensor("norm", 7, 1, Kind.PLAIN, Split.WHOLE, 1, 0, None)


def test_a_bias_is_divided_with_the_rows_and_whole_otherwise() -> None:
    up, up_bias = linear("up", 8, 4, Split.ROWS, bias=True)
    down, down_bias = linear("down", 4, 8, Split.COLUMNS, bias=True)
    assert (up.split, up_bias.split) == (Split.ROWS, Split.ROWS)
    assert (down.split, down_bias.split) == (Split.COLUMNS, Split.WHOLE)
    assert (up_bias.rows, up_bias.columns, up_bias.name) == (8, 1, "up.bias")


def layout(*, tied: bool) -> Layout:
    head = () if tied else (Tensor("lm_head.weight", 100, 8, Kind.HEAD, Split.VOCABULARY),)
    return Layout(
        first=(Tensor("embed.weight", 100, 8, Kind.EMBEDDING, Split.VOCABULARY),),
        blocks=(
            Block((0,), linear("layers.{}.up", 16, 8)),
            Block((1, 2), (experts("layers.{}.experts.0.up", 16, 8, Split.ROWS, 4),)),
        ),
        last=(*norm("norm", 8), *head),
        towers=(Tensor("tower", 10, copies=3),),
        drafts=linear("mtp", 1000, 1000),
        tied=tied,
    )


def test_parameters_leave_out_drafts_and_count_a_tied_head_once() -> None:
    assert layout(tied=False).parameters == 800 + 128 + 2 * 4 * 128 + 8 + 800 + 30
    assert layout(tied=True).parameters == layout(tied=False).parameters - 800
    assert layout(tied=True).layers == 3


def test_walking_finds_every_parameter() -> None:
    each = layout(tied=False)
    assert sum(tensor.rows * tensor.columns * count for tensor, count in each.walk()) == each.parameters
