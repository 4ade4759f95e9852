"""What an engine that we run ourselves may still do once it has its model: nearly nothing but compute.

A request reaches C++ that reads pictures, sounds and grammars. Whoever gets further than a crash there finds
no network, no program to start, no file but the model's, no privileges, and no more memory than one engine
should have. All of it is the kernel's (Landlock, seccomp, capabilities, limits) and asked for by a few calls:
a library for each would be four dependencies in the process that is to be trusted least. What a kernel does
not have is said and done without.
"""

import ctypes
import errno
import os
import platform
import resource
import struct
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_SPARE_BYTES = 8 << 30
"""Of private memory beyond twice the model: stacks of threads count whole, though hardly used."""
_SHARE_OF_MACHINE = 0.8
_OPEN_FILES = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """What stays open."""

    reads: tuple[Path, ...]
    """Files, and folders with all that is in them, beside Python's own."""
    writes: tuple[Path, ...]
    """Folders."""
    network: bool = False
    """It listens on a port."""
    starts: tuple[Path, ...] = ()
    """Programs that it starts, which run in the same box."""


def confine(box: Sandbox) -> tuple[str, ...]:
    """Closes it around this process, before it starts threads; returns what could not be closed, in words.

    There is no way out again, for this process and for what it starts.
    """
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("its memory and files are not bounded", lambda: _limit(box)),
        ("it could gain privileges", _no_new_privileges),
        ("it keeps the privileges of root", _drop_capabilities),
        ("it may read and write any file that this account may", lambda: _close_files(box)),
        ("it may use the network and start programs", lambda: _filter_calls(box)),
    )
    return tuple(f"{lack} ({why})" for lack, do in steps if (why := _failure(do)))


def _failure(do: Callable[[], None]) -> str:
    try:
        do()
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


# --- limits and privileges ------------------------------------------------------------------------------


def _limit(box: Sandbox) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold prompts
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    model = sum(path.stat().st_size for path in box.reads if path.is_file())
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    _lower(resource.RLIMIT_DATA, max(int(machine * _SHARE_OF_MACHINE), 2 * model + _SPARE_BYTES))


def _lower(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38


def _no_new_privileges() -> None:
    _called(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_READ_SEARCH = 1 << 2


def _drop_capabilities() -> None:
    """Of root's, it keeps that of reading a model in somebody else's folder: Landlock says which."""
    if os.geteuid() != 0:
        return
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    kept = struct.pack("IIIIII", _CAP_DAC_READ_SEARCH, _CAP_DAC_READ_SEARCH, 0, 0, 0, 0)
    if _LIBC.capset(header, kept):  # in a container it may lack even that
        _called(_LIBC.capset(header, bytes(24)))


# --- files: Landlock ------------------------------------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL = (1 << at for at in (0, 1, 2, 3, 14, 15))
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_KNOWN_BITS = {1: 13, 2: 14, 3: 15, 4: 15}
"""Rights that a version of Landlock knows; later ones 16."""
_SYSTEM = ("/usr", "/lib", "/lib64", "/proc", "/sys/devices", "/etc/ld.so.cache", "/etc/localtime")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def _close_files(box: Sandbox) -> None:
    version = _LIBC.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        raise OSError(errno.ENOSYS, "the kernel has no Landlock, or it is switched off")
    handled = (1 << _KNOWN_BITS.get(version, 16)) - 1
    rules = _called(_LIBC.syscall(_CREATE_RULESET, _attributes(handled, version), _size(version), 0))
    try:
        look = _READ_FILE | _READ_DIR
        for path in (*_python(), *_SYSTEM, *map(os.path.realpath, box.reads)):
            _open_up(rules, str(path), look)
        for program in (*box.starts, *(_loaders() if box.starts else ())):
            _open_up(rules, os.path.realpath(program), _EXECUTE | _READ_FILE)
        for device in _DEVICES:
            _open_up(rules, device, _READ_FILE | _WRITE_FILE)
        for folder in box.writes:
            _open_up(rules, str(folder), handled)
        _no_new_privileges()
        _called(_LIBC.syscall(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)


def _attributes(handled: int, version: int) -> bytes:
    """No TCP is handled: seccomp takes sockets away whole. From version 6 on no signal leaves the box."""
    return struct.pack("QQQ", handled, 0, 2 if version >= 6 else 0)


def _size(version: int) -> int:
    return 8 if version < 4 else 16 if version < 6 else 24


def _python() -> Iterable[str]:
    """Where Python and what it has not imported yet lie."""
    return dict.fromkeys((sys.prefix, sys.base_prefix, *filter(os.path.isabs, sys.path)))


def _loaders() -> Iterable[Path]:
    """What the kernel starts with every program: the dynamic loader."""
    return (path for pattern in ("lib*/ld-*.so*", "lib/*/ld-*.so*") for path in Path("/").glob(pattern))


def _open_up(rules: int, path: str, rights: int) -> None:
    with suppress(FileNotFoundError):
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rights = rights if os.path.isdir(path) else rights & _OF_A_FILE
            rule = struct.pack("=Qi", rights, place)
            _called(_LIBC.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0))
        finally:
            os.close(place)


# --- calls: seccomp -------------------------------------------------------------------------------------

_DENIED = {  # ptrace, process_vm_*, mount, umount2, pivot_root, chroot, unshare, setns, bpf, perf_event_open,
    # add_key, request_key, keyctl, io_uring_setup (makes sockets of its own), kexec_load, init_module,
    # finit_module, userfaultfd
    "x86_64": (101, 310, 311, 165, 166, 155, 161, 272, 308, 321, 298, 248, 249, 250, 425, 246, 175, 313, 323),
    "aarch64": (117, 270, 271, 40, 39, 41, 51, 97, 268, 280, 241, 217, 218, 219, 425, 104, 105, 273, 282),
}
_STARTS = {"x86_64": (59, 322), "aarch64": (221, 281)}
"""execve, execveat."""
_SOCKET = {"x86_64": 41, "aarch64": 198}
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EACCES
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_AF_UNIX = 1


def _filter_calls(box: Sandbox) -> None:
    machine = platform.machine()
    if machine not in _DENIED:
        raise ValueError(f"its calls are not known on {machine}")
    steps = [
        *((_LOAD, 0, 0, _ARCHITECTURE_AT), (_IF_EQUAL, 1, 0, _ARCHITECTURE[machine]), (_RETURN, 0, 0, _KILL)),
        *((_LOAD, 0, 0, _NUMBER_AT), (_IF_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)),
    ]
    for number in (*_DENIED[machine], *(() if box.starts else _STARTS[machine])):
        steps += [(_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    if not box.network:
        steps += [(_IF_EQUAL, 0, 3, _SOCKET[machine]), (_LOAD, 0, 0, _FIRST_ARGUMENT_AT)]
        steps += [(_IF_EQUAL, 1, 0, _AF_UNIX), (_RETURN, 0, 0, _REFUSE)]
    steps += [(_RETURN, 0, 0, _ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    told = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(program)))
    _called(_LIBC.prctl(_PR_SET_SECCOMP, 2, told, 0, 0))


def _called(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
