"""What `autoglm serve` tells a person: one calm screen in a terminal, plain or JSON log lines elsewhere."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autoglm_serve import __version__
from autoglm_serve.core.model import Capability
from autoglm_serve.core.plan import Deployment, Member
from autoglm_serve.core.replica import ReplicaState, ReplicaStatus
from autoglm_serve.probe.hub import Download

log = logging.getLogger(__name__)

_DOWNLOAD_TOLD_EVERY_S = 5.0
_MOST_WAITING = 1000
_LAST_WORD_S = 1.0
_STYLES = {ReplicaState.READY: "green", ReplicaState.FAILED: "red", ReplicaState.WAITING: "yellow"}


class LogReporter:
    """Log lines; the supervisor logs what happens to replicas itself."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._began_s = now_s()
        self._now_s = now_s
        self._told_s = -_DOWNLOAD_TOLD_EVERY_S

    def downloading(self, download: Download) -> None:
        if self._now_s() < self._told_s + _DOWNLOAD_TOLD_EVERY_S:
            return
        self._told_s = self._now_s()
        log.info("downloading %s: %s", download.repository, _downloaded(download))

    def planned(self, deployment: Deployment) -> None:
        log.info("autoglm-serve %s", __version__)
        for member in deployment.members:
            log.info("%s: %s", member.name, summary(member))
            for reason in member.plan.reasons:
                log.info("%s: %s", member.name, reason)

    def replicas(self, statuses: tuple[ReplicaStatus, ...]) -> None:
        pass

    def serving(self, url: str, deployment: Deployment) -> None:
        took_s = self._now_s() - self._began_s
        fields = {"url": url, "models": [name for member in deployment.members for name in member.names]}
        log.info("serving at %s/v1 after %.1f s", url, took_s, extra={"data": fields})

    def stopping(self, in_flight: int) -> None:
        log.info("stopping; %d requests in flight are finished first", in_flight)

    def close(self) -> None:
        pass


class TerminalReporter:
    """The screen: what was found, what is started and why, progress, then the address and how to use it."""

    def __init__(self, console: Console, now_s: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._now_s = now_s
        self._began_s = now_s()
        self._live: Live | None = None
        self._starting = False

    def downloading(self, download: Download) -> None:
        self._show(Text(f"  downloading {download.repository}  {_downloaded(download)}"))

    def planned(self, deployment: Deployment) -> None:
        self.close()
        self._console.print(f"\n[bold]autoglm-serve[/] {__version__}\n")
        for member in deployment.members:
            self._console.print(f"  [bold]{member.name}[/]  {summary(member)}", highlight=False)
            for reason in member.plan.reasons:
                self._console.print(f"    {reason}", style="dim", highlight=False)
        self._console.print()
        self._starting = True

    def replicas(self, statuses: tuple[ReplicaStatus, ...]) -> None:
        if self._starting:
            self._show(_progress(statuses))

    def serving(self, url: str, deployment: Deployment) -> None:
        self.close()
        took_s = self._now_s() - self._began_s
        self._console.print(f"[green]Serving[/] at [bold]{url}/v1[/] after {took_s:.1f} s. Ctrl-C stops.\n")
        for example in _examples(url, deployment.members[0]):
            # To be copied: the terminal may wrap it, a line break of ours inside the quotes would break it.
            self._console.print(example, highlight=False, soft_wrap=True)

    def stopping(self, in_flight: int) -> None:
        self.close()
        waits = (
            f" {in_flight} requests in flight are finished first; Ctrl-C again cuts them."
            if in_flight
            else ""
        )
        self._console.print(f"\nStopping.{waits}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._starting = False
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show(self, what: RenderableType) -> None:
        """In place of what was shown in that place before."""
        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=8, transient=True)
            self._live.start()
        self._live.update(what)


class ThreadedReporter:
    """A reporter whose terminal may stop taking what is written (Ctrl-S, a closed window): a thread waits."""

    def __init__(self, reporter: TerminalReporter) -> None:
        self._reporter = reporter
        self._said: queue.Queue[Callable[[], None]] = queue.Queue(_MOST_WAITING)
        threading.Thread(target=self._run, name="screen", daemon=True).start()

    def downloading(self, download: Download) -> None:
        self._say(lambda: self._reporter.downloading(download))

    def planned(self, deployment: Deployment) -> None:
        self._say(lambda: self._reporter.planned(deployment))

    def replicas(self, statuses: tuple[ReplicaStatus, ...]) -> None:
        self._say(lambda: self._reporter.replicas(statuses))

    def serving(self, url: str, deployment: Deployment) -> None:
        self._say(lambda: self._reporter.serving(url, deployment))

    def stopping(self, in_flight: int) -> None:
        self._say(lambda: self._reporter.stopping(in_flight))

    def close(self) -> None:
        """Leave the terminal as it was, if it takes that in time."""
        left = threading.Event()
        self._say(self._reporter.close)
        self._say(left.set)
        left.wait(_LAST_WORD_S)

    def _say(self, what: Callable[[], None]) -> None:
        with suppress(queue.Full):
            self._said.put_nowait(what)

    def _run(self) -> None:
        while True:
            with suppress(OSError):  # a terminal that is closed
                self._said.get()()


def _downloaded(download: Download) -> str:
    if download.total_bytes is None:
        return f"{download.done_bytes / 1e9:.2f} GB"
    gigabytes = f"{download.done_bytes / 1e9:.2f} of {download.total_bytes / 1e9:.2f} GB"
    return f"{gigabytes} ({download.done_bytes / max(download.total_bytes, 1):.0%})"


def summary(member: Member) -> str:
    """One line on what runs a member."""
    plan = member.plan
    where = f", on demand, let go after {member.idle_stop_s:g} s idle" if member.on_demand else ""
    what = "hears" if Capability.TRANSCRIPTION in member.capabilities else "reads"
    what = "reads and sees" if Capability.VISION in member.capabilities else what
    copies = f"{plan.replicas} replica{'s' * (plan.replicas > 1)}"
    return f"{what}; {plan.engine}, {copies}{where} ({member.files.reference})"


def _progress(statuses: tuple[ReplicaStatus, ...]) -> Table:
    table = Table.grid(padding=(0, 2))
    for status in statuses:
        table.add_row(
            "  " + status.id,
            status.model,
            Text(str(status.state), style=_STYLES.get(status.state, "")),
            _stage(status),
        )
    return table


def _stage(status: ReplicaStatus) -> str:
    if status.state is ReplicaState.READY and status.start_s is not None:
        return f"in {status.start_s:.1f} s"
    if status.last_exit is not None and status.state is not ReplicaState.STARTING:
        return status.last_exit.summary
    if status.progress is None:
        return ""
    share = status.progress.fraction
    return status.progress.stage + (f" {share:.0%}" if share is not None else "")


def _examples(url: str, member: Member) -> list[Text]:
    curl = (
        f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"""    -d '{{"model": "{member.name}", "messages": [{{"role": "user", "content": "你是谁?"}}]}}'\n"""
    )
    python = (
        "  from openai import OpenAI\n"
        f'  client = OpenAI(base_url="{url}/v1", api_key="EMPTY")\n'
        "  reply = client.chat.completions.create(\n"
        f'      model="{member.name}", messages=[{{"role": "user", "content": "你是谁?"}}])\n'
        "  print(reply.choices[0].message.content)\n"
    )
    return [Text(curl), Text(python)]
