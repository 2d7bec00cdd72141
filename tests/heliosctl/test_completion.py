import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from heliosctl.completion import branches, script
from heliosctl.parser import build_parser


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "heliosctl.bash"
    path.write_text(script("bash", build_parser()))
    return path


def complete(bash_script: Path, *words: str, path: str = "") -> list[str]:
    """What bash offers after these words."""
    quoted = " ".join(f"'{word}'" for word in words)
    lines = f"""
        {f"PATH={path}:$PATH" if path else ""}
        source '{bash_script}'
        COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
        _heliosctl
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", lines], check=True, capture_output=True, text=True, cwd=bash_script.parent)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands(bash_script):
    assert complete(bash_script, "heliosctl", "eve") == ["events"]
    assert set(complete(bash_script, "heliosctl", "")) >= {"run", "pull", "cluster", "keys"}


def test_bash_completes_below_a_group(bash_script):
    assert sorted(complete(bash_script, "heliosctl", "keys", "")) == ["add", "ls", "rm", "set"]


def test_bash_completes_options_of_the_command(bash_script):
    assert complete(bash_script, "heliosctl", "estimate", "x", "--kv-c") == ["--kv-cache"]
    assert complete(bash_script, "heliosctl", "keys", "add", "--ad") == ["--admin"]
    assert complete(bash_script, "heliosctl", "keys", "set", "x", "--sh") == ["--share"]


def test_bash_completes_choices(bash_script):
    assert complete(bash_script, "heliosctl", "completion", "z") == ["zsh"]


def test_bash_asks_the_daemon_for_models(bash_script, tmp_path):
    fake = tmp_path / "heliosctl"
    fake.write_text('#!/bin/sh\n[ "$*" = "ls -q" ] && printf "org/small\\norg/other\\n"\n')
    fake.chmod(0o755)
    assert complete(bash_script, "heliosctl", "run", "org/s", path=str(tmp_path)) == ["org/small"]


def test_bash_completes_files_where_nothing_else_is_known(bash_script):
    assert complete(bash_script, "heliosctl", "import", "helios") == ["heliosctl.bash"]


def test_fish_knows_every_command_and_option():
    text = script("fish", build_parser())
    for branch in branches(build_parser()):
        for name in branch.below:
            assert f"-a {name} -d '" in text
        for option in branch.options:
            assert f"-l {option[2:]} " in text or f"-s {option[1:]} " in text
    assert "complete -c heliosctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from" in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_itself_accepts_the_script(shell, tmp_path, ctl):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    path = tmp_path / "script"
    path.write_text(ctl("completion", shell).out)
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sys.executable not in path.read_text()
