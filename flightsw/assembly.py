"""What a node is made of: every machine of the manager, built once at boot and wired to the others.

Machines know each other only through what is passed here. The shell (`flightsw.node`) drives them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from flightsw.component import Component, Report
from flightsw.compute.budget import Budget
from flightsw.compute.executor import Executor
from flightsw.compute.job_commands import JobControl
from flightsw.compute.jobs import Job, JobTable
from flightsw.compute.models import Models, Scrub
from flightsw.config import BoardProfile, NodeConfig, SunInterval
from flightsw.core.commanding import Commands
from flightsw.core.events import Events
from flightsw.core.key_commands import KeyControl
from flightsw.core.mode_commands import ModeControl
from flightsw.core.modes import Cause, ModeManager, job_refusal
from flightsw.core.node_commands import NodeControl
from flightsw.core.object_commands import ObjectControl
from flightsw.net.agent import BundleAgent
from flightsw.net.agent_values import AgentLimits
from flightsw.net.contacts import ContactPlan
from flightsw.net.keys import KeyRing, KeyState, KeyStore, without_keys
from flightsw.net.ltp_values import LtpConfig
from flightsw.net.security import BundleSecurity, SecurityPolicy
from flightsw.objects.store import ObjectStore
from flightsw.objects.transfers import Transfers
from flightsw.ports import NodePorts
from flightsw.storage.counters import raise_counter
from flightsw.telemetry import Telemetry
from flightsw.wire.messages import Command, Event

SESSION_BITS: Final = 32
"""Session and bundle numbers of one boot; the boot count stands above them, so that a reset never repeats one."""

BOOT_FILE: Final = "boot"
NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the shell does for machines."""

    report: Report
    send_event: Callable[[Event], None]
    want_object: Callable[[bytes, int], None]
    """(digest, size [bytes]): a job lacks it."""
    job_ended: Callable[[Job], None]
    weights_struck: Callable[[bytes, Scrub], None]
    key_changed: Callable[[int, KeyState], None]
    mode_changed: Callable[[Cause], None]
    command_executed: Callable[[Command, int], None]
    """(command, age [ms]), just before it takes effect."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """The machines of one boot."""

    boot_count: int
    modes: ModeManager
    mode_control: ModeControl
    events: Events
    store: ObjectStore
    transfers: Transfers
    jobs: JobTable
    models: Models
    keys: KeyStore
    executor: Executor
    agent: BundleAgent
    components: tuple[Component, ...]
    """In the dictionary's order."""
    commands: Commands
    telemetry: Telemetry


def assemble(
    config: NodeConfig,
    profile: BoardProfile,
    ports: NodePorts,
    plan: ContactPlan,
    sun: Sequence[SunInterval],
    keys: KeyRing | None,
    hooks: Hooks,
) -> Assembly:
    """Build a node's machines on what its disk holds.

    Args:
        config, profile, ports, plan, sun, keys: as for `flightsw.node.Node`.
        hooks: the shell's side.

    Raises:
        StorageError: durable state cannot be read.
    """
    disk, clock = ports.disk, ports.clock
    boot_count = raise_counter(disk, BOOT_FILE)
    modes = ModeManager(config.low_power_enter, config.low_power_leave, config.safe_enter)
    events = Events(config.node, boot_count, hooks.send_event)
    store = ObjectStore(disk, quota_bytes=int(profile.storage_bytes.value))
    transfers = Transfers(store, local=config.node)
    jobs = JobTable(disk, config.jobs_max, clock.monotonic_ns())
    models = Models(store, ports.runner)
    key_store = KeyStore(without_keys(config.node) if keys is None else keys, disk)
    executor = Executor(
        config=config,
        clock=clock,
        board=ports.board,
        runner=ports.runner,
        jobs=jobs,
        models=models,
        store=store,
        budget=Budget(profile, sun, config.reserve),
        may_run=lambda: job_refusal(modes.mode),
        want_model=hooks.want_object,
        on_end=hooks.job_ended,
        on_upset=hooks.weights_struck,
        log=ports.log,
    )
    agent = BundleAgent(
        config.node,
        plan,
        config.interfaces,
        session_base=boot_count << SESSION_BITS,
        limits=AgentLimits(ltp=LtpConfig(margin_ns=round(config.ltp_margin_s * NS_PER_S))),
        security=BundleSecurity(config.node, key_store, disk, SecurityPolicy(config.sign_telemetry)),
    )
    mode_control = ModeControl(modes, hooks.mode_changed)
    # each machine with commands or channels, in the order of its number in the dictionary
    components: tuple[Component, ...] = (
        NodeControl(agent, events, ports.reset),
        mode_control,
        JobControl(jobs, executor, models, clock, ports.log),
        ObjectControl(store, transfers, disk),
        KeyControl(key_store, config.ground, agent, hooks.key_changed),
    )
    commands = Commands(config.node, disk, components, hooks.command_executed)
    telemetry = Telemetry(
        config.node,
        boot_count,
        ports.board.reset_cause(),
        commands=commands,
        components=components,
        modes=modes,
        jobs=jobs,
        models=models,
        agent=agent,
        disk=disk,
        keys=key_store,
        ground=config.ground,
    )
    return Assembly(
        boot_count=boot_count,
        modes=modes,
        mode_control=mode_control,
        events=events,
        store=store,
        transfers=transfers,
        jobs=jobs,
        models=models,
        keys=key_store,
        executor=executor,
        agent=agent,
        components=components,
        commands=commands,
        telemetry=telemetry,
    )
