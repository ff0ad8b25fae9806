"""An asyncio event loop on virtual time: a clock in whole nanoseconds that jumps to the next timer.

A run is a function of its seed only if three things hold that a stock loop on a fake clock does not give:

- **Timers fire in the order of (deadline, time of arming).** The heap holds `(when_ns, sequence, handle)` tuples; a
  stock loop compares float deadlines alone, and equal ones, which are normal in virtual time, fire in heap order.
- **Sets of tasks iterate alike.** `TaskGroup`, `asyncio.wait` and `all_tasks` keep tasks in sets, and a task hashes by
  its address. Here a task hashes by its number within its loop, and is named after it.
- **Nothing enters from outside.** Threads, sockets, processes and signals have no place on a virtual clock; the methods
  that reach for them raise `Escape` and say what to use instead.

One loop runs one world: make a new one for each run. Measured on one x86-64 core with heartbeats of 2,800 nodes: 2.2 to
3.2 microseconds a callback on CPython 3.11 to 3.13. The number of callbacks, not the heap, is what a run costs.
"""

import asyncio
import contextvars
import heapq
import threading  # noqa: TID251 - only to see that a call comes from another thread
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Final, NoReturn, TypeVarTuple, Unpack

from flightsw.errors import Deadlock, Escape, SimulationError
from flightsw.host.loop import untaken_error
from hil.sim.standstill import describe_standstill

Arguments = TypeVarTuple("Arguments")

LOOP_VERSION: Final = 1
"""Part of a run's identity: two versions may order the same callbacks differently."""

SECOND_NS: Final = 1_000_000_000
CANCELLED_TIMERS_MIN: Final = 64  # a smaller heap is not worth a purge: popping the cancelled timers costs as little

_OUTSIDE: Final = {
    "threads do not wait for virtual time; call the function itself and charge its modelled time by a sleep": """
        run_in_executor set_default_executor""",
    "no network under virtual time; use a memory link": """
        getaddrinfo getnameinfo create_connection create_server create_datagram_endpoint create_unix_connection
        create_unix_server connect_accepted_socket start_tls sendfile sock_accept sock_connect sock_recv sock_recv_into
        sock_recvfrom sock_recvfrom_into sock_sendall sock_sendfile sock_sendto""",
    "file descriptors do not wait for virtual time; use a memory link": """
        add_reader add_writer remove_reader remove_writer connect_read_pipe connect_write_pipe""",
    "processes do not wait for virtual time; use a node of kind 'process' in real time": """
        subprocess_exec subprocess_shell""",
    "signals arrive in wall time; asyncio.Runner turns Ctrl-C into a cancelled main task": """
        add_signal_handler remove_signal_handler""",
    "tasks must hash by their number, so the loop makes them itself": """
        set_task_factory""",
}
"""What to do instead of the methods of an event loop that lead out of virtual time."""


class CountedTask(asyncio.Task[Any]):
    """A task that hashes by its number within its loop, so that sets of tasks iterate alike in every run."""

    def __init__(self, coroutine: Any, *, loop: "VirtualLoop", name: object = None, **options: Any) -> None:
        loop.tasks_count += 1
        self._number = loop.tasks_count  # before the base class, which puts the task into sets
        self._virtual_loop = loop
        super().__init__(coroutine, loop=loop, name=f"task-{self._number}" if name is None else str(name), **options)

    def __hash__(self) -> int:
        return self._number

    def cancel(self, msg: object = None) -> bool:
        """Ask the task to end.

        Between two runs of the loop (as `asyncio.Runner` does for tasks left over at the end) the requests are kept and
        applied in order of the tasks' numbers when the loop runs again: the set that the runner walks through was
        filled in an order that depends on earlier loops of the process.
        """
        if self._virtual_loop.is_running():
            return super().cancel(msg)
        if self.done():
            return False
        self._virtual_loop.cancel_requests.append((self, msg))
        return True

    def cancel_now(self, message: object) -> None:
        """Apply a kept request."""
        super().cancel(message)


