"""doctor --bundle: the archive for whoever helps, from the daemon, or from this machine's files where none answers."""

import os
import time
from argparse import Namespace
from pathlib import Path
from typing import IO

from heliosctl.client import connect
from heliosctl.exits import Exit, Failure
from heliosctl.output import say
from heliosd.core.units import format_bytes


def bundle(args: Namespace) -> Exit:
    """Write it to the file that is named, or to one with the time in its name."""
    target = Path(args.bundle or time.strftime("helios-bundle-%Y%m%d-%H%M%S.tar.gz"))
    part = target.with_name(f".{target.name}.part")
    try:
        # Its own from the first byte on: what is in it concerns nobody else on this machine.
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            try:
                connect(args).download("/helios/v1/doctor/bundle", out)
                whole = True
            except Failure as failure:
                if failure.exit_code is not Exit.UNREACHABLE:
                    raise
                say(f"{failure.message}; the bundle has only what lies on this machine")
                out.seek(0)
                out.truncate()
                _local(out)
                whole = False
        part.replace(target)
    except OSError as error:
        raise Failure(f"cannot write the bundle {target}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    say(f"{format_bytes(target.stat().st_size)}, without secrets and prompts; look through it before you pass it on")
    print(target)
    return Exit.OK if whole else Exit.UNREACHABLE


def _local(out: IO[bytes]) -> None:
    """What tells something without a daemon."""
    from heliosd.config_places import files_in, usual_places
    from heliosd.support import Bundle, add_configuration, add_machine, secrets_in

    places = usual_places(os.environ, root=os.geteuid() == 0)
    state_dir = Path(os.environ.get("HELIOS_NODE__STATE_DIR") or places.state_dir)
    named = os.environ.get("HELIOS_CONFIG")
    try:
        files = (Path(named),) if named else files_in(places.config_dir)
    except OSError:
        files = ()
    made = Bundle(out, secrets_in(files))
    add_configuration(made, files)
    add_machine(made, state_dir)
    made.close()
