"""UPDATE: software update in flight, from a signed manifest to a version that is kept or left again. Sans-IO.

| state | means |
|---|---|
| IDLE | nothing is under way |
| RECEIVING | a manifest is accepted, its image is on the way |
| VERIFIED | the image is here and is what the manifest says |
| STAGED | it is in the slot that is not in use, and reads back |
| TRIAL | this boot runs it on trial |
| COMMITTED | it passed, and boots from now on |
| ROLLED_BACK | it was left; the reason is kept |

What boots next is in the board's boot record alone (`flightsw.ports.Slots`). The record here says what was asked for;
after a reset the two are compared, so that a power cut between two writes leaves neither a lost update nor one that
nobody knows of. A trial is kept when it has run for `stable_s`, passed the self-test, and the ground has acknowledged a
heartbeat of this boot. It is left when the self-test fails, or when it was not kept within `window_s`. A trial that
crashes, hangs or loses power too often is left by the launcher.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from flightsw.component import OK, Audit, Handler, Outcome, Report, Scalar
from flightsw.core.update_rules import objection
from flightsw.core.update_states import (
    REASON_CHARACTERS_MAX,
    TRANSITIONS,
    UNDER_WAY,
    Step,
    UpdateRecord,
    UpdateSettings,
    UpdateState,
    decode_record,
)
from flightsw.errors import MessageError, StorageError
from flightsw.objects.store import ObjectStore
from flightsw.ports import Disk, ResetCause, Slots
from flightsw.storage.copies import TwoCopies
from flightsw.storage.manifest import (
    SIGNED_BYTES_MAX,
    Manifest,
    UpdateReport,
    decode_manifest,
    signature_fault,
)
from flightsw.wire.messages import CommandCode

RECORD_NAME: Final = "update"
ROOM_FACTOR: Final = 3
"""Free disk that an update needs, in sizes of its image: chunks, the object they become, and the slot."""
ASK_AGAIN_NS: Final = 600_000_000_000
"""An image that has not come is asked for again at this period [ns]: a pass."""
NS_PER_S: Final = 1_000_000_000


class Update:
    """Implements `flightsw.component.Component`.

    Args:
        disk: keeps the record.
        slots: of the board; None where software cannot be updated.
        store: where images arrive.
        keys: public keys whose signature counts, 32 bytes each.
        want_object: asks the ground for an object: (digest, size [bytes]).
        reset: restarts the node; returns, and the node ends soon after.
        report, audit: tell the ground.
        settings: the parameters now.
        self_test: what is wrong with the node, or None.
        boot_count: of this boot.
        now_ns: monotonic time [ns]; the boot began then.

    Nothing is reported before the first `cycle`.
    """

    name = "UPDATE"

    def __init__(
        self,
        *,
        disk: Disk,
        slots: Slots | None,
        store: ObjectStore,
        keys: Sequence[bytes],
        want_object: Callable[[bytes, int], None],
        reset: Callable[[ResetCause], None],
        report: Report,
        audit: Audit,
        settings: Callable[[], UpdateSettings],
        self_test: Callable[[], str | None],
        boot_count: int,
        now_ns: int,
    ) -> None:
        self._copies = TwoCopies(disk, RECORD_NAME)
        self._disk = disk
        self._slots = slots
        self._store = store
        self._keys = tuple(keys)
        self._want_object = want_object
        self._reset = reset
        self._report = report
        self._audit = audit
        self._settings = settings
        self._self_test = self_test
        self._started_ns = now_ns
        self._now_ns = now_ns
        self._asked_ns = now_ns
        self._is_settled = False
        self._boot_count = boot_count
        self._is_heard = False
        """The ground has acknowledged a heartbeat of this boot."""
        self._is_leaving = False
        self._is_ready = False
        self._lost = ""
        self._record = self._load()
        self._manifest = self._decoded(self._record.manifest)
        self.accepted_count = 0
        self.refused_count = 0
        self.unsaved_count = 0
        """Steps that the disk did not take: the boot record tells after a reset."""

    @property
    def state(self) -> UpdateState:
        """Where the update stands."""
        return self._record.state

    @property
    def version(self) -> str:
        """That runs; empty on a board without slots."""
        return "" if self._slots is None else self._slots.status().version

    def on_transfer_failed(self, digest: bytes, reason: str) -> None:
        """The image cannot be fetched."""
        if self.state is UpdateState.RECEIVING and self._manifest is not None and digest == self._manifest.image:
            self._give_up(f"the image did not come: {reason}")

    def cycle(self, now_ns: int) -> None:
        """Take the next step, if one is due; called with each cycle of the rate group."""
        self._now_ns = now_ns
        if not self._is_settled:
            self._settle()
        state = self._record.state
        if state is UpdateState.TRIAL:
            self._judge_trial()
        elif state is UpdateState.RECEIVING or state is UpdateState.VERIFIED:
            self._receive()

    # -- Component

    def handlers(self) -> Mapping[str, Handler]:
        """All commands of the component."""
        return {
            "STAGE": self._do_stage,
            "TRY": self._do_try,
            "COMMIT": self._do_commit,
            "ROLLBACK": self._do_rollback,
            "ABORT": self._do_abort,
            "QUERY": self._do_query,
        }

    def channels(self) -> Mapping[str, Scalar]:
        """Where the update stands."""
        manifest = self._manifest
        channels: dict[str, Scalar] = {
            "state": self._record.state.value,
            "version": "",
            "slot": "-",
            "is_trial": False,
            "is_ready": self._is_ready,
            "boots_left": 0,
            "staged_version": "" if manifest is None else manifest.version,
            "serial": 0 if manifest is None else manifest.serial,
            "accepted_count": self.accepted_count,
            "refused_count": self.refused_count,
        }
        if self._slots is not None:
            status = self._slots.status()
            channels |= {
                "version": status.version,
                "slot": status.running,
                "is_trial": status.is_trial,
                "boots_left": status.boots_left,
            }
        return channels

    # -- commands

    def _do_stage(self, arguments: tuple[Any, ...]) -> Outcome:
        self._prepare()
        data = bytes(arguments[0])
        if self.state in UNDER_WAY and data == self._record.manifest:
            return Outcome(CommandCode.OK, self.state.value)
        if self._is_leaving:
            return Outcome(CommandCode.BUSY, "the node leaves this slot")
        if self.state in (*UNDER_WAY, UpdateState.TRIAL):
            return Outcome(CommandCode.BUSY, f"an update is {self.state.value}")
        if len(data) > SIGNED_BYTES_MAX:
            return self._refuse(f"manifest of {len(data)} bytes, at most {SIGNED_BYTES_MAX}")
        try:
            signed, manifest = decode_manifest(data)
        except MessageError as error:
            return self._refuse(str(error))
        wrong = signature_fault(signed, self._keys) or self._objection(manifest)
        if wrong is not None:
            return self._refuse(wrong)
        record = UpdateRecord(TRANSITIONS[self.state, Step.ACCEPT], data)
        try:
            self._save(record)
        except StorageError as error:
            return Outcome(CommandCode.EXECUTION_ERROR, str(error))
        self._record, self._manifest = record, manifest
        self.accepted_count += 1
        self._audit("update", {"step": Step.ACCEPT.value, "version": manifest.version, "serial": manifest.serial})
        self._report("UPDATE.ACCEPTED", manifest.version, manifest.serial, manifest.size_bytes)
        self._store.pin(manifest.image)
        self._ask(manifest)
        return Outcome(CommandCode.OK, self.state.value)

    def _do_try(self, _: tuple[Any, ...]) -> Outcome:
        self._prepare()
        manifest, slots = self._manifest, self._slots
        if self.state is not UpdateState.STAGED or manifest is None or slots is None:
            return Outcome(CommandCode.EXECUTION_ERROR, f"{self.state.value}: nothing is staged")
        try:
            slot = slots.request_trial(manifest.image, self._settings().trial_boots)
        except StorageError as error:
            self._give_up(str(error))
            return Outcome(CommandCode.EXECUTION_ERROR, str(error))
        # the boot record comes first: from here on the next boot is the trial, whatever is saved below
        self._go(Step.TRY)
        self._report("UPDATE.TRYING", manifest.version, slot)
        self._leave()
        return OK

    def _do_commit(self, _: tuple[Any, ...]) -> Outcome:
        self._prepare()
        slots = self._slots
        if self._is_leaving or self.state is not UpdateState.TRIAL or slots is None or not slots.status().is_trial:
            return Outcome(CommandCode.EXECUTION_ERROR, f"{self.state.value}: no trial runs")
        wrong = self._fault()
        if wrong is not None:
            return Outcome(CommandCode.EXECUTION_ERROR, f"self-test: {wrong}")
        fault = self._commit("by command")
        return OK if fault is None else Outcome(CommandCode.EXECUTION_ERROR, fault)

    def _do_rollback(self, _: tuple[Any, ...]) -> Outcome:
        self._prepare()
        slots = self._slots
        if slots is None or self.state in UNDER_WAY:
            return Outcome(CommandCode.EXECUTION_ERROR, f"{self.state.value}: there is nothing to go back from")
        try:
            slots.revert("rolled back by command")
        except StorageError as error:
            return Outcome(CommandCode.EXECUTION_ERROR, str(error))
        self._audit("update", {"step": Step.ROLL_BACK.value, "why": "command"})
        self._leave()
        return OK

    def _do_abort(self, _: tuple[Any, ...]) -> Outcome:
        self._prepare()
        if self.state not in UNDER_WAY:
            return Outcome(CommandCode.EXECUTION_ERROR, f"{self.state.value}: nothing to give up")
        self._give_up("aborted by command")
        return OK

    def _do_query(self, arguments: tuple[Any, ...]) -> Outcome:
        self._prepare()
        # that the ground can be heard is not enough: a version that sends nothing would be kept, and out of reach
        self._is_heard = self._is_heard or arguments[0] == self._boot_count
        slots, manifest = self._slots, self._manifest
        if slots is None:
            return Outcome(CommandCode.EXECUTION_ERROR, "this node has no slots: its software cannot be updated")
        status = slots.status()
        serial = 0 if manifest is None else manifest.serial
        report = UpdateReport(
            self.state.value, status.version, status.running, serial, self._is_ready, self._record.reason
        )
        return Outcome(CommandCode.OK, report.text())

    def _prepare(self) -> None:
        """Before each command: what it is about must be settled."""
        if not self._is_settled:
            self._settle()

    # -- the way to a trial

    def _objection(self, manifest: Manifest) -> str | None:
        """Why a manifest that somebody trusted has signed is not for this node now, or None."""
        if self._slots is None:
            return "this node has no slots: its software cannot be updated"
        if not self._store.has(manifest.image):
            needed_bytes, free_bytes = ROOM_FACTOR * manifest.size_bytes, self._disk.free_bytes()
            if free_bytes < needed_bytes:
                return f"no space: {needed_bytes} bytes needed, {free_bytes} are free"
        return objection(manifest, self._manifest, self._slots)

    def _refuse(self, why: str) -> Outcome:
        self.refused_count += 1
        why = why[:REASON_CHARACTERS_MAX]
        self._audit("update", {"step": "refuse", "why": why})
        self._report("UPDATE.REFUSED", why)
        return Outcome(CommandCode.VALIDATION_ERROR, why)

    def _ask(self, manifest: Manifest) -> None:
        self._asked_ns = self._now_ns
        if not self._store.has(manifest.image):
            self._want_object(manifest.image, manifest.size_bytes)

    def _receive(self) -> None:
        manifest, slots = self._manifest, self._slots
        assert manifest is not None, "an update under way has a manifest"
        assert slots is not None, "without slots no manifest is accepted"
        if not self._store.has(manifest.image):
            if self.state is UpdateState.VERIFIED:
                self._go(Step.LOSE)
            if self._now_ns - self._asked_ns >= ASK_AGAIN_NS:
                self._ask(manifest)
            return
        try:
            data = self._store.get(manifest.image)
        except StorageError:  # it rotted here, and the store has removed it: it is fetched again
            self._ask(manifest)
            return
        if len(data) != manifest.size_bytes:
            self._give_up(f"the image has {len(data)} bytes, the manifest says {manifest.size_bytes}")
            return
        if self.state is UpdateState.RECEIVING:
            self._go(Step.VERIFY)
        try:
            slot = slots.install(data, manifest.version, manifest.image)
        except StorageError as error:
            self._give_up(f"cannot be installed: {error}")
            return
        self._go(Step.INSTALL)
        self._release(manifest)
        self._report("UPDATE.STAGED", manifest.version, slot)

    def _give_up(self, why: str) -> None:
        manifest = self._manifest
        self._go(Step.GIVE_UP, why)
        if manifest is not None:
            self._release(manifest)
        self._report("UPDATE.ENDED", self._record.reason)

    def _release(self, manifest: Manifest) -> None:
        """The image is in its slot, or not wanted any more."""
        self._store.unpin(manifest.image)
        self._store.remove(manifest.image)

    # -- the trial

    def _judge_trial(self) -> None:
        slots = self._slots
        if slots is None or self._is_leaving:
            return
        if not slots.status().is_trial:
            return  # TRY was commanded, and the reset is on its way
        settings = self._settings()
        uptime_ns = self._now_ns - self._started_ns
        wrong = self._fault()
        if wrong is not None:
            self._fall_back(f"self-test: {wrong}")
            return
        self._is_ready = self._is_heard and uptime_ns >= settings.stable_s * NS_PER_S
        if self._is_ready and settings.auto_commit and self._commit("stable, tested, heartbeat acknowledged") is None:
            return
        if uptime_ns >= settings.window_s * NS_PER_S:
            lacked = "no commit" if self._is_heard else "no heartbeat was acknowledged by the ground"
            self._fall_back(f"{lacked} within {settings.window_s} s")

    def _fault(self) -> str | None:
        """What is wrong with the running software, or None."""
        slots = self._slots
        assert slots is not None, "only a board with slots runs a trial"
        try:
            return slots.self_test() or self._self_test()
        except StorageError as error:
            return str(error)

    def _commit(self, why: str) -> str | None:
        """Keep the trial; returns what hindered it."""
        slots = self._slots
        assert slots is not None, "only a board with slots runs a trial"
        try:
            slots.commit()
        except StorageError as error:
            return str(error)
        self._go(Step.COMMIT)
        self._is_ready = False
        status = slots.status()
        self._report("UPDATE.COMMITTED", status.version, status.running, why)
        return None

    def _fall_back(self, why: str) -> None:
        slots = self._slots
        assert slots is not None, "only a board with slots runs a trial"
        self._audit("update", {"step": Step.ROLL_BACK.value, "why": why})
        try:
            slots.revert(why)
        except StorageError:
            self.unsaved_count += 1  # the boots of the trial run out instead
        self._leave()

    def _leave(self) -> None:
        self._is_leaving = True
        self._reset(ResetCause.RESET_COMMAND)

    # -- the record

    def _settle(self) -> None:
        """After a boot: compare what was asked for with what the board has booted."""
        self._is_settled = True
        if self._lost:
            self._report("UPDATE.RECORD_LOST", self._lost)
        slots, manifest, state = self._slots, self._manifest, self.state
        if slots is None:
            return
        status = slots.status()
        if status.is_trial:
            if state is not UpdateState.TRIAL:  # the boot record rules, whatever a lost or older record here says
                self._record = UpdateRecord(UpdateState.STAGED, self._record.manifest)
                self._go(Step.TRY)
            self._report("UPDATE.TRIAL", status.version, status.running, status.boots_left)
        elif state is UpdateState.TRIAL and manifest is not None and status.image == manifest.image:
            self._go(Step.COMMIT)  # the power failed between the boot record and this one
            self._report("UPDATE.COMMITTED", status.version, status.running, "found in the boot record")
        elif state is UpdateState.TRIAL or (
            state is UpdateState.COMMITTED and manifest is not None and status.image != manifest.image
        ):
            self._go(Step.ROLL_BACK, status.fallback or "the trial did not begin")
            self._report("UPDATE.ROLLED_BACK", status.version, self._record.reason)
        elif manifest is not None and state in (UpdateState.RECEIVING, UpdateState.VERIFIED):
            self._store.pin(manifest.image)  # pins are lost at a reset
            self._ask(manifest)

    def _go(self, step: Step, reason: str = "") -> None:
        """Take a step. What the disk does not take stands until the next reset, which compares with the boot record."""
        state = TRANSITIONS[self.state, step]
        self._record = UpdateRecord(state, self._record.manifest, reason[:REASON_CHARACTERS_MAX])
        fields: dict[str, object] = {"step": step.value, "state": state.value}
        if reason:
            fields["why"] = self._record.reason
        self._audit("update", fields)
        try:
            self._save(self._record)
        except StorageError:
            self.unsaved_count += 1

    def _save(self, record: UpdateRecord) -> None:
        self._copies.store(record.encode())

    def _load(self) -> UpdateRecord:
        try:
            data = self._copies.load()
            return UpdateRecord() if data is None else decode_record(data)
        except StorageError as error:
            self._lost = str(error)[:REASON_CHARACTERS_MAX]
            return UpdateRecord()

    def _decoded(self, data: bytes) -> Manifest | None:
        if not data:
            return None
        try:
            return decode_manifest(data)[1]
        except MessageError as error:
            self._lost = str(error)[:REASON_CHARACTERS_MAX]
            self._record = UpdateRecord()
            return None
