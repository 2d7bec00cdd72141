"""Whole daemons as processes, with the clients people have."""

import pytest

pytest.register_assert_rewrite("tests.e2e.daemon")