class VirtualHandle(asyncio.Handle):
    """A callback that is ready to run; without the stock handle's debugging."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context | None
    ) -> None:
        self._callback: Any = callback
        self._args: Any = args
        self._cancelled = False
        self._context = contextvars.copy_context() if context is None else context

    def __repr__(self) -> str:
        return f"<VirtualHandle {'cancelled' if self._cancelled else self._callback!r}>"

    def cancel(self) -> None:
        """Never run the callback. No effect when it has run."""
        self._cancelled = True
        self._callback = self._args = None


class VirtualTimer(asyncio.TimerHandle):
    """A callback that waits for its instant."""

    __slots__ = ("when_ns",)
    when_ns: int
    """When it is due [ns of virtual time]."""

    def __init__(
        self,
        when_ns: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: "VirtualLoop",
        context: contextvars.Context | None,
    ) -> None:
        self.when_ns = when_ns
        self._callback: Any = callback
        self._args: Any = args
        self._loop = loop
        self._cancelled = False
        self._scheduled = True  # in the heap
        self._context = contextvars.copy_context() if context is None else context

    def __repr__(self) -> str:
        return f"<VirtualTimer {'cancelled' if self._cancelled else self._callback!r} at {self.when_ns} ns>"

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def when(self) -> float:
        """When it is due [s of virtual time]; for asyncio's own interface only."""
        return self.when_ns / SECOND_NS

    def cancel(self) -> None:
        """Never run the callback. No effect when it has run."""
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None
            if self._scheduled:
                self._loop.count_cancelled_timer()


