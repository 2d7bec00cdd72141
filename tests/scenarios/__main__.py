"""`python -m tests.scenarios [--rewrite]`: show, or write down, what the scheduler says in each scenario today."""

import sys

from tests.scenarios.play import FILES, Player, without_answers

for file in FILES:
    played = Player().play(without_answers(file.read_text()))
    if "--rewrite" in sys.argv[1:]:
        file.write_text(played)
    else:
        print(f"==== {file.stem}\n{played}")
