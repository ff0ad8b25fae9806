"""The beacon: what a node says of itself at a glance, small and often."""

from flightsw.compute.jobs import JobTable
from flightsw.compute.models import Models
from flightsw.core.commanding import Commands
from flightsw.core.modes import ModeManager
from flightsw.dictionary import flight_dictionary
from flightsw.net.agent import BundleAgent
from flightsw.net.keys import KeyStore
from flightsw.ports import Disk, ResetCause, Sensors
from flightsw.wire.messages import Beacon, JobState


class Telemetry:
    """Reads the machines of a node; changes nothing.

    Args:
        node, boot_count: who speaks, and from which boot.
        reset_cause: why that boot happened.
        commands, modes, jobs, models, agent, disk, keys: the node's.
        ground: whose keys the beacon tells of.
    """

    def __init__(
        self,
        node: int,
        boot_count: int,
        reset_cause: ResetCause,
        *,
        commands: Commands,
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
            # a sensor may read what no message carries, and a beacon must not be lost for it
            electronics_ddegc=max(-2731, min(10_000, round(10 * sensors.electronics_degc))),
            solar_dw=max(0, round(10 * sensors.solar_w)),
            load_dw=max(0, round(10 * sensors.load_w)),
            command_count=self._commands.executed_count,
            command_error_count=self._commands.rejected_count,
            jobs_waiting_count=self._jobs.count(JobState.WAITING_OBJECTS, JobState.READY),
            jobs_completed_count=self._jobs.count(JobState.COMPLETED),
            jobs_paused_count=self._jobs.count(JobState.PAUSED),
            models_repaired_count=self._models.repaired_count,
            frames_rejected_count=self._agent.counters.frames_rejected_count(),
            storage_free_bytes=self._disk.free_bytes(),
            dictionary_digest=flight_dictionary().digest,
            key_id=self._keys.active_id(self._ground),
            security_refused_count=sum(self._agent.counters.security_refused.values()),
        )
