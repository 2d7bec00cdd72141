"""How much property tests try: all of it in `make test`, a part in the quick run, which comes often and never tries the
same twice."""

from hypothesis import settings

_ALL = 100
"""What hypothesis tries where nothing else is said."""
QUICK_EXAMPLES = 30
"""Of those."""


def examples(count: int) -> int:
    """So many in a run of all tests, and the same part of them as of all others in a quick one."""
    return max(5, count * settings.default.max_examples // _ALL)
