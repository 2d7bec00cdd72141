#!/usr/bin/env bash
# Installs heliosd as a systemd service, or takes it away again. Running it twice is harmless.
set -euo pipefail

usage() {
    cat <<'END'
usage: systemd/install.sh [--uninstall]

Set in the environment:
  PREFIX   where the Python environment goes            (default /opt/helios)
  DESTDIR  put everything below this folder, for packagers; nothing is applied to the running system
  VENV     use this environment, which has Helios already, and make none in PREFIX
  PYTHON   the CPython 3.11 to make the environment with (default python3.11)
  ENGINE    cpu or cuda: which engine                     (default: cuda when there is an NVIDIA GPU)
  TORCH_INDEX  where to find torch's CPU build, if pip does not know it
  LIBDIR   below it systemd/system, sysusers.d and tmpfiles.d (default /usr/local/lib)
  BINDIR   where heliosctl and heliosd are linked         (default /usr/local/bin)

--uninstall leaves /etc/helios, /var/lib/helios and the user helios as they are.
END
}

fail() {
    printf 'install.sh: cannot %s\n' "$1" >&2
    exit 1
}

say() { printf '%s\n' "$*"; }

uninstall=no
case "${1-}" in
    "") ;;
    --uninstall) uninstall=yes ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
esac

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
source_dir=$(dirname -- "$here")
DESTDIR=${DESTDIR-}
PREFIX=${PREFIX:-/opt/helios}
LIBDIR=${LIBDIR:-/usr/local/lib}
BINDIR=${BINDIR:-/usr/local/bin}
venv=${VENV:-$PREFIX}
ours=.made-by-helios-install # in an environment that this script made and may remove

for path in "$venv" "$LIBDIR" "$BINDIR"; do
    [[ $path == /* ]] || fail "use $path: an absolute path is needed"
done
[[ -z $DESTDIR || $DESTDIR == /* ]] || DESTDIR=$PWD/$DESTDIR
[[ $venv != *[[:cntrl:]\"\'\\]* ]] || fail "use $venv: systemd starts nothing from a path with quotes or backslashes"
if [[ -z $DESTDIR && $EUID -ne 0 ]]; then
    fail "write to the system: run it as root, or set DESTDIR"
fi

units=$DESTDIR$LIBDIR/systemd/system
sysusers=$DESTDIR$LIBDIR/sysusers.d/helios.conf
tmpfiles=$DESTDIR$LIBDIR/tmpfiles.d/helios.conf

# Whether there is a system to apply things to, and a systemd that runs it.
live() { [[ -z $DESTDIR ]]; }
booted() { live && [[ -d /run/systemd/system ]]; }

if [[ $uninstall == yes ]]; then
    if booted; then
        systemctl disable --now heliosd.service heliosd.socket 2>/dev/null || true
    fi
    rm -f -- "$units/heliosd.service" "$units/heliosd.socket" "$sysusers" "$tmpfiles"
    for name in heliosd heliosctl; do
        if [[ -L $DESTDIR$BINDIR/$name && $(readlink -- "$DESTDIR$BINDIR/$name") == "$venv/bin/$name" ]]; then
            rm -f -- "$DESTDIR$BINDIR/$name"
        fi
    done
    if [[ -z ${VENV-} && -e $DESTDIR$PREFIX/$ours ]]; then
        rm -rf -- "$DESTDIR$PREFIX"
    fi
    if booted; then
        systemctl daemon-reload
    fi
    say "Helios is uninstalled. Left as they are: /etc/helios, /var/lib/helios and the user helios."
    exit 0
fi

if [[ -z ${VENV-} ]]; then
    made=$DESTDIR$PREFIX
    if [[ -e $made && ! -e $made/$ours && -n $(ls -A -- "$made") ]]; then
        fail "install into $made: it is not empty and not made by this script; set VENV to use it as it is"
    fi
    engine=${ENGINE:-$([[ -e /dev/nvidiactl ]] && echo cuda || echo cpu)}
    say "Making a Python environment with the $engine engine in $made"
    "${PYTHON:-python3.11}" -m venv "$made"
    touch -- "$made/$ours"
    rm -rf -- "$source_dir/build/lib" # what an earlier build left there would be installed too
    options=()
    if [[ $engine == cpu ]]; then # the same that .ci/setup does for a checkout
        scratch=$(mktemp -d)
        trap 'rm -rf -- "$scratch"' EXIT
        "$made/bin/python" "$source_dir/.ci/absent_wheels.py" "$scratch"
        options=(--find-links "$scratch" --constraint "$scratch/constraints.txt")
        [[ -z ${TORCH_INDEX-} ]] || options+=(--extra-index-url "$TORCH_INDEX")
    fi
    "$made/bin/python" -m pip install --quiet --upgrade "${options[@]}" "${source_dir}[$engine]"
    rm -rf -- "$source_dir/build/lib" "$source_dir"/build/bdist.*
    if [[ -n $DESTDIR ]]; then
        # Scripts name their interpreter where it is now; they must name it where it will be.
        "$made/bin/python" - "$made" "$PREFIX" <<'END'
import pathlib, sys

made, final = (name.encode() for name in sys.argv[1:])
home = pathlib.Path(sys.argv[1])
for file in (*home.glob("bin/*"), home / "pyvenv.cfg"):
    if file.is_file() and not file.is_symlink():
        text = file.read_bytes()
        if made in text and b"\0" not in text:
            file.write_bytes(text.replace(made, final))
END
    fi
elif [[ ! -x $venv/bin/heliosd ]]; then
    fail "use VENV=$venv: it has no bin/heliosd"
fi

# In a unit a path with spaces is quoted, and % begins a specifier.
started=\"${venv//%/%%}/bin/heliosd\"
unit=$(<"$here/heliosd.service")

install -d -- "$units" "${sysusers%/*}" "${tmpfiles%/*}" "$DESTDIR$BINDIR"
printf '%s\n' "${unit//@heliosd@/"$started"}" | install -m 0644 /dev/stdin "$units/heliosd.service"
install -m 0644 -- "$here/heliosd.socket" "$units/heliosd.socket"
install -m 0644 -- "$here/sysusers.d/helios.conf" "$sysusers"
install -m 0644 -- "$here/tmpfiles.d/helios.conf" "$tmpfiles"
for name in heliosd heliosctl; do
    ln -sfn -- "$venv/bin/$name" "$DESTDIR$BINDIR/$name"
done
install -d -m 0750 -- "$DESTDIR/etc/helios" "$DESTDIR/etc/helios/conf.d"
if [[ ! -e $DESTDIR/etc/helios/helios.toml ]]; then
    install -m 0640 /dev/stdin "$DESTDIR/etc/helios/helios.toml" <<'END'
# The configuration of heliosd. An empty one is a good one.
# `heliosd --print-config` shows every key, what it means and what it is now; `heliosd --check` tells what is wrong.
END
fi

if live; then
    systemd-sysusers "$sysusers"
    systemd-tmpfiles --create "$tmpfiles"
fi
if booted; then
    systemctl daemon-reload
    if systemctl --quiet is-active heliosd.service; then
        say "Helios is installed. The old one still runs: systemctl restart heliosd"
        exit 0
    fi
fi
say "Helios is installed. Start it, now and at every boot, with: systemctl enable --now heliosd"
