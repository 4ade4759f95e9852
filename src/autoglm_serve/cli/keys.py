"""`autoglm keys`: make, list, replace and revoke API keys, in the file that a service reads them from."""

import json
import os
import re
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from autoglm_serve.cli import usage
from autoglm_serve.cli.parser import add_flags
from autoglm_serve.cli.running_service import state_dir_at
from autoglm_serve.cli.table import table
from autoglm_serve.config.options import Options
from autoglm_serve.core.errors import ConfigError, ExitCode
from autoglm_serve.keys import keys_file
from autoglm_serve.keys.key import (
    LIMITS,
    Key,
    KeysError,
    Limits,
    Scope,
    digest,
    key_from_plain,
    new_id,
    new_secret,
    plain,
)

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WHERE = {
    "keys_file": "The file to change; the service is started with the same.",
    "port": "The port of the service whose keys are meant, where --keys-file does not say.",
    "state_dir": "Its state directory, where it is not found by the port.",
    "usage_db": "The books that the service writes.",
}
_ACTIONS = {
    "create": "make a key, whose secret is shown this once",
    "list": "list the keys, without their secrets",
    "rotate": "give a key another secret, shown this once",
    "revoke": "close a key for good, at once",
    "usage": "what each key has used in the last days (autoglm usage has more)",
}
_BY = ("key", "owner")
_OF_CREATE = ("owner", "scope", "models", "paths", "expires", *LIMITS)
_HELP = {
    "requests_per_minute": "Requests in any 60 seconds.",
    "tokens_per_minute": "Tokens, read and written, in any 60 seconds.",
    "requests_per_day": "Requests a day (UTC).",
    "tokens_per_day": "Tokens a day (UTC).",
    "concurrency": "Requests at the same time.",
    "budget_tokens": "Tokens in all.",
    "queue_share": "Percent of the queue's places.",
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = f"autoglm keys {{{','.join(_ACTIONS)}}} [ID] [flags]"
    parser.add_argument(
        "action", choices=_ACTIONS, metavar="ACTION", help="; ".join(f"{a}: {w}" for a, w in _ACTIONS.items())
    )
    parser.add_argument("id", nargs="?", metavar="ID", help="The key that is rotated or revoked.")
    create = parser.add_argument_group("For create")
    create.add_argument("--owner", metavar="NAME", help="Whose it is; an owner may have several.")
    create.add_argument(
        "--scope",
        action="append",
        choices=[scope.value for scope in Scope],
        help="What it opens; may be given again. [inference]",
    )
    create.add_argument("--models", type=_names, metavar="NAME[,NAME]", help="Only these. [all]")
    create.add_argument(
        "--paths", type=_names, metavar="PATH[,PATH]", help="Only these; * ends a beginning. [all]"
    )
    create.add_argument("--expires", type=_seconds, metavar="TIME", help="After 30d, 12h, 90m … [never]")
    for name in LIMITS:
        create.add_argument(
            "--" + name.replace("_", "-"), type=int, metavar="N", help=f"{_HELP[name]} [no limit]"
        )
    rotate = parser.add_argument_group("For rotate")
    rotate.add_argument(
        "--keep-old", type=_seconds, metavar="TIME", help="The old one works so long. [not at all]"
    )
    parser.add_argument("--json", action="store_true", help="Print the list as JSON.")
    add_flags(parser, only=_WHERE, words=_WHERE)


def run(args: Namespace, options: Options) -> int:
    _check(args)
    path = _file(options)
    now_s = int(time.time())
    match args.action:
        case "create":
            _create(args, path, now_s)
        case "list":
            _list(args, path, now_s)
        case "rotate":
            _rotate(args, path, now_s)
        case "usage":
            today = datetime.now(UTC).date()
            found = usage.read(options, today - timedelta(days=31), today)
            print(usage.shown(usage.grouped(found, _BY), _BY))
        case _:
            keys_file.change(path, args.id, lambda key: replace(key, revoked_s=key.revoked_s or now_s))
            print(f"{args.id} opens nothing any more")
    return ExitCode.OK


def _check(args: Namespace) -> None:
    """What was given belongs to this action."""
    named = args.action in ("rotate", "revoke")
    strange = [name for name in _OF_CREATE if getattr(args, name) is not None and args.action != "create"]
    if args.keep_old is not None and args.action != "rotate":
        strange.append("keep_old")
    if strange:
        flags = ", ".join("--" + name.replace("_", "-") for name in strange)
        raise ConfigError(
            f"`autoglm keys {args.action}` has no {flags}.", next_step="See autoglm keys --help"
        )
    if named != (args.id is not None):
        wanted = "needs the ID of a key" if named else f"takes no ID ({args.id})"
        raise ConfigError(
            f"`autoglm keys {args.action}` {wanted}.", next_step="`autoglm keys list` names the keys."
        )


def _file(options: Options) -> Path:
    if options.keys_file is not None:
        return options.keys_file
    running = None if options.state_dir else state_dir_at(options.port)
    return (running or options.state_dir_for(options.port, os.environ)) / keys_file.KEYS_FILE


def _create(args: Namespace, path: Path, now_s: int) -> None:
    secret = new_secret()
    key = Key(
        id=new_id(),
        owner=args.owner or "",
        sha256=digest(secret.encode()),
        created_s=now_s,
        expires_s=now_s + args.expires if args.expires is not None else None,
        scopes=frozenset(map(Scope, args.scope or (Scope.INFERENCE,))),
        models=args.models or (),
        paths=args.paths or (),
        limits=Limits(**{name: getattr(args, name) for name in LIMITS}),
    )
    try:
        key_from_plain(plain(key))
    except KeysError as problem:
        raise ConfigError("That is no key.", why=str(problem), next_step="See autoglm keys --help") from None
    keys_file.add(path, key)
    print(f"{secret}\n\nThe key {key.id}, in {path}. This is the only time that its secret is shown.")


def _rotate(args: Namespace, path: Path, now_s: int) -> None:
    secret = new_secret()

    def rotated(key: Key) -> Key:
        if key.revoked_s is not None:
            raise ConfigError(
                f"The key {key.id} was revoked.", next_step="Make another with `autoglm keys create`."
            )
        before = key.sha256 if args.keep_old else None
        until_s = now_s + args.keep_old if args.keep_old else 0
        return replace(key, sha256=digest(secret.encode()), before=before, before_until_s=until_s)

    keys_file.change(path, args.id, rotated)
    print(f"{secret}\n\nThe key {args.id} has this secret now. This is the only time that it is shown.")


def _list(args: Namespace, path: Path, now_s: int) -> None:
    try:
        keys = list(keys_file.read((path,)))
    except KeysError as problem:
        raise ConfigError(
            "The API keys are not right.", why=str(problem), next_step="Mend that line."
        ) from None
    except OSError as problem:
        raise ConfigError(f"{path} cannot be read.", why=problem.strerror or str(problem)) from problem
    if args.json:
        told = ({name: value for name, value in plain(key).items() if name not in _SECRET} for key in keys)
        print(json.dumps(list(told), indent=2, ensure_ascii=False))
    elif keys:
        print(table(_HEAD, [_row(key, now_s) for key in keys]))
    else:
        print(f"There are no keys in {path}: any key is taken, and only this machine is listened to.")


_SECRET = frozenset({"sha256", "before"})
_HEAD = ("key", "owner", "created", "state", "opens", "limits")


def _row(key: Key, now_s: int) -> tuple[str, ...]:
    opens = (*sorted(key.scopes), *key.models, *key.paths)
    limits = (f"{name}={value}" for name in LIMITS if (value := getattr(key.limits, name)) is not None)
    why = key.why_not(now_s).removeprefix("it was ").removeprefix("it has ")
    state = why or (f"until {_day(key.expires_s)}" if key.expires_s is not None else "good")
    return (key.id, key.owner or "-", _day(key.created_s), state, " ".join(opens), " ".join(limits) or "-")


def _day(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d") if at_s else "-"


def _names(said: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in said.split(",") if name.strip())


def _seconds(said: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhd])", said)
    if found is None:
        raise ArgumentTypeError(f"{said!r} is no time such as 30d, 12h, 90m or 45s")
    return int(found[1]) * _UNITS_S[found[2]]
