"""Every option of the service, declared once.

`Options` is the declaration. The flags of `autoglm serve`, the `AUTOGLM_*` variables, the keys of
`autoglm.toml`, `autoglm config show` and docs/options.md are all read off its fields, so adding an option
is adding one field. This module knows names, types, bounds and words for people; where values come from is
`sources`, and what a value does is the business of whoever reads it.
"""

import shlex
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator, BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass

from autoglm_serve.engines.catalog import BY_OPTION

ENV_PREFIX = "AUTOGLM_"
AUTO = "auto"


class Section(StrEnum):
    """The headings under which --help and docs/options.md show the options."""

    ADDRESS = "Address"
    MODEL = "Model"
    ENGINE = "Engine"
    PLAN = "Plan for GPUs"
    GATEWAY = "Gateway"
    ACCESS = "Access"
    SPEECH = "Speech"
    STATE = "State and logs"


@dataclass(frozen=True, slots=True)
class Doc:
    """How one option is explained to a person."""

    section: Section
    help: str
    metavar: str = ""
    """What stands for the value in --help; empty where the choices or a switch say it."""
    unset: str = ""
    """What holds while nobody sets it, where the default value does not say."""
    flag: bool = True
    """False where the command line has a form of its own."""
    live: bool = True
    """False where it cannot change while the service runs, though others of its section can."""


# --- Types: what a person may write, and what it becomes ------------------------------------------------


def _split_commas(value: object) -> object:
    """`a,b` is two values, and a flag given twice adds up."""
    items = [value] if isinstance(value, str) else value
    if isinstance(items, list | tuple) and all(isinstance(item, str) for item in items):
        return tuple(part.strip() for item in items for part in item.split(",") if part.strip())
    return value


def _split_words(value: object) -> object:
    return tuple(shlex.split(value)) if isinstance(value, str) else value


def _no_switch(value: object) -> object:
    """Python counts True as 1; who writes `replicas = true` means something else."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is not a number")
    return value


def _auto_is_unset(value: object) -> object:
    return None if value == "auto" else value


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _name(name: str) -> str:
    if not name or not name.isprintable() or any(character.isspace() for character in name):
        raise ValueError(f"{name!r} is not a name: no blanks, nothing that cannot be printed")
    return name


def _upstream(url: str) -> str:
    """http://HOST[:PORT], as the gateway dials it; the `/v1` that clients write is dropped."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.path not in ("", "/", "/v1", "/v1/") or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is not an address such as http://127.0.0.1:8001")
    return f"http://{parts.netloc}"


def _network(said: str) -> str:
    try:
        return str(ip_network(said))
    except ValueError as error:
        raise ValueError(f"{said!r} is no address or network such as 10.0.0.0/8: {error}") from error


def _expanded(path: Path | None) -> Path | None:
    try:
        return path and path.expanduser()
    except RuntimeError as error:  # ~ of a user that there is not
        raise ValueError(f"{str(path)!r} cannot be found: {error}") from error


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    repeated = next((value for value in values if values.count(value) > 1), None)
    if repeated is not None:
        raise ValueError(f"{repeated!r} is given twice")
    return values


@dataclass(frozen=True, slots=True)
class OneOf:
    """The values that a text may have, where they are known at run time alone."""

    choices: tuple[str, ...]


def _engine(name: str) -> str:
    if name != AUTO and name not in BY_OPTION:
        raise ValueError(f"{name!r} is not one of {', '.join((AUTO, *BY_OPTION))}")
    return name


