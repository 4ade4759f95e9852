"""From options to the command line of a gateway worker. Pure."""

import sys
from pathlib import Path

from autoglm_serve import __version__
from autoglm_serve.config.options import Options
from autoglm_serve.core.codec import to_json
from autoglm_serve.engines.base import Command
from autoglm_serve.gateway.access.doors import DoorPolicy
from autoglm_serve.gateway.admission.fields import FieldPolicy
from autoglm_serve.gateway.admission.media_policy import MediaPolicy
from autoglm_serve.gateway.settings import KeySettings, LoggedRequests, Settings
from autoglm_serve.gateway.wire.limits import ConnectionLimits
from autoglm_serve.gateway.wire.tls import TlsFiles
from autoglm_serve.service.guard import key_files


def worker_command(
    options: Options, state_dir: Path, rows: int, worker_id: int, descriptor: int, *, guarded: bool = False
) -> Command:
    """The gateway worker of this id, one of `rows`; `descriptor` is the listening socket that it inherits."""
    settings = Settings(
        version=__version__,
        state_dir=state_dir,
        worker_id=worker_id,
        workers=rows,
        limits=ConnectionLimits(
            max_body_bytes=options.max_body_bytes,
            header_timeout_s=options.header_timeout_s,
            body_timeout_s=options.body_timeout_s,
            max_held_bytes=options.max_held_mb << 20,
            max_client_connections=options.max_client_connections,
            max_client_bytes=(options.max_client_mb or max(1, options.max_held_mb // 2)) << 20,
            keep_alive_s=options.keep_alive_s,
            allow_origin=options.allow_origin,
        ),
        fields=FieldPolicy(allowed=options.allow_field, refuse_unknown=options.refuses_unknown_fields),
        doors=DoorPolicy(hosts=options.let_in_hosts, origins=options.allow_origin),
        tls=tls_files(options),
        trusted_proxies=options.trusted_proxy,
        keys=KeySettings(
            files=key_files(options, state_dir), required=guarded, upstream=options.upstream_key_file
        ),
        media=MediaPolicy(
            hosts=options.media_hosts,
            max_pixels=options.max_request_megapixels * 1_000_000,
        ),
        wait_ready_s=options.wait_ready_s,
        wait_turn_s=options.queue_timeout_s,
        max_waiting=options.max_queue,
        max_waiting_bytes=options.max_queue_bytes,
        stall_s=options.stall_timeout_s,
        request_timeout_s=options.request_timeout_s,
        drain_timeout_s=options.drain_timeout_s,
        log_requests=LoggedRequests(options.log_requests),
    )
    return Command(
        argv=(
            *(sys.executable, "-m", "autoglm_serve.gateway.worker"),
            *("--settings", to_json(settings).decode(), "--listen-fd", str(descriptor)),
            *("--log-format", "json" if options.log_format == "json" else "plain"),
            *("--log-level", options.log_level),
        )
    )


def tls_files(options: Options) -> TlsFiles | None:
    """The certificate under which the gateway answers; None where it speaks plain HTTP."""
    if options.tls_cert is None:
        return None
    return TlsFiles(
        certificate=options.tls_cert.absolute(),
        key=(options.tls_key or options.tls_cert).absolute(),
        client_authority=options.tls_client_ca and options.tls_client_ca.absolute(),
    )
