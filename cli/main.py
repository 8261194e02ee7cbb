"""The ``twinprobe`` command."""

from __future__ import annotations

import os
import sys

import click

from activations.errors import TwinprobeError
from cli.bench import bench
from cli.cache import cache
from cli.circuit import circuit
from cli.compare import compare
from cli.evaluate import evaluate
from cli.graft import graft
from cli.lens import lens
from cli.patch import patch
from cli.pretrain import pretrain
from cli.probe import probe
from cli.show import show
from cli.slopes import slopes
from cli.store import store

HELP = """Probe and patch paired language models: a base model and its code-trained counterpart.

\b
Start here:
  twinprobe compare                      the whole study on the embedded twins
  twinprobe compare my_study.toml        the same on your pair
  twinprobe show pairs                   published pairs and their confounds

Exit codes: 0 done, 2 a mistake in what was asked (one line says which), 130 interrupted.
"""


@click.group(help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="twinprobe")
def command() -> None:
    """The group of all commands."""


for part in (compare, cache, probe, patch, circuit, graft, lens, pretrain, evaluate, slopes, bench, show, store):
    command.add_command(part)


def main() -> None:
    """Run the command; a user's mistake becomes one line and exit code 2."""
    # Threads that spin while they wait take the very cores they wait for on a busy machine; OpenMP reads this once, when
    # torch is imported. docs/PERFORMANCE.md has the figures.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        command.main(prog_name="twinprobe", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Interrupted; run the same command again to go on.", err=True)
        sys.exit(130)
    except click.UsageError as error:
        _refuse(error)
    except TwinprobeError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        # A full disk, a missing permission: the operating system's own words name the file.
        click.echo(f"Error: {error}; what was already written is kept", err=True)
        sys.exit(2)


def _refuse(error: click.UsageError) -> None:
    """Click's own three lines, in one; a group without its command is answered with its help."""
    message, path = error.format_message(), error.ctx.command_path if error.ctx else "twinprobe"
    one_line = f"Error: {message.rstrip('.')}; see {path} --help"
    click.echo(message if "\n" in message else one_line, err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
