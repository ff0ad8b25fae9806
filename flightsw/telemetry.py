"""What a node says of itself: the beacon, small and often, and the housekeeping record of its components."""

from collections.abc import Sequence

from flightsw.component import Component
from flightsw.compute.jobs import JobTable
from flightsw.compute.models import Models
from flightsw.core.commanding import Commands
from flightsw.core.dictionary import DICTIONARY_DIGEST
from flightsw.core.modes import ModeManager
from flightsw.net.agent import BundleAgent
from flightsw.net.keys import KeyStore
from flightsw.ports import Disk, ResetCause, Sensors
from flightsw.wire.messages import Beacon, ComponentHousekeeping, Housekeeping, JobState


class Telemetry:
    """Reads the machines of a node; changes nothing.

    Args:
        node, boot_count: who speaks, and from which boot.
        reset_cause: why that boot happened.
        commands, components, modes, jobs, models, agent, disk, keys: the node's.
        ground: whose keys the beacon tells of.
    """

    def __init__(
        self,
        node: int,
        boot_count: int,
        reset_cause: ResetCause,
        *,
        commands: Commands,
        components: Sequence[Component],
        modes: ModeManager,
        jobs: JobTable,
        models: Models,
        agent: BundleAgent,
        disk: Disk,
        keys: KeyStore,
        ground: int,
    ) -> None:
        self._node = node
        self._boot_count = boot_count
        self._reset_cause = reset_cause
        self._commands = commands
        self._components = components
        self._modes = modes
        self._jobs = jobs
        self._models = models
        self._agent = agent
        self._disk = disk
        self._keys = keys
        self._ground = ground

    def beacon(self, sensors: Sensors, uptime_s: int, utc_ns: int) -> Beacon:
        """The state of the node at a glance."""
        share = sensors.charge_j / sensors.battery_j
        return Beacon(
            node=self._node,
            boot_count=self._boot_count,
            uptime_s=uptime_s,
            utc_ns=utc_ns,
            mode=self._modes.mode,
            reset_cause=int(self._reset_cause),
            charge_permille=max(0, min(1000, round(1000 * share))),
            electronics_ddegc=round(10 * sensors.electronics_degc),
            solar_dw=round(10 * sensors.solar_w),
            load_dw=round(10 * sensors.load_w),
            command_count=self._commands.executed_count,
            command_error_count=self._commands.rejected_count,
            jobs_waiting_count=self._jobs.count(JobState.WAITING_OBJECTS, JobState.READY),
            jobs_completed_count=self._jobs.count(JobState.COMPLETED),
            jobs_paused_count=self._jobs.count(JobState.PAUSED),
            models_repaired_count=self._models.repaired_count,
            frames_rejected_count=self._agent.counters.frames_rejected_count(),
            storage_free_bytes=self._disk.free_bytes(),
            dictionary_digest=DICTIONARY_DIGEST,
            key_id=self._keys.active_id(self._ground),
            security_refused_count=sum(self._agent.counters.security_refused.values()),
        )

    def housekeeping(self, uptime_s: int) -> Housekeeping:
        """One record for each component that takes commands, in the dictionary's order."""
        return Housekeeping(
            node=self._node,
            boot_count=self._boot_count,
            uptime_s=uptime_s,
            components=tuple(
                ComponentHousekeeping(
                    component.name,
                    self._commands.counts[component.name].executed,
                    self._commands.counts[component.name].rejected,
                    tuple(component.channels().items()),
                )
                for component in self._components
            ),
        )