Text = Annotated[str, MinLen(1)]
Whole = Annotated[int, BeforeValidator(_no_switch)]
AutoWhole = Annotated[int | None, Ge(1), BeforeValidator(_no_switch), BeforeValidator(_auto_is_unset)]
AutoThreads = Annotated[
    int | None, Ge(1), Le(512), BeforeValidator(_no_switch), BeforeValidator(_auto_is_unset)
]
AutoWorkers = Annotated[
    int | None, Ge(1), Le(64), BeforeValidator(_no_switch), BeforeValidator(_auto_is_unset)
]
"""As many as have a row in the gateway's table, and one for a successor."""
AutoShare = Annotated[
    float | None, Ge(0.05), Le(1), BeforeValidator(_no_switch), BeforeValidator(_auto_is_unset)
]
AutoSeconds = Annotated[
    float | None, Ge(0.0001), BeforeValidator(_no_switch), BeforeValidator(_auto_is_unset)
]
Seconds = Annotated[float, Ge(0), BeforeValidator(_no_switch)]
SomeSeconds = Annotated[float, Ge(0.1), BeforeValidator(_no_switch)]
Names = Annotated[
    tuple[Annotated[str, AfterValidator(_name)], ...],
    BeforeValidator(_split_commas),
    AfterValidator(_distinct),
]
Addresses = Annotated[
    tuple[Annotated[str, AfterValidator(_upstream)], ...],
    BeforeValidator(_split_commas),
    AfterValidator(_distinct),
]
Networks = Annotated[
    tuple[Annotated[str, AfterValidator(_network)], ...],
    BeforeValidator(_split_commas),
    AfterValidator(_distinct),
]
Words = Annotated[tuple[str, ...], BeforeValidator(_split_words)]
Folder = Annotated[Path | None, AfterValidator(_expanded)]
EngineName = Annotated[str, OneOf((AUTO, *BY_OPTION)), BeforeValidator(_lower), AfterValidator(_engine)]
Goal = Annotated[Literal["balanced", "throughput", "latency"], BeforeValidator(_lower)]
Dtype = Annotated[Literal["auto", "bfloat16", "float16"], BeforeValidator(_lower)]
Hub = Annotated[Literal["huggingface", "modelscope"], BeforeValidator(_lower)]
UnknownFields = Annotated[Literal["auto", "pass", "refuse"], BeforeValidator(_lower)]
LogFormat = Annotated[Literal["auto", "plain", "json"], BeforeValidator(_lower)]
RequestsToLog = Annotated[Literal["all", "errors", "off"], BeforeValidator(_lower)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]


# --- The declaration ------------------------------------------------------------------------------------


