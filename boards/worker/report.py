"""What a worker's isolation and its computing are worth, as lines of the capability report."""

from typing import Final

from boards.worker.channel import Hello
from boards.worker.isolation.isolator import Limits
from boards.worker.isolation.proof import Choice
from flightsw.ports import Capability, Support

CPU: Final = "cpu"


def capabilities_of(choice: Choice, limits: Limits, hello: Hello | None, ended_why: str) -> tuple[Capability, ...]:
    """The lines.

    Args:
        choice: how workers are confined.
        limits: what they may take.
        hello: what the last one found out about itself; None before the first has started.
        ended_why: why it ended; empty when it runs.
    """
    return (
        _isolation(choice),
        _memory(choice, limits),
        *_counted(choice, limits),
        *_confined(hello),
        *_computing(hello, ended_why),
    )


def _isolation(choice: Choice) -> Capability:
    why = "".join(f"; not {name}: {reason}" for name, reason in choice.refusals.items())
    return Capability("worker_isolation", Support.PROVEN, f"{choice.isolator.name}{why}")


def _memory(choice: Choice, limits: Limits) -> Capability:
    proof = choice.proof
    if proof.is_proven:
        size = f"{limits.memory_bytes // 2**20} MiB"
        return Capability("memory_limit", Support.PROVEN, f"{size} by {proof.detail}")
    why = "; ".join((proof.detail, *(f"{name}: {reason}" for name, reason in choice.refusals.items())))
    return Capability("memory_limit", Support.ABSENT, why)


def _counted(choice: Choice, limits: Limits) -> tuple[Capability, ...]:
    enforced = choice.isolator.enforces(limits)
    wanted = {
        "cpu_limit": "not asked for" if limits.cpu_cores is None else f"{choice.isolator.name} has none",
        "tasks_limit": f"{choice.isolator.name} has none for this user",
    }
    return tuple(
        Capability(name, Support.PRESENT, enforced[name]) if name in enforced else Capability(name, Support.ABSENT, why)
        for name, why in wanted.items()
    )


def _confined(hello: Hello | None) -> tuple[Capability, ...]:
    names = ("network_isolation", "read_only_files", "no_new_privileges")
    if hello is None:
        return tuple(Capability(name, Support.ABSENT, "no worker has started yet") for name in names)
    found = hello.confinement
    seen = f"it sees {', '.join(found.interfaces)}" if found.interfaces else "it sees no interface"
    network = seen + (f"; {hello.trouble}" if hello.trouble else "")
    written = f"writing was refused: {found.writing}" if found.writing else "it could write"
    rights = "set" if found.no_new_privileges else "not set"
    held = (not found.interfaces, bool(found.writing), found.no_new_privileges)
    return tuple(
        Capability(name, Support.PROVEN if holds else Support.ABSENT, detail)
        for name, holds, detail in zip(names, held, (network, written, rights), strict=True)
    )


def _computing(hello: Hello | None, ended_why: str) -> tuple[Capability, ...]:
    names = ("inference", "accelerator")
    if hello is None or not hello.provider:
        why = f"the worker has not started: {ended_why}" if hello is None else hello.error or _refused(hello)
        return tuple(Capability(name, Support.ABSENT, why or "no worker has started yet") for name in names)
    detail = f"{hello.provider}, onnxruntime {hello.runtime}, Python {hello.python}: computed rightly"
    inference = Capability("inference", Support.PROVEN, detail)
    if hello.provider == CPU:
        return inference, Capability("accelerator", Support.ABSENT, _refused(hello) or "worker.provider is cpu")
    return inference, Capability("accelerator", Support.PROVEN, detail)


def _refused(hello: Hello) -> str:
    return "; ".join(f"{name}: {why}" for name, why in hello.refusals.items())
