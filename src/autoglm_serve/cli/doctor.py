"""`autoglm doctor`: what is wrong with this machine or with a service, and what mends it."""

import os
from argparse import ArgumentParser, Namespace

from autoglm_serve.cli.parser import add_flags, add_model
from autoglm_serve.cli.running_service import ADDRESS, RunningService
from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ServeError
from autoglm_serve.core.status import ServiceStatus
from autoglm_serve.doctor import look
from autoglm_serve.doctor.checks import ALL
from autoglm_serve.doctor.facts import Facts, ServiceFacts
from autoglm_serve.doctor.report import as_json, text
from autoglm_serve.doctor.symptom import Severity
from autoglm_serve.launch.listeners import local_url

_TIMEOUT_S = 5.0
_FLAGS = (*ADDRESS, "model", "hub", "mmproj", "state_dir")


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = "autoglm doctor [flags] [MODEL]"
    add_model(parser)
    parser.add_argument("--url", metavar="URL", help="Look at the service there, and not at this machine.")
    parser.add_argument("--api-key", default="EMPTY", metavar="KEY", help="The API key to send. [EMPTY]")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    add_flags(parser, only=_FLAGS, words=ADDRESS)


def run(args: Namespace, options: Options) -> int:
    """0 where nothing is wrong, 1 for warnings, 2 for errors."""
    facts, looked_at = _facts(args, options)
    symptoms = [symptom for check in ALL for symptom in check(facts)]
    print(as_json(symptoms, looked_at) if args.json else text(symptoms, looked_at, len(ALL)))
    found = {symptom.severity for symptom in symptoms}
    return 2 if Severity.ERROR in found else 1 if Severity.WARNING in found else 0


def _facts(args: Namespace, options: Options) -> tuple[Facts, str]:
    if args.url:
        return Facts(host=None, service=look.service(args.url, args.api_key, None)), args.url
    url = local_url(options.host, options.port)
    status = _status(options)
    service: ServiceFacts | None = None
    if status is not None:
        service = look.service(url, args.api_key, status)
    host = look.this_machine(options, dict(os.environ), ours=service)
    return Facts(host=host, service=service), f"this machine and {url}" if service else "this machine"


def _status(options: Options) -> ServiceStatus | None:
    """How our own service is; None where none runs there."""
    try:
        return RunningService.of(options).status(timeout_s=_TIMEOUT_S)[0]
    except ServeError:
        return None