@checked_dataclass(
    frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False)
)
class Options:
    """What a person can set. Construction checks types and bounds; `load` reads the sources."""

    host: Annotated[
        Text,
        Doc(Section.ADDRESS, "Address to listen on. 0.0.0.0 takes every network interface.", "ADDRESS"),
    ] = "127.0.0.1"
    port: Annotated[
        Whole, Ge(0), Le(65535), Doc(Section.ADDRESS, "TCP port to listen on. 0 takes any free one.", "PORT")
    ] = 8000

    tls_cert: Annotated[
        Folder,
        Doc(
            Section.ADDRESS,
            "Answer HTTPS under this certificate (PEM, the chain, leaf first). Changed files are used within "
            "a second, for new connections.",
            "FILE",
            unset="plain HTTP",
        ),
    ] = None
    tls_key: Annotated[
        Folder,
        Doc(
            Section.ADDRESS,
            "The certificate's key (PEM, without a password).",
            "FILE",
            unset="in the same file as the certificate",
        ),
    ] = None
    tls_client_ca: Annotated[
        Folder,
        Doc(
            Section.ADDRESS,
            "Ask every client for a certificate that one of these authorities has signed (PEM; mutual TLS).",
            "FILE",
            unset="clients need none",
        ),
    ] = None
    allow_host: Annotated[
        Names,
        Doc(
            Section.ADDRESS,
            "Names under which the service may be asked (the Host header), beside addresses of numbers, "
            "names without a dot, and --host. * is any. Name the one under which a proxy on this machine is "
            "asked, if it hands that on.",
            "NAME[,NAME]",
            unset="none more while it listens for this machine alone, else any",
        ),
    ] = ()
    open_to_network: Annotated[
        bool,
        Doc(
            Section.ADDRESS,
            "Listen on an address that other machines reach though there are no API keys: whoever reaches it "
            "may use it.",
        ),
    ] = False

    model: Annotated[
        Text | None,
        Doc(
            Section.MODEL,
            "What to serve: a GGUF file, a folder, or a repository on the hub such as "
            "zai-org/AutoGLM-Phone-9B.",
            "MODEL",
            unset="the bundled demo model",
        ),
    ] = None
    served_model_name: Annotated[
        Names,
        Doc(
            Section.MODEL,
            "The name clients ask for, then any aliases of it.",
            "NAME[,ALIAS]",
            unset="the model's own name",
        ),
    ] = ()
    mmproj: Annotated[
        Folder,
        Doc(
            Section.MODEL,
            "The vision or audio tower (mmproj) of a GGUF model, for the embedded engine.",
            "FILE",
            unset="the one beside the model, or one folder up",
        ),
    ] = None
    revision: Annotated[
        Text | None,
        Doc(
            Section.MODEL,
            "The commit, tag or branch of the repository. A commit stays what it is, whoever writes to the "
            "repository later.",
            "REVISION",
            unset="the newest",
        ),
    ] = None
    hub: Annotated[Hub, Doc(Section.MODEL, "Where a repository is downloaded from.")] = "huggingface"

    engine: Annotated[
        EngineName,
        Doc(
            Section.ENGINE,
            "The program that runs the model. auto takes vLLM where a GPU and vLLM are there, and the "
            "embedded llama.cpp elsewhere. external serves what runs at --upstream.",
        ),
    ] = "auto"
    upstream: Annotated[
        Addresses,
        Doc(
            Section.ENGINE,
            "Addresses that already serve the model, one a replica, for --engine external.",
            "URL[,URL]",
            unset="none",
            live=False,
        ),
    ] = ()
    replicas: Annotated[
        AutoWhole,
        Doc(
            Section.ENGINE,
            "How many copies of the engine share the requests.",
            "N",
            unset="chosen for the hardware; 2 without a GPU",
        ),
    ] = None
    threads: Annotated[
        AutoThreads,
        Doc(
            Section.ENGINE,
            "CPU threads of each replica of the embedded engine.",
            "N",
            unset="the cores, shared out among the replicas",
        ),
    ] = None
    max_model_len: Annotated[
        AutoWhole,
        Doc(
            Section.ENGINE,
            "Longest context in tokens, prompt and answer together.",
            "TOKENS",
            unset="chosen for the model and the memory",
        ),
    ] = None
    max_num_seqs: Annotated[
        AutoWhole,
        Doc(
            Section.ENGINE,
            "Requests that one replica works on at the same time.",
            "N",
            unset="chosen for the engine",
        ),
    ] = None
    engine_args: Annotated[
        Words,
        Doc(
            Section.ENGINE,
            "Flags handed to the engine as they are, after its own. On the command line they follow a "
            "bare --.",
            unset="none",
            flag=False,
        ),
    ] = ()

    goal: Annotated[
        Goal,
        Doc(
            Section.PLAN,
            "What the plan is for: the most steps per second (throughput), the shortest single step "
            "(latency), or the most steps per second that a single step does not suffer much for (balanced). "
            "A target below wins over it.",
        ),
    ] = "balanced"
    sessions: Annotated[
        Whole,
        Ge(1),
        Doc(Section.PLAN, "Phone agents that work at the same time, for the plan's figures.", "N"),
    ] = 32
    target_ttft: Annotated[
        AutoSeconds,
        Doc(Section.PLAN, "Time to the first token that the plan must reach.", "SECONDS", unset="none"),
    ] = None
    target_tpot: Annotated[
        AutoSeconds,
        Doc(Section.PLAN, "Time per output token that the plan must reach.", "SECONDS", unset="none"),
    ] = None
    tp: Annotated[
        AutoWhole,
        Doc(
            Section.PLAN, "GPUs that share each layer of one replica (tensor parallel).", "N", unset="chosen"
        ),
    ] = None
    pp: Annotated[
        AutoWhole,
        Doc(Section.PLAN, "GPUs that take turns on one replica's layers (pipeline).", "N", unset="chosen"),
    ] = None
    gpus: Annotated[
        Names,
        Doc(Section.PLAN, "The GPUs to use, by number among the visible ones.", "N[,N]", unset="all"),
    ] = ()
    dtype: Annotated[
        Dtype,
        Doc(Section.PLAN, "Number format of the weights. auto takes the checkpoint's where the GPU can."),
    ] = "auto"
    quantization: Annotated[
        Text | None,
        Doc(
            Section.PLAN,
            "none, auto (fp8 where it helps), or a method that the engine applies while loading, such as "
            "fp8. It changes answers slightly.",
            "METHOD",
            unset="the checkpoint as it is",
        ),
    ] = None
    max_num_batched_tokens: Annotated[
        AutoWhole,
        Doc(
            Section.PLAN,
            "Tokens of one forward pass; also the longest image that is let through.",
            "TOKENS",
            unset="chosen for the model",
        ),
    ] = None
    gpu_memory_utilization: Annotated[
        AutoShare,
        Doc(
            Section.PLAN,
            "Share of each GPU's memory that the engine may take.",
            "SHARE",
            unset="chosen from what is free",
        ),
    ] = None
    max_pixels: Annotated[
        AutoWhole,
        Doc(
            Section.PLAN,
            "Larger images are scaled down to this area (as Hugging Face counts it).",
            "PIXELS",
            unset="the model's own bound",
        ),
    ] = None
    degrade: Annotated[
        bool,
        Doc(
            Section.PLAN,
            "Where an engine cannot start as planned for want of memory, start it once more with less: fewer "
            "sequences, then a shorter context.",
        ),
    ] = False

    gateway_workers: Annotated[
        AutoWorkers,
        Doc(
            Section.GATEWAY,
            "Gateway processes that share the port.",
            "N",
            unset="one for every 4 CPU cores, at least 1",
            live=False,
        ),
    ] = None
    allow_origin: Annotated[
        Names,
        Doc(
            Section.GATEWAY,
            "Web origins whose pages may call the API (CORS); what pages of others ask is not done. * is "
            "any; an empty list in the file is none.",
            "ORIGIN[,ORIGIN]",
            unset="none",
        ),
    ] = ("*",)
    allow_image_url: Annotated[
        bool,
        Doc(
            Section.GATEWAY,
            "The same as --allow-media-host '*': pictures at any public address that clients name are "
            "fetched. Off, as it lets any client make this machine call any of them; data URLs always work.",
        ),
    ] = False
    allow_media_host: Annotated[
        Names,
        Doc(
            Section.GATEWAY,
            "Hosts from which pictures, sounds and videos are fetched that clients name by address: HOST, "
            "*.DOMAIN or *, with :PORT where it is not 80 or 443. The gateway fetches, never an engine; an "
            "address of the own network only if it is written here in numbers.",
            "HOST[,HOST]",
            unset="none: media come with the request",
        ),
    ] = ()
    unknown_fields: Annotated[
        UnknownFields,
        Doc(
            Section.GATEWAY,
            "Fields of a request that this service does not know: passed to the engine, or refused by name. "
            "auto passes them while it listens for this machine alone.",
        ),
    ] = "auto"
    allow_field: Annotated[
        Names,
        Doc(
            Section.GATEWAY,
            "Fields that reach the engine as they come, without bounds: those that are refused because they "
            "run templates or code or load adapters (chat_template, mm_processor_kwargs …), and those that "
            "have a bound (grammar, n …).",
            "NAME[,NAME]",
            unset="none",
        ),
    ] = ()
    max_request_megapixels: Annotated[
        Whole,
        Ge(1),
        Le(100_000),
        Doc(
            Section.GATEWAY,
            "Pixels of all pictures of one request together, in millions. Beyond it: 400.",
            "MEGAPIXELS",
        ),
    ] = 128
    max_body_mb: Annotated[
        Whole, Ge(1), Le(4096), Doc(Section.GATEWAY, "Largest request body, in MiB. Beyond it: 413.", "MIB")
    ] = 64
    header_timeout_s: Annotated[
        SomeSeconds,
        Doc(Section.GATEWAY, "Time in which a request's headers must arrive. Beyond it: 408.", "SECONDS"),
    ] = 10.0
    max_held_mb: Annotated[
        Whole,
        Ge(1),
        Le(1 << 20),
        Doc(
            Section.GATEWAY,
            "What each gateway worker holds of requests that are not answered and answers that are not read, "
            "in MiB. Beyond it: 503.",
            "MIB",
        ),
    ] = 1024
    max_client_mb: Annotated[
        AutoWhole,
        Doc(
            Section.GATEWAY,
            "What it holds of one client (an address; on this machine an address and a key), in MiB.",
            "MIB",
            unset="half of max_held_mb",
        ),
    ] = None
    body_timeout_s: Annotated[
        SomeSeconds,
        Doc(
            Section.GATEWAY,
            "Time in which a request's body must arrive, or the next 16 KiB for each of these seconds of one "
            "that takes longer. Beyond it: 408.",
            "SECONDS",
        ),
    ] = 60.0
    keep_alive_s: Annotated[
        Seconds, Doc(Section.GATEWAY, "How long an idle connection is kept open.", "SECONDS")
    ] = 75.0
    wait_ready_s: Annotated[
        Seconds,
        Doc(
            Section.GATEWAY,
            "How long a request waits for a replica while none is ready and one may be again: it starts, is "
            "being restarted, or is an address of others that does not answer. Beyond it: 503. 0 answers at "
            "once. A model that is loaded on demand is waited for at least 30 s.",
            "SECONDS",
        ),
    ] = 600.0
    max_queue: Annotated[
        Whole,
        Ge(0),
        Doc(
            Section.GATEWAY,
            "Requests that wait in each gateway worker while every replica is at its capacity. Beyond it: "
            "429.",
            "N",
        ),
    ] = 256
    max_queue_mb: Annotated[
        Whole,
        Ge(1),
        Le(65536),
        Doc(Section.GATEWAY, "What the bodies of those requests may take, in MiB. Beyond it: 429.", "MIB"),
    ] = 256
    queue_timeout_s: Annotated[
        Seconds,
        Doc(Section.GATEWAY, "How long a request waits in that queue. Beyond it: 503.", "SECONDS"),
    ] = 60.0
    stall_timeout_s: Annotated[
        SomeSeconds,
        Doc(
            Section.GATEWAY,
            "The least silence in the middle of a stream after which it goes on with another replica; a "
            "slow engine is given more, by its own pace. A stream that does not begin goes elsewhere after "
            "at least three times as long.",
            "SECONDS",
        ),
    ] = 5.0
    request_timeout_s: Annotated[
        Seconds, Doc(Section.GATEWAY, "Longest life of one request. 0 sets no bound.", "SECONDS")
    ] = 1800.0
    drain_timeout_s: Annotated[
        Seconds,
        Doc(
            Section.GATEWAY,
            "How long requests in flight may take to finish when the service stops. What is not finished "
            "then ends in an error that says so. The default leaves room within the 30 s that most process "
            "managers give.",
            "SECONDS",
        ),
    ] = 20.0
    lame_duck_s: Annotated[
        Seconds,
        Doc(
            Section.GATEWAY,
            "How much of that time, after SIGTERM, new connections are still served while /ready says 503: "
            "load balancers and Kubernetes send some until they have heard. Ctrl-C and `autoglm stop` do "
            "without it.",
            "SECONDS",
        ),
    ] = 5.0

    keys_file: Annotated[
        Folder,
        Doc(
            Section.ACCESS,
            "The API keys, one a line, as `autoglm keys` writes them, or as bare secrets. The variable "
            "AUTOGLM_KEYS may hold more of the same. While there are none, any key is taken.",
            "FILE",
            unset="keys.jsonl in the state directory",
        ),
    ] = None
    upstream_key_file: Annotated[
        Folder,
        Doc(
            Section.ACCESS,
            "Holds the key that this service sends to the servers of --upstream. What its own clients send "
            "never goes there.",
            "FILE",
            unset="none is sent",
        ),
    ] = None

    trusted_proxy: Annotated[
        Networks,
        Doc(
            Section.ACCESS,
            "Proxies that may say for whom they ask, by X-Forwarded-For or PROXY protocol (1 and 2). Without "
            "it all that comes through one is one client, where there are no keys.",
            "NETWORK[,NETWORK]",
            unset="none",
        ),
    ] = ()
    max_client_connections: Annotated[
        AutoWhole,
        Doc(
            Section.ACCESS,
            "Connections of one address on another machine, in each gateway worker. Beyond it: 429.",
            "N",
            unset="half of all",
        ),
    ] = None
    usage_db: Annotated[
        Text | None,
        Doc(
            Section.ACCESS,
            "Where the usage of keys is booked: a file for SQLite, or postgresql://USER@HOST/NAME, whose "
            "password is best kept in a PGPASSFILE.",
            "FILE|URL",
            unset="usage.db in the state directory",
            live=False,
        ),
    ] = None

    speech: Annotated[
        bool,
        Doc(
            Section.SPEECH,
            "Understand speech beside the bundled demo model: /v1/audio/transcriptions, and audio in a chat. "
            "The speech model is loaded by the first request that needs it.",
        ),
    ] = True
    speech_name: Annotated[
        Names,
        Doc(
            Section.SPEECH,
            "The name that clients ask the speech model for, then any aliases, such as whisper-1.",
            "NAME[,ALIAS]",
            unset="the model's own name",
        ),
    ] = ()
    speech_idle_s: Annotated[
        Seconds,
        Doc(Section.SPEECH, "The speech model is let go after this long without a request.", "SECONDS"),
    ] = 300.0

    state_dir: Annotated[
        Folder,
        Doc(
            Section.STATE,
            "Folder for the records of running processes, the engines' logs and the control socket.",
            "FOLDER",
            unset="$XDG_STATE_HOME/autoglm-serve/PORT, or ~/.local/state/autoglm-serve/PORT",
        ),
    ] = None
    log_format: Annotated[
        LogFormat,
        Doc(Section.STATE, "How the service speaks. auto is a screen in a terminal, plain lines elsewhere."),
    ] = "auto"
    log_level: Annotated[LogLevel, Doc(Section.STATE, "The least serious kind of line to log.")] = "info"
    log_requests: Annotated[
        RequestsToLog,
        Doc(
            Section.STATE,
            "Which requests get a line when they are over: id, client, outcome, replica, times and tokens, "
            "never content. errors are those without an answer.",
        ),
    ] = "errors"

    @property
    def max_body_bytes(self) -> int:
        return self.max_body_mb * 1024 * 1024

    @property
    def refuses_unknown_fields(self) -> bool:
        if self.unknown_fields == "auto":
            return not self.for_this_machine_alone
        return self.unknown_fields == "refuse"

    @property
    def media_hosts(self) -> tuple[str, ...]:
        """From which media are fetched."""
        return (*self.allow_media_host, *(("*",) if self.allow_image_url else ()))

    @property
    def let_in_hosts(self) -> tuple[str, ...]:
        """The names under which the service may be asked, in lower case; * is any."""
        if not self.allow_host and not self.for_this_machine_alone:
            return ("*",)
        return ("localhost", self.host.lower(), *(name.lower() for name in self.allow_host))

    @property
    def for_this_machine_alone(self) -> bool:
        """No other machine reaches the address that is listened on."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    @property
    def max_queue_bytes(self) -> int:
        return self.max_queue_mb * 1024 * 1024

    def state_dir_for(self, port: int, environ: Mapping[str, str]) -> Path:
        """The state directory of the service on `port` (the real one, where 0 was asked for)."""
        if self.state_dir is not None:
            return self.state_dir
        home = Path(environ.get("HOME") or Path.home())
        base = environ.get("XDG_STATE_HOME") or home / ".local" / "state"
        return Path(base) / "autoglm-serve" / str(port)


# --- What the declaration says, for those who print or parse it ------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One field of `Options`, read off its declaration."""

    name: str
    doc: Doc
    default: object
    expects: str
    """What a right value looks like, for help and for errors."""
    choices: tuple[str, ...]
    switch: bool
    several: bool

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENV_PREFIX + self.name.upper()


