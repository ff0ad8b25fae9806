"""What a node is made of: every machine of the manager, built once at boot and wired to the others.

Machines know each other only through what is passed here. The shell (`flightsw.node`) drives them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from flightsw.component import Component, Dump, Outcome, Report, Scalar
from flightsw.compute.budget import Budget
from flightsw.compute.executor import Executor
from flightsw.compute.job_commands import JobControl
from flightsw.compute.jobs import Job, JobTable
from flightsw.compute.model_commands import ModelControl
from flightsw.compute.models import Models
from flightsw.compute.results import Results
from flightsw.compute.scrubbing import Scrubber
from flightsw.config import BoardProfile, NodeConfig, SunInterval
from flightsw.core.audit import AuditTrail
from flightsw.core.boots import Boots, Settings
from flightsw.core.commanding import CommandHooks, Commands, Judged
from flightsw.core.downlink import Downlink
from flightsw.core.events import Events
from flightsw.core.hardware import HardwareControl
from flightsw.core.key_commands import KeyControl
from flightsw.core.limits import Limits
from flightsw.core.mission_time import MissionTime
from flightsw.core.mode_commands import ModeControl
from flightsw.core.modes import Activity, Allowance, ModeEntry, ModeManager, PowerLimits
from flightsw.core.node_commands import NodeControl
from flightsw.core.object_commands import ObjectControl
from flightsw.core.packets import PacketSchedule
from flightsw.core.parameters import Parameters
from flightsw.core.recorder import Recorder, Transmit
from flightsw.core.responses import Responses
from flightsw.core.samples import Samples
from flightsw.core.sequence_commands import SequenceControl
from flightsw.core.sequences import Sequences
from flightsw.core.supervision import Supervision
from flightsw.core.update import Update
from flightsw.core.update_rules import self_test
from flightsw.core.update_states import UpdateSettings
from flightsw.dictionary import flight_dictionary
from flightsw.dictionary.accessors.commands_names import ARM_WINDOW_S
from flightsw.net.agent import BundleAgent
from flightsw.net.agent_values import AgentLimits
from flightsw.net.contacts import ContactPlan
from flightsw.net.keys import KeyRing, KeyState, KeyStore, without_keys
from flightsw.net.ltp_values import LtpConfig
from flightsw.net.security import BundleSecurity, SecurityPolicy
from flightsw.objects.store import ObjectStore
from flightsw.objects.transfers import Transfers
from flightsw.ports import NodePorts, ResetCause
from flightsw.storage.counters import raise_counter
from flightsw.storage.reserve import ReservedDisk
from flightsw.telemetry import Telemetry
from flightsw.wire.messages import Command, Event, JobReport, Verification

SESSION_BITS: Final = 32
"""Session and bundle numbers of one boot; the boot count stands above them, so that a reset never repeats one."""

BOOT_FILE: Final = "boot"
POWER_KEYS: Final = ("MODE.low_power_enter", "MODE.low_power_leave", "MODE.safe_enter")
"""Parameters of power control, in the order of `PowerLimits`."""

HISTORY: Final = ("events/",)
"""Files that give way on a full disk for states that must be written, once the reserve is used up."""

JOB_DECISIONS: Final = ("job.paused", "job.rolled_back", "job.disagreed")
"""What the executor logs of its own decisions, for the audit trail."""

NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the shell does for machines."""

    report: Report
    send_event: Callable[[Event, int], None]
    """(event, when it was made [monotonic ns])."""
    transmit: Transmit
    """Hands a message for the ground to the bundle agent."""
    want_object: Callable[[bytes, int], None]
    """(digest, size [bytes]): a job lacks it."""
    job_ended: Callable[[Job], None]
    send_report: Callable[[JobReport], None]
    repeat_ns: Callable[[], int]
    """Period of an unacknowledged report [ns]."""
    key_changed: Callable[[int, KeyState], None]
    mode_changed: Callable[[ModeEntry], None]
    dump: Dump
    reset: Callable[[ResetCause], None]
    """Restarts the node, once what was said of the reason has left."""
    command_executed: Callable[[Command, int], None]
    """(command, age [ms]), just before it takes effect."""
    command_judged: Callable[[Judged], None]
    """A command ended or was refused."""
    answer: Callable[[Verification], None]
    """A stage of a command's chain, for the ground."""
    sequences_running: Callable[[bool], None]
    """Whether any sequence runs, when that changes."""


