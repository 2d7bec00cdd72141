"""What is taken from an engine's last words."""

from heliosd.core.gist import LONGEST, gist

PYDANTIC = """\
INFO something before
Traceback (most recent call last):
  File "a.py", line 1, in f
    raise ValueError
ValueError: inner

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "b.py", line 2, in g
    g()
    ^^^
pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, the header is too large [type=value_error]
    For further information visit https://errors.example/value_error
"""


def test_the_last_exception_with_what_belongs_to_it() -> None:
    said = "pydantic_core.ValidationError: 1 validation error for ModelConfig Value error, the header is too large"
    assert gist(PYDANTIC) == f"{said} [type=value_error]"


def test_the_whole_message_of_an_exception_of_several_lines() -> None:
    cuda = "Traceback (most recent call last):\n  frame\nRuntimeError: CUDA error: out of memory\nCompile with DSA.\n"
    assert gist(cuda) == "RuntimeError: CUDA error: out of memory Compile with DSA."


def test_a_process_that_was_killed_is_not_explained_by_the_end_of_its_log() -> None:
    assert gist("killed by SIGKILL; it said last:\nINFO all is well\nINFO still well") == "killed by SIGKILL"
    assert gist(f"ended with exit code 1; it said last:\n{PYDANTIC}").startswith("ended with exit code 1: pydantic")


def test_without_a_traceback_it_is_the_last_line() -> None:
    assert gist("one\ntwo\n") == "two"
    assert gist("no such kernel") == "no such kernel"
    assert gist("") == ""
    assert len(gist("x" * 10_000)) == LONGEST
