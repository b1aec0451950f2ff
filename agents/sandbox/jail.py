"""A running jail as its parent, the warden, has it: started, measured, asked to end, killed, reaped, accounted.

The child between fork and exec sets what the program it becomes cannot set for itself: its death with its parent, its
cgroups, its limits, its descriptors. Which program that is, and with which arguments, the order says (`orders.py`,
made by an executor's plan). When to end is the warden's decision, not made here.

Imported by the warden: no dataclasses, no typing, no pathlib.
"""
# pathlib alone would add a third to the warden's start:
# ruff: noqa: PTH116, PTH123

import fcntl
import os
import resource
import signal
import time

from agents.sandbox import tree
from agents.sandbox.causes import Cause
from agents.sandbox.cgroups import Group, Layout
from agents.sandbox.driver import STATUS_FD, Reports
from agents.sandbox.space import SpaceWatch

TYPE_CHECKING = False  # typing itself would cost another third
if TYPE_CHECKING:
    from agents.sandbox.orders import Order

ARGS_FD = 10
SECCOMP_FD = 11
# Far above every descriptor given to the jail, so that putting one in place never closes another.
PARKED_FD = 64
LAST_COUNT_SECONDS = 2.0
# Signals to a whole service or terminal are the worker's to act on: it may want to let its jobs finish.
DEAF_TO = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


class Job:
    """The jail as its parent sees it."""

    def __init__(self, order: "Order") -> None:
        self.started = tree.boottime()
        self.open_status: list[int] = []
        self._order = order
        groups = Layout(order["cgroup_v1"], order["cgroup_v2"], tuple(order["cgroup_v2_controllers"]))
        self._group = Group(groups, order["cgroup_name"])
        self._reports = Reports(order["step_count"])
        self._space = SpaceWatch(order["space_roots"], order["workspace_bytes"], self.started)
        self._pid = 0
        self._wait_status: int | None = None
        self._ended_at = self.started

    def start(self, log: int) -> None:
        order = self._order
        self._group.create(order["memory_bytes"], order["processes"], order["cores"])
        # The steps may open /dev/stderr anew, which the kernel allows only to the pipe's owner.
        os.fchown(log, order["uid"], order["gid"])
        status, report_to = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(report_to, True)
        self.open_status = [status]
        files = {0: _in_memory(order["driver"].encode()), 1: log, 2: log, STATUS_FD: report_to}
        if order["jail_arguments"]:
            files[ARGS_FD] = _in_memory("\0".join(order["jail_arguments"]).encode())
        if order["seccomp"]:
            files[SECCOMP_FD] = _in_memory(bytes.fromhex(order["seccomp"]))
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _become_jail(order, self._group, files, parent)
        for descriptor in {*files.values()} - {log}:
            os.close(descriptor)

    def reap(self) -> bool:
        """Reaps what has ended. True once nothing below this process is left."""
        ended, is_any_left = tree.reap_all()
        if self._pid in ended:
            self._wait_status = ended[self._pid]
            self._ended_at = tree.boottime()
        return not is_any_left

    @property
    def has_ended(self) -> bool:
        return self._wait_status is not None

    def kill(self) -> None:
        if not self._group.kill():
            tree.send(self._group.pids(), signal.SIGKILL)
        tree.stop_and_kill(os.getpid())

    def ask_to_end(self) -> None:
        """SIGTERM for the steps. bwrap's monitor must live to report; pid 1 of the jail is deaf to it anyway."""
        spared = self._pid if self._order["jail_arguments"] else 0
        tree.send([pid for pid in tree.descendants(os.getpid()) if pid != spared], signal.SIGTERM)

    def broken_limit(self, now: float) -> Cause | None:
        """One process killed for want of memory is the end of the job: what it leaves is nobody's intent."""
        if self._group.out_of_memory_kills() > 0:
            return Cause.OUT_OF_MEMORY
        is_full = not self.has_ended and self._space.is_exceeded(now, self._pids())
        return Cause.WORKSPACE_FULL if is_full else None

    def _pids(self) -> list[int]:
        return self._group.pids() or tree.descendants(os.getpid())

    def read_reports(self) -> list[dict[str, object]]:
        data = b""
        for status in self.open_status:
            try:
                data = os.read(status, 65536)
            except BlockingIOError:
                return []
        if not data:
            self.open_status = []  # at its end it would be readable for ever
        now, at = tree.boottime(), int(time.time() * 1000)
        return [
            {"is": word, "step": step, "code": code, "clock": now, "at": at}
            for word, step, code in self._reports.feed(data)
        ]

    def finish(self, cause: Cause | None) -> dict[str, object]:
        """Reads the accounts of the dead tree and takes its group away."""
        code = os.waitstatus_to_exitcode(self._wait_status or 0)
        if cause is None and not self._reports.is_up:
            cause = Cause.START_FAILED
        if cause is None and self._group.out_of_memory_kills() > 0:
            cause = Cause.OUT_OF_MEMORY
        if cause is None and self._space.is_exceeded_at_last(LAST_COUNT_SECONDS):
            cause = Cause.WORKSPACE_FULL
        report = {"is": "over", "cause": cause, "code": code, "clock": self._ended_at, **self._use()}
        self._group.remove()
        return report

    def _use(self) -> dict[str, object]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        is_estimated = not self._group.can_account
        return {
            "wall_seconds": self._ended_at - self.started,
            "cpu_seconds": children.ru_utime + children.ru_stime if is_estimated else self._group.cpu_seconds(),
            "memory_peak_bytes": children.ru_maxrss * 1024 if is_estimated else self._group.memory_peak_bytes(),
            "is_estimated": is_estimated,
        }


def _in_memory(data: bytes) -> int:
    descriptor = os.memfd_create("fedci")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _become_jail(order: "Order", group: Group, files: dict[int, int], parent: int) -> None:
    """Runs in the forked child; never returns."""
    try:
        tree.die_with(parent)
        os.setsid()
        group.enter()
        _set_limits(order, group)
        _put_in_place(files)
        for number in (*DEAF_TO, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(order["directory"])
        os.execve(order["command"][0], order["command"], order["environment"])  # noqa: S606 - that is its work
    except BaseException as error:  # noqa: BLE001 - a fork: nothing may go on in the warden's code
        os.write(2, f"fedci: the sandbox did not start: {error}\n".encode())
    finally:
        os._exit(125)


def _set_limits(order: "Order", group: Group) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_FSIZE, order["workspace_bytes"])
    if "memory" not in group.controllers:
        _lower(resource.RLIMIT_DATA, order["memory_bytes"])
    if order["uid"] != os.getuid() or "pids" not in group.controllers:
        # Counted by uid: exact for a slot's own uid; otherwise the worker's other processes count too, so allow them.
        others = 0 if order["uid"] != os.getuid() else _processes_of(order["uid"])
        _lower(resource.RLIMIT_NPROC, others + order["processes"])
    # When the machine itself runs out of memory, the job goes before the worker does.
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


def _lower(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def _processes_of(uid: int) -> int:
    count = 0
    for pid in tree.all_pids():
        try:
            count += os.stat(f"/proc/{pid}").st_uid == uid
        except OSError:
            continue
    return count


def _put_in_place(files: dict[int, int]) -> None:
    parked = {target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, PARKED_FD) for target, source in files.items()}
    for target, source in parked.items():
        os.dup2(source, target, inheritable=True)
