"""A preload that takes longer than anybody waits, for the test that kills its owner meanwhile."""

import time

time.sleep(60)