@cache
def declared() -> tuple[Option, ...]:
    """Every option, in the order of the declaration."""
    hints = typing.get_type_hints(Options, include_extras=True)
    return tuple(_option(field.name, hints[field.name], field.default) for field in fields(Options))


def _option(name: str, hint: Any, default: object) -> Option:
    kind, *extras = typing.get_args(hint)
    doc = next(extra for extra in extras if isinstance(extra, Doc))
    bounds = [extra for extra in extras if isinstance(extra, Ge | Le)]
    several = typing.get_origin(kind) is tuple
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    choices = next((extra.choices for extra in extras if isinstance(extra, OneOf)), choices)
    return Option(
        name=name,
        doc=doc,
        default=default,
        expects=_one_of(choices) if choices else _expects(kind, bounds, doc),
        choices=choices,
        switch=kind is bool,
        several=several,
    )


def _one_of(choices: Iterable[str]) -> str:
    return "one of " + ", ".join(choices)


def _expects(kind: Any, bounds: Iterable[Ge | Le], doc: Doc) -> str:
    members = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return doc.metavar or "a list of words"
    if kind is bool:
        return "true or false"
    if int in (kind, *members):
        return "a whole number" + _between(bounds) + (", or auto" if type(None) in members else "")
    if kind is float:
        return "a number of seconds" + _between(bounds)
    if float in members:
        return "a number" + _between(bounds) + ", or auto"
    return "a path" if Path in members else "text"


def _between(bounds: Iterable[Ge | Le]) -> str:
    low = next((bound.ge for bound in bounds if isinstance(bound, Ge)), None)
    high = next((bound.le for bound in bounds if isinstance(bound, Le)), None)
    if high is not None:
        return f" from {low} to {high}"
    return f", {low} or more" if low is not None else ""