class _OrderedGenerators:
    """The asynchronous generators in use, in order of first use; the stock weak set orders them by address."""

    def __init__(self) -> None:
        self._by_id: weakref.WeakValueDictionary[int, AsyncGenerator[Any, Any]] = weakref.WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[AsyncGenerator[Any, Any]]:
        return iter(list(self._by_id.values()))

    def add(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._by_id[id(generator)] = generator

    def discard(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._by_id.pop(id(generator), None)

    def clear(self) -> None:
        self._by_id.clear()


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs asyncio code in virtual time: `asyncio.Runner(loop_factory=VirtualLoop)`.

    An exception in a callback, a task that nobody asks for its exception and a pending task that is thrown away end the
    run: the first of them is raised out of `run_until_complete` once the callbacks that were ready with it have run.
    Who sets an exception handler decides for himself.
    """

    now_ns: int
    """The instant [ns since the loop was made]. Read it, never set it."""
    callbacks_count: int
    """Callbacks handed out so far."""
    tasks_count: int
    """Tasks made so far."""
    cancelled_timers_count: int
    """Cancelled timers that still lie in the heap."""
    cancel_requests: list[tuple[CountedTask, object]]
    """Tasks to cancel when the loop runs again, with the messages."""

    # Attributes of asyncio.BaseEventLoop that the loop builds on (CPython 3.11 to 3.13).
    _ready: deque[VirtualHandle | VirtualTimer]
    _stopping: bool
    _asyncgens: _OrderedGenerators

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0
        self.callbacks_count = 0
        self.tasks_count = 0
        self.cancel_requests = []
        self._asyncgens = _OrderedGenerators()
        self._heap: list[tuple[int, int, VirtualTimer]] = []
        self._timers_count = 0
        self.cancelled_timers_count = 0
        self._until_ns: int | None = None
        self._failure: BaseException | None = None
        self._thread = threading.get_ident()

    # Time and callbacks

    def time(self) -> float:
        """Virtual time [s]; for asyncio's own interface. Exact to the nanosecond for the first 26 days."""
        return self.now_ns / SECOND_NS

    def call_soon(
        self,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> VirtualHandle:
        """Run the callback at this instant, after those that are ready."""
        handle = VirtualHandle(callback, args, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> VirtualHandle:
        """As `call_soon`: asyncio calls it for Ctrl-C and for generators.

        Raises:
            Escape: The call comes from another thread.
        """
        if threading.get_ident() != self._thread:
            raise Escape("call_soon_threadsafe from another thread: threads do not wait for virtual time")
        return self.call_soon(callback, *args, context=context)

    def call_at_ns(
        self,
        when_ns: int,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> VirtualTimer:
        """Run the callback at an instant [ns], after those armed earlier for it; a past instant means now."""
        timer = VirtualTimer(when_ns, callback, args, self, context)
        self._timers_count = sequence = self._timers_count + 1
        heapq.heappush(self._heap, (when_ns, sequence, timer))
        return timer

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> VirtualTimer:
        """Run the callback at an instant [s], rounded to the nearest nanosecond."""
        return self.call_at_ns(round(when * SECOND_NS), callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: contextvars.Context | None = None,
    ) -> VirtualTimer:
        """Run the callback after a delay [s], rounded to the nearest nanosecond."""
        when_ns = self.now_ns + round(delay * SECOND_NS)
        timer = VirtualTimer(when_ns, callback, args, self, context)
        self._timers_count = sequence = self._timers_count + 1
        heapq.heappush(self._heap, (when_ns, sequence, timer))
        return timer

    def count_cancelled_timer(self) -> None:
        """A timer in the heap was cancelled; when they are more than half of it, throw them out."""
        self.cancelled_timers_count += 1
        heap = self._heap
        if self.cancelled_timers_count > CANCELLED_TIMERS_MIN and self.cancelled_timers_count * 2 > len(heap):
            # In place, since a running _run_once holds the list. The order of the rest is that of its unique keys.
            heap[:] = [entry for entry in heap if not entry[2]._cancelled]
            heapq.heapify(heap)
            self.cancelled_timers_count = 0

    @property
    def timers_armed_count(self) -> int:
        """Timers in the heap, cancelled ones that are not yet purged included."""
        return len(self._heap)

    def create_task(self, coro: Any, *, name: object = None, **options: Any) -> CountedTask:
        """Start a coroutine as a task; options are those of the running Python's `asyncio.Task`."""
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        return CountedTask(coro, loop=self, name=name, **options)

    # Running

    def run_forever(self) -> None:
        """Run until `stop`.

        Raises:
            Deadlock: Every task waits and no timer is armed.
        """
        if self.cancel_requests:
            requests, self.cancel_requests = sorted(self.cancel_requests, key=lambda request: hash(request[0])), []
            for task, message in requests:
                task.cancel_now(message)
        super().run_forever()

    def run_until_ns(self, until_ns: int) -> None:
        """Run all that is due up to and at an instant [ns], then stand at it. Tasks may wait for what comes later."""
        assert until_ns >= self.now_ns, f"time does not run back from {self.now_ns} ns to {until_ns} ns"
        self._until_ns = until_ns
        try:
            self.run_forever()
        finally:
            self._until_ns = None

    def _run_once(self) -> None:
        """Run batches of ready callbacks until `stop`. One call does it all: calls from `run_forever` cost time."""
        ready, heap, pop, until_ns = self._ready, self._heap, heapq.heappop, self._until_ns
        while True:
            if not ready and not self._stopping:
                while heap and heap[0][2]._cancelled:
                    pop(heap)
                    self.cancelled_timers_count -= 1
                if until_ns is not None and (not heap or heap[0][0] > until_ns):
                    self.now_ns = until_ns
                    self._stopping = True
                elif not heap:
                    raise Deadlock(describe_standstill(asyncio.all_tasks(self), self.now_ns))
                elif heap[0][0] > self.now_ns:
                    self.now_ns = heap[0][0]
            now_ns = self.now_ns
            while heap and heap[0][0] <= now_ns:
                timer = pop(heap)[2]
                timer._scheduled = False
                if timer._cancelled:
                    self.cancelled_timers_count -= 1
                else:
                    ready.append(timer)
            batch_count = len(ready)
            self.callbacks_count += batch_count
            for _ in range(batch_count):
                handle = ready.popleft()
                if handle._cancelled:
                    continue
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self.call_exception_handler({"message": f"in callback {handle!r}", "exception": error})
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._stopping:
                return

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Take an error that no task will see: the first one ends the run, unless the user set a handler."""
        if self.get_exception_handler() is not None or not self.is_running() or self._failure is not None:
            super().call_exception_handler(context)
            return
        when = f"at {self.now_ns / SECOND_NS:.9f} s of virtual time"
        self._failure = untaken_error(context, when, SimulationError)

    # What the base class would do with a selector

    def _process_events(self, event_list: object) -> None:
        """No selector, no events."""

    def _write_to_self(self) -> None:
        """Nothing sleeps that could be woken."""


def _refusal(name: str, cure: str) -> Callable[..., NoReturn]:
    def refuse(self: VirtualLoop, *_: object, **__: object) -> NoReturn:
        raise Escape(f"{name} at {self.now_ns / SECOND_NS:.9f} s of virtual time: {cure}")

    refuse.__name__ = name
    refuse.__doc__ = f"Raises: Escape: {cure}."
    return refuse


for _cure, _names in _OUTSIDE.items():
    for _name in _names.split():
        setattr(VirtualLoop, _name, _refusal(_name, _cure))
