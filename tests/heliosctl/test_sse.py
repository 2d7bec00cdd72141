from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from heliosctl.sse import SseEvent, SseParser

TEXT = (
    ": keep-alive\n\n"
    'event: progress\ndata: {"done": 1}\n\n'
    "id: 7\r\nevent: journal\r\ndata: first é\r\ndata: second\r\n\r\n"
    "retry: 3\n\n"
    "data: plain\n\n"
    "data: never finished"
).encode()
EVENTS = [
    SseEvent("progress", '{"done": 1}'),
    SseEvent("journal", "first é\nsecond", "7"),
    SseEvent("message", "plain", "7"),
]


@given(st.lists(st.integers(0, len(TEXT)), max_size=8))
def test_wherever_it_is_cut_the_events_are_the_same(cuts):
    edges = [0, *sorted(cuts), len(TEXT)]
    parser = SseParser()
    chunks = [TEXT[start:end] for start, end in pairwise(edges)]
    assert [event for chunk in chunks for event in parser.feed(chunk)] == EVENTS
