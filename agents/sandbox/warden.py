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

import json
import os
import select
import signal

from agents.sandbox import tree
from agents.sandbox.causes import POLITE, Cause
from agents.sandbox.jail import DEAF_TO, Job

TYPE_CHECKING = False  # typing itself would cost another third
if TYPE_CHECKING:
    from agents.sandbox.orders import Order

LONGEST_POLL_SECONDS = 0.25
KILL_POLL_SECONDS = 0.005


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

    def _watch(self, job: Job, woken: int) -> None:
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

    def _pass_on_reports(self, job: Job) -> None:
        for report in job.read_reports():
            self._tell(report)

    def _look_at_limits(self, job: Job, now: float) -> None:
        cause = self._deadlines.due(now)
        if cause is None and self._deadlines.cause is None:
            cause = job.broken_limit(now)
        if cause is not None:
            self._end(job, cause, now)

    def _end(self, job: Job, cause: Cause, now: float) -> None:
        is_first = self._deadlines.cause is None
        self._deadlines.end(cause, now)
        if is_first and not self._deadlines.must_kill(now):
            job.ask_to_end()

    def _wait(self, job: Job, woken: int, pause: float) -> None:
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
