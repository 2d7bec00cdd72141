from heliosd.store.pace import WINDOW_S, Pace


def test_nothing_is_said_before_anything_happened() -> None:
    pace = Pace(5.0)
    assert pace.bytes_per_s(5.0) is None
    assert pace.bytes_per_s(6.0) is None


def test_the_rate_is_that_of_late() -> None:
    pace = Pace(0.0)
    for tenth in range(1, 201):
        pace.add(tenth / 10, 1000)
    assert pace.bytes_per_s(20.0) == 10_100  # the one that the window begins with counts
    for second in range(21, 21 + int(WINDOW_S)):
        pace.add(float(second), 50)
    assert pace.bytes_per_s(20.0 + WINDOW_S) == (10 * 50 + 1000) / WINDOW_S


def test_what_is_taken_back_makes_no_negative_rate() -> None:
    pace = Pace(0.0)
    pace.add(1.0, 100)
    pace.add(2.0, -100)
    assert pace.bytes_per_s(2.0) is None
