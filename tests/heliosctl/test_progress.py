import io

from heliosctl.progress import PlainProgress, progress, progress_line
from heliosd.core.units import GiB, MiB
from heliosd.wire import ProgressView


def view(done: int, total: int | None = 4 * GiB, phase: str = "fetch") -> ProgressView:
    return ProgressView(phase=phase, item="model.safetensors", done_bytes=done, total_bytes=total)


def test_a_line_has_bytes_speed_and_time_left():
    line = progress_line(view(1 * GiB), span_s=20.0, span_bytes=1000 * MiB)
    assert line == "fetch model.safetensors 1.0 GiB of 4.0 GiB, 25%, 50.0 MiB/s, 1m 01s left"


def test_the_daemons_own_figures_come_first():
    told = view(1 * GiB).model_copy(update={"rate_bytes_per_s": 8 * MiB, "eta_s": 90.0})
    line = progress_line(told, span_s=20.0, span_bytes=1000 * MiB)
    assert line == "fetch model.safetensors 1.0 GiB of 4.0 GiB, 25%, 8.0 MiB/s, 1m 30s left"


def test_a_phase_without_bytes_is_just_named():
    assert progress_line(ProgressView(phase="commit"), 0.0, 0) == "commit"


def test_a_log_gets_few_lines():
    lines: list[str] = []
    now = [100.0]
    show = PlainProgress(lines.append, lambda: now[0])
    for step in range(100):  # ten a second
        now[0] = 100.0 + step / 10
        show(view(step * 40 * MiB))
    assert len(lines) == 2
    show(view(4 * GiB))
    show(view(0, None, phase="verify"))
    assert ["100%" in line for line in lines[2:]] == [True, False]


def test_speed_counts_only_what_came_since_the_start():
    lines: list[str] = []
    now = [0.0]
    show = PlainProgress(lines.append, lambda: now[0])
    show(view(2 * GiB))  # resumed: these were there already
    now[0] = 10.0
    show(view(2 * GiB + 100 * MiB))
    assert "10.0 MiB/s" in lines[-1]


def test_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with progress(stream) as show:
        show(view(1 * GiB))
        show(view(4 * GiB))
    assert "4.0/4.0 GiB" in stream.getvalue()
    assert "fetch model.safetensors" in stream.getvalue()
    with progress(stream) as show:
        show(view(1 * GiB).model_copy(update={"rate_bytes_per_s": 8 * MiB, "eta_s": 90.0}))
    assert "8.0 MiB/s, 1m 30s left" in stream.getvalue()
