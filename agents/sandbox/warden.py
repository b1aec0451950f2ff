"""The process that ends a job whatever happens to its worker: parent of the jail, apart from every event loop.

It is started with two descriptors, a socket to the worker and the write end of the log pipe, and waits for one order
(`orders.py` makes it). Then it starts the jail and waits for the first of:

1. the jail's own end;
2. the worker's word (`end`), or the worker's death (the socket's end of file);
3. the end of the lease (CLOCK_BOOTTIME, moved only by `extend`; a stopped or frozen worker moves nothing), the end
   of the wall time, a workspace over its limit.

Polite causes get SIGTERM and a grace, the others SIGKILL. In the end everything below this process is killed and
reaped, then accounts are read, the cgroup is removed, and `over` is reported. If this process is killed itself, the
kernel kills the jail (PR_SET_PDEATHSIG through bwrap's own `--die-with-parent` and pid namespace); what the `process`
executor had detached by then is killed by the worker, or by its next life (`orphans.py`).

It never waits for the worker: what the worker does not read is kept in memory, bounded by the number of steps.
Started as `python -I -S`: standard library only, and of that only what starts fast.
"""
# pathlib alone would add a third to the warden's start:
# ruff: noqa: PTH116, PTH123

import fcntl
import json
import os
import resource
import select
import signal
import time

from agents.sandbox import tree
from agents.sandbox.causes import POLITE, Cause
from agents.sandbox.cgroups import Group, Layout
from agents.sandbox.driver import STATUS_FD, Reports
from agents.sandbox.space import SpaceWatch

TYPE_CHECKING = False  # typing itself would cost another third
if TYPE_CHECKING:
    from agents.sandbox.orders import Order

ARGS_FD = 10
SECCOMP_FD = 11
# Signals to a whole service or terminal are the worker's to act on: it may want to let its jobs finish.
DEAF_TO = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
# Far above every descriptor given to the jail, so that putting one in place never closes another.
PARKED_FD = 64
LONGEST_POLL_SECONDS = 0.25
KILL_POLL_SECONDS = 0.005
LAST_COUNT_SECONDS = 2.0


class Deadlines:
    """When the job has to end, and of what. Decides only; the clock's reading comes in."""

    def __init__(self, lease_until: float, wall_until: float, grace_seconds: float) -> None:
        self.lease_until = lease_until
        self.wall_until = wall_until
        self.cause: Cause | None = None
        self.kill_at: float | None = None
        self._grace_seconds = grace_seconds

    def extend(self, lease_until: float) -> None:
        self.lease_until = max(self.lease_until, lease_until)

    def end(self, cause: Cause, now: float) -> None:
        """Notes the first cause; a later, impolite one only takes the grace away."""
        if self.cause is None:
            self.cause = cause
        kill_at = now + self._grace_seconds if cause in POLITE else now
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)

    def due(self, now: float) -> Cause | None:
        """Returns the limit in time that has just been passed, if any."""
        if now >= self.lease_until and self.cause is not Cause.LEASE_LOST:
            return Cause.LEASE_LOST
        if now >= self.wall_until and self.cause is None:
            return Cause.WALL_TIMEOUT
        return None

    def must_kill(self, now: float) -> bool:
        return self.kill_at is not None and now >= self.kill_at

    def next_at(self) -> float:
        ends = [self.lease_until, self.wall_until, self.kill_at]
        return min(end for end in ends if end is not None)


class Warden:
    def __init__(self, control: int) -> None:
        self._control = control
        self._inbox = b""
        self._outbox = b""
        self._order: Order | None = None
        self._worker_is_gone = False
        self._deadlines = Deadlines(float("inf"), float("inf"), 0.0)
        os.set_blocking(control, False)

    def serve(self, log: int, woken: int) -> None:
        order = self._wait_for_order()
        if order is None:
            return
        job = Job(order)
        self._deadlines = Deadlines(order["lease_until"], job.started + order["wall_seconds"], order["grace_seconds"])
        job.start(log)
        os.close(log)
        self._watch(job, woken)
        self._tell(job.finish(self._deadlines.cause))
        self._flush_before_leaving()

    def _wait_for_order(self) -> "Order | None":
        while self._order is None and not self._worker_is_gone:
            select.select([self._control], [], [])
            self._hear()
        return self._order

    def _watch(self, job: "Job", woken: int) -> None:
        while not job.reap():
            now = tree.boottime()
            self._look_at_limits(job, now)
            if job.has_ended or self._deadlines.must_kill(now):
                job.kill()
                pause = KILL_POLL_SECONDS
            else:
                pause = max(0.0, min(LONGEST_POLL_SECONDS, self._deadlines.next_at() - now))
            self._wait(job, woken, pause)
            self._pass_on_reports(job)
        self._pass_on_reports(job)

    def _pass_on_reports(self, job: "Job") -> None:
        for report in job.read_reports():
            self._tell(report)

    def _look_at_limits(self, job: "Job", now: float) -> None:
        cause = self._deadlines.due(now)
        if cause is None and self._deadlines.cause is None:
            cause = job.broken_limit(now)
        if cause is not None:
            self._end(job, cause, now)

    def _end(self, job: "Job", cause: Cause, now: float) -> None:
        is_first = self._deadlines.cause is None
        self._deadlines.end(cause, now)
        if is_first and not self._deadlines.must_kill(now):
            job.ask_to_end()

    def _wait(self, job: "Job", woken: int, pause: float) -> None:
        readers = [woken, *job.open_status, *([] if self._worker_is_gone else [self._control])]
        writers = [self._control] if self._outbox and not self._worker_is_gone else []
        readable, writable, _ = select.select(readers, writers, [], pause)
        if woken in readable:
            os.read(woken, 4096)
        if writable:
            self._flush()
        if self._control in readable:
            for word, cause, lease_until in self._hear():
                if word == "extend":
                    self._deadlines.extend(lease_until)
                else:
                    self._end(job, Cause(cause), tree.boottime())

    def _hear(self) -> list[tuple[str, str, float]]:
        try:
            data = os.read(self._control, 1 << 20)
        except BlockingIOError:
            return []
        except ConnectionError:
            data = b""
        if not data:
            self._worker_is_gone = True
            return [("end", Cause.WORKER_GONE, 0.0)]
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        words = [json.loads(line) for line in lines]
        for message in words:
            if message["do"] == "run":
                self._order = message
        return [(m["do"], m.get("cause", ""), m.get("until", 0.0)) for m in words if m["do"] != "run"]

    def _tell(self, message: dict[str, object]) -> None:
        self._outbox += json.dumps(message).encode() + b"\n"
        self._flush()

    def _flush(self) -> None:
        try:
            self._outbox = self._outbox[os.write(self._control, self._outbox) :]
        except BlockingIOError:
            pass
        except OSError:
            self._outbox = b""
            self._worker_is_gone = True

    def _flush_before_leaving(self) -> None:
        """Waits for a worker that is stopped: nothing of the job lives any more, so it may take as long as it likes."""
        while self._outbox:
            select.select([], [self._control], [])
            self._flush()


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


def main(control: int, log: int) -> None:
    """The whole life of one warden; the descriptors are inherited."""
    for descriptor in (control, log):
        os.set_inheritable(descriptor, False)
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in DEAF_TO:
        signal.signal(number, signal.SIG_IGN)
    tree.become_subreaper()
    Warden(control).serve(log, woken)
