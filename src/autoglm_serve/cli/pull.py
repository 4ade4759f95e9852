"""`autoglm pull`: download a model now, with progress, so that serving it later need not."""

import sys
from argparse import ArgumentParser, Namespace

from autoglm_serve.cli.parser import add_flags, add_model
from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ConfigError, ExitCode
from autoglm_serve.probe.hub import Download

_MIB = 2**20


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = "autoglm pull MODEL [flags]"
    add_model(parser)
    add_flags(parser, only={"hub", "model", "revision"})


def run(args: Namespace, options: Options) -> int:
    from autoglm_serve.probe.model_files import find_model  # here: `--help` needs none of it

    if options.model is None:
        raise ConfigError(
            "No model is named.",
            next_step="autoglm pull org/name, or org/name:Q4_K_M for one GGUF of several",
        )
    files = find_model(
        options.model, hub=options.hub, revision=options.revision, on_progress=_DownloadLine().tell
    )
    print(files.path)
    print(f"Serve it with: autoglm serve {options.model}", file=sys.stderr)
    return ExitCode.OK


class _DownloadLine:
    """One line that is written over in a terminal; one line for each tenth elsewhere."""

    def __init__(self) -> None:
        self._tenth = -1

    def tell(self, download: Download) -> None:
        """So much of it is here."""
        share = download.done_bytes / download.total_bytes if download.total_bytes else 1.0
        tenth = int(share * 10)
        if not sys.stderr.isatty() and tenth == self._tenth:
            return
        self._tenth = tenth
        line = (
            f"{download.repository}: {share:4.0%} of {download.total_bytes / _MIB:,.0f} MiB"
            if download.total_bytes
            else f"{download.repository}: {download.done_bytes / _MIB:,.0f} MiB"
        )
        print(line, end="\r" if sys.stderr.isatty() and share < 1 else "\n", file=sys.stderr, flush=True)
