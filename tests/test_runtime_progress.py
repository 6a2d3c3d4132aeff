"""Progress: lines on a terminal and without one."""

from __future__ import annotations

import io

import pytest

from nncompiler.runtime.model import Model
from nncompiler.runtime.progress import Progress, Terminal, count, duration, line
from tests.runtime_fake import Fake, data


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def at(epoch: int = 1, epochs: int = 3, rows: int = 10, done: bool = False) -> Progress:
    logs = {"loss": 0.5, "val_accuracy": 0.98765} if done else {"loss": 12345.0}
    return Progress(epoch, epochs, rows, 20, logs, 123_456.0, 61.4, done)


def test_a_line_has_all_that_one_asks_for() -> None:
    """Epoch, bar, losses, rate and time left; none left at the end."""
    assert line(at(), 100) == (
        "epoch 1/3  [============            ]  loss 1.234e+04  123k samples/s  1:01 left")
    assert line(at(rows=20, done=True)) == (
        "epoch 1/3  loss 0.5000  val_accuracy 0.9877  123k samples/s  1:01 left")
    assert "left" not in line(at(3, rows=20, done=True))
    for width in range(1, 100):
        assert len(line(at(), width)) <= width


def test_plain_lines_where_there_is_no_terminal() -> None:
    """One per epoch, no control characters; with many epochs, one per second and the last."""
    stream = io.StringIO()
    show = Terminal(stream)
    for epoch in (1, 2, 3):
        show(at(epoch))
        show(at(epoch, rows=20, done=True))
    show.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3 and all(text.isprintable() for text in lines)

    stream, now = io.StringIO(), [0.0]
    show = Terminal(stream, lambda: now[0])
    for epoch in range(1, 1001):
        now[0] += 1 / 128
        show(at(epoch, 1000, 20, True))
    found = [int(text.split()[1].split("/")[0]) for text in stream.getvalue().splitlines()]
    assert found == [1, 129, 257, 385, 513, 641, 769, 897, 1000]


def test_a_terminal_line_is_rewritten() -> None:
    """Carriage return and erase; a line feed at the end of an epoch, or when closed."""
    stream = Tty()
    show = Terminal(stream)
    show(at())
    show(at(rows=20, done=True))
    show(at(2))
    show.close()
    show.close()
    parts = stream.getvalue().split("\r")
    assert parts[0] == "" and len(parts) == 4
    assert all("\x1b[K" in part for part in parts[1:])
    assert [part.endswith("\n") for part in parts[1:]] == [False, True, True]


def test_a_broken_stream_does_not_end_training() -> None:
    """A reader that has gone away."""
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    show = Terminal(Broken())
    show(at(rows=20, done=True))
    closed = io.StringIO()
    closed.close()
    Terminal(closed)(at(rows=20, done=True))


def test_fit_shows_progress_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing on stdout, which is for results."""
    model = Model(Fake().artifact((4,)))
    model.fit(data(8), epochs=2, validation_data=data(4))
    out, err = capsys.readouterr()
    assert out == "" and [text.split()[:2] for text in err.splitlines()] == [
        ["epoch", "1/2"], ["epoch", "2/2"]]
    assert "val_loss" in err and "samples/s" in err
    model.fit(data(8), epochs=2, progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (950.4, "950"), (999.9, "1000"), (1234, "1.23k"), (12_345, "12.3k"),
     (999_900, "1000k"), (4_567_000, "4.57M"), (2e9, "2G")],
)  # fmt: skip
def test_count(value: float, text: str) -> None:
    """Three or four digits, never an exponent."""
    assert count(value) == text


def test_duration() -> None:
    """Hours only where there are some; nothing sensible beyond days."""
    found = [duration(s) for s in (0, 7.4, 59.6, 3600, 3723, 1e9, float("inf"), float("nan"))]
    assert found == ["0:00", "0:07", "1:00", "1:00:00", "1:02:03", "--:--", "--:--", "--:--"]