class Assembly:
    """The machines of one boot, built in stages on what the disk holds.

    Args:
        config, profile, ports, plan, sun, keys: as for `flightsw.node.Node`.
        hooks: the shell's side.

    Raises:
        StorageError: durable state cannot be read.
    """

    def __init__(
        self,
        config: NodeConfig,
        profile: BoardProfile,
        ports: NodePorts,
        plan: ContactPlan,
        sun: Sequence[SunInterval],
        keys: KeyRing | None,
        hooks: Hooks,
    ) -> None:
        self._config = config
        self._profile = profile
        self._ports = ports
        self._hooks = hooks
        self._lay_foundation()
        self._set_up_work(sun)
        self._set_up_traffic(plan, without_keys(config.node) if keys is None else keys)
        self._set_up_autonomy()
        self._gather()

    def _lay_foundation(self) -> None:
        """Time, boots, records and parameters: what all others stand on."""
        config, ports, hooks = self._config, self._ports, self._hooks
        self.disk = ReservedDisk(ports.disk, HISTORY)
        """For states that must be written; what is large takes the disk itself."""
        self.time = MissionTime(ports.clock, self.disk, hooks.report)
        """Mission time, and the clock of all that stamps with it."""
        self.boot_count = raise_counter(self.disk, BOOT_FILE)
        self.disk.restore()
        self.trail = AuditTrail(ports.disk, self.boot_count, self.time, report=hooks.report, dump=hooks.dump)
        self.parameters = Parameters(
            self.disk,
            flight_dictionary(),
            initial_values(config),
            report=hooks.report,
            dump=hooks.dump,
            audit=self.trail.record,
        )
        parameter, now_ns = self.parameters.value, self.time.monotonic_ns()
        self.modes = ModeManager(
            self.disk, self.boot_count, _power_limits(parameter), now_ns, is_voted=parameter("MODE.voted")
        )
        self.boots = Boots(
            self.disk,
            self.boot_count,
            ports.board.reset_cause(),
            last_words=ports.last_words,
            now_ns=now_ns,
            utc_ns=self.time.utc_ns(),
            settings=Settings.of(parameter),
        )
        self.supervision = Supervision(
            ports, self.boots, hooks.report, tick_s=config.tick_period_s, parameter=parameter, audit=self.trail.record
        )
        self.events = Events(
            config.node, self.boot_count, self.time, ports.disk, parameter, hooks.send_event, hooks.dump
        )

    def _set_up_work(self, sun: Sequence[SunInterval]) -> None:
        """Objects, models and jobs."""
        config, ports, hooks, clock = self._config, self._ports, self._hooks, self.time
        self.store = ObjectStore(ports.disk, quota_bytes=int(self._profile.storage_bytes.value))
        self.transfers = Transfers(self.store, local=config.node)
        self.object_control = ObjectControl(self.store, self.transfers, self.disk, hooks.want_object)
        self.jobs = JobTable(ports.disk, config.jobs_max, clock.monotonic_ns())
        self.models = Models(self.store, ports.runner)
        self.scrubber = Scrubber(
            self.models,
            self.store,
            self.jobs,
            self.transfers,
            want_object=hooks.want_object,
            report=hooks.report,
            log=ports.log,
        )
        self.results = Results(
            self.jobs,
            self.store,
            self.transfers,
            ground=config.ground,
            clock=clock,
            send=hooks.send_report,
            repeat_ns=hooks.repeat_ns,
            log=ports.log,
        )
        budget = Budget(self._profile, sun, self.parameters.value("JOBS.reserve"))
        self.executor = Executor(
            config=config,
            clock=clock,
            board=ports.board,
            runner=ports.runner,
            jobs=self.jobs,
            models=self.models,
            store=self.store,
            budget=budget,
            may_run=self.modes.job_refusal,
            want_model=hooks.want_object,
            on_end=hooks.job_ended,
            on_upset=self.scrubber.struck,
            report=hooks.report,
            log=self.trail.noting(ports.log, *JOB_DECISIONS),
            parameter=self.parameters.value,
        )

        def take_parameters() -> None:
            self.modes.limits = _power_limits(self.parameters.value)
            self.modes.is_voted = self.parameters.value("MODE.voted")
            budget.reserve = self.parameters.value("JOBS.reserve")

        self.parameters.on_change((*POWER_KEYS, "MODE.voted", "JOBS.reserve"), take_parameters)

    def _set_up_traffic(self, plan: ContactPlan, keys: KeyRing) -> None:
        """The bundle agent, and what tells the ground of the node."""
        config, ports, hooks, parameter = self._config, self._ports, self._hooks, self.parameters.value
        self.keys = KeyStore(keys, self.disk)
        self.agent = BundleAgent(
            config.node,
            plan,
            config.interfaces,
            session_base=self.boot_count << SESSION_BITS,
            limits=AgentLimits(ltp=LtpConfig(margin_ns=round(config.ltp_margin_s * NS_PER_S))),
            security=BundleSecurity(config.node, self.keys, self.disk, SecurityPolicy(config.sign_telemetry)),
        )
        self.recorder = Recorder(
            config.node,
            self.boot_count,
            ports.disk,
            parameter=parameter,
            has_route=self._has_route,
            may_play=lambda: self.modes.allowance(Activity.PLAYBACK) is Allowance.YES,
            transmit=hooks.transmit,
            report=hooks.report,
        )
        self.downlink = Downlink(self.recorder, self._has_route, hooks.transmit)
        self.schedule = PacketSchedule(
            config.node,
            self.boot_count,
            self.time.monotonic_ns(),
            clock=self.time,
            counts=self._counts,
            parameter=parameter,
            mode=lambda: self.modes.mode,
            has_route=self._has_route,
            send=self.downlink.packets,
        )

    def _set_up_autonomy(self) -> None:
        """What decides on board: modes, limits and responses, sequences, updates."""
        ports, hooks, parameter = self._ports, self._hooks, self.parameters.value
        self.mode_control = ModeControl(
            self.modes,
            self.time,
            self._profile,
            job_load_w=lambda: self.executor.load_w,
            report=hooks.report,
            note=hooks.mode_changed,
            dump=hooks.dump,
            maintenance_max_s=lambda: float(parameter("MODE.maintenance_max_s")),
        )
        self.sequences = Sequences(
            self.disk,
            flight_dictionary(),
            execute=self._execute,
            report=hooks.report,
            audit=self.trail.record,
            mode=lambda: self.modes.mode,
            now_ns=self.time.monotonic_ns,
            mission_ns=self.time.known_ns,
            on_running=hooks.sequences_running,
        )
        self.limits = Limits(
            self.disk,
            self.time,
            parameter=parameter,
            responses=Responses(self.mode_control.request_safe, self._execute, hooks.report, self.trail.record),
            refusal=self.mode_control.response_refusal,
            report=hooks.report,
            dump=hooks.dump,
        )
        self.update = Update(
            disk=self.disk,
            slots=ports.slots,
            store=self.store,
            keys=tuple(bytes.fromhex(key) for key in self._config.update_keys),
            want_object=hooks.want_object,
            reset=hooks.reset,
            report=hooks.report,
            audit=self.trail.record,
            settings=lambda: UpdateSettings(*(parameter(f"UPDATE.{name}") for name in UpdateSettings._fields)),
            self_test=lambda: self_test(ports.board, self.disk),
            boot_count=self.boot_count,
            now_ns=self.time.monotonic_ns(),
        )

    def _gather(self) -> None:
        """Commands over all components, and what reads their channels."""
        config, ports, hooks = self._config, self._ports, self._hooks
        self.hardware: HardwareControl | None = None
        """None on a node without hardware."""
        if ports.hardware is not None:
            self.hardware = HardwareControl(ports.hardware, self.parameters.value, hooks.report, hooks.dump)
        parts: list[Component] = [
            NodeControl(self.agent, self.events, self.boots, self.time, hooks.reset, hooks.dump),
            self.mode_control,
            JobControl(self.jobs, self.executor, self.models, self.time, ports.log),
            self.object_control,
            KeyControl(self.keys, config.ground, self.agent, hooks.key_changed),
            self.events,
            self.schedule,
            self.recorder,
            self.parameters,
            ModelControl(self.models, self.scrubber, self.executor),
            self.limits,
            SequenceControl(self.sequences, hooks.dump),
            self.supervision,
            self.time,
            self.trail,
            self.update,
        ]
        if self.hardware is not None:
            parts.append(self.hardware)
        told = CommandHooks(hooks.answer, hooks.command_executed, hooks.command_judged, hooks.report)
        arm_window_s = partial(self.parameters.value, ARM_WINDOW_S)
        self.commands = Commands(config.node, self.disk, self.time, parts, told, arm_window_s)
        places = {name: place for place, name in enumerate(flight_dictionary().components)}
        self.components = tuple(sorted((*parts, self.commands), key=lambda part: places[part.name]))
        """In the dictionary's order."""
        readers: dict[str, Callable[[], Scalar]] = {
            "OBJECTS.free_bytes": ports.disk.free_bytes,
            "OBJECTS.rotten": partial(getattr, self.store, "rotten_count"),
            "JOBS.failures": partial(getattr, self.executor, "failures_count"),
            "JOBS.models_repaired": partial(getattr, self.models, "repaired_count"),
            "EVENTS.suppressed": partial(getattr, self.events, "suppressed_count"),
            "KEYS.refused": partial(_sum, self.agent.counters.security_refused),
        }
        self.samples = Samples(self.mode_control, self.components, readers)
        """What limit rules watch."""
        self.telemetry = Telemetry(
            config.node,
            self.boot_count,
            ports.board.reset_cause(),
            commands=self.commands,
            modes=self.modes,
            jobs=self.jobs,
            models=self.models,
            agent=self.agent,
            disk=self.disk,
            keys=self.keys,
            ground=config.ground,
        )

    # Machines that need each other are built one after the other; these look the later one up when they are called.

    def _has_route(self, now_ns: int) -> bool:
        soon_ns = round(self.parameters.value("RECORDER.soon_s") * NS_PER_S)
        return self.agent.has_way(self._config.ground, now_ns, soon_ns)

    def _counts(self, component: str) -> tuple[int, int]:
        return self.commands.counts[component]

    def _execute(self, opcode: str, arguments: tuple[Any, ...], origin: str) -> Outcome:
        return self.commands.execute_onboard(opcode, arguments, origin)


def initial_values(config: NodeConfig) -> dict[str, Any]:
    """Defaults of parameters that a node's configuration sets."""
    return {
        "MODE.low_power_enter": config.low_power_enter,
        "MODE.low_power_leave": config.low_power_leave,
        "MODE.safe_enter": config.safe_enter,
        "JOBS.reserve": config.reserve,
        "JOBS.report_repeat_s": config.report_repeat_s,
        "NODE.scrub_period_s": config.scrub_period_s,
        "TELEMETRY.beacon_period_s": config.beacon_period_s,
        "TELEMETRY.housekeeping_period_s": config.housekeeping_period_s,
    }


def _sum(counts: Mapping[str, int]) -> int:
    return sum(counts.values()) if counts else 0


def _power_limits(parameter: Callable[[str], Any]) -> PowerLimits:
    return PowerLimits(*(parameter(key) for key in POWER_KEYS))
