"""Objects, slots and updates under power cuts."""

from functools import cache
from typing import Any, Final

from boards.boot_record import FACTORY
from boards.simulated.images import TARGET, Defect, SimulatedImage, SimulatedSlots
from flightsw.component import OK
from flightsw.core.update import Update
from flightsw.core.update_states import UNDER_WAY, UpdateSettings, UpdateState
from flightsw.objects.digest import digest_of
from flightsw.objects.intents import Intent, Intents
from flightsw.objects.store import ObjectStore
from flightsw.ports import Disk, Random, ResetCause
from flightsw.storage.audit_chain import HASH_BYTES
from flightsw.storage.manifest import Manifest, public_key_of, sign_manifest
from flightsw.wire.messages import CHUNK_BYTES
from ground.audit import AuditBook, Head
from hil.powercut.manager import NS_PER_S, uncounted, unheard
from hil.powercut.subject import Notes, Subject, blob, number_of, state_faults

QUOTA_BYTES: Final = 1 << 23
"""Of objects [bytes]: all of a trial fit, so that none has to give way."""
OBJECTS_COUNT: Final = 5
CHUNKS_COUNT: Final = 5
"""Of an object that comes in chunks."""
KEY: Final = bytes(range(32))
"""Signs manifests here, and nowhere else."""
TRIAL_BOOTS: Final = 2


class Objects:
    """Whole objects, and the chunks that were claimed of partial ones."""

    name = "objects"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Put, remove, and take chunks in any order."""
        store = ObjectStore(disk, QUOTA_BYTES)
        for _ in range(12):
            number = random.randrange(OBJECTS_COUNT)
            data, key = _object(number), f"object {number}"
            digest = digest_of(data)
            if store.has(digest):
                notes.begin(key, None)
                for index in range(CHUNKS_COUNT):
                    notes.begin(f"{key} chunk {index}", None)
                store.remove(digest)  # a power cut may bring it back
            elif number == 0:
                notes.begin(key, "whole")
                store.put(data)
                notes.ack(key, "whole")
            else:
                self._take_chunks(store, number, random, notes)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """What was whole is whole, and all chunks that were claimed are there."""
        store = ObjectStore(disk, QUOTA_BYTES)
        faults = []
        for number in range(OBJECTS_COUNT):
            data, key = _object(number), f"object {number}"
            digest = digest_of(data)
            is_whole = store.has(digest)
            if is_whole and store.get(digest) != data:
                faults.append(f"{key} is another one")
            faults += state_faults(notes, key, "whole" if is_whole else None)
            bitmap = store.bitmap(digest)
            for index in range(CHUNKS_COUNT if number else 0):
                is_held = bool(bitmap) and bool(bitmap[0] & 0x80 >> index)
                faults += state_faults(notes, f"{key} chunk {index}", "held" if is_held else None)
        return faults

    def _take_chunks(self, store: ObjectStore, number: int, random: Random, notes: Notes) -> None:
        data, key = _object(number), f"object {number}"
        digest = digest_of(data)
        store.begin(digest, len(data))
        for index in random.sample(range(CHUNKS_COUNT), random.randrange(CHUNKS_COUNT + 1)):
            notes.begin(key, "whole")
            notes.begin(f"{key} chunk {index}", "held")
            chunk = data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            if store.add_chunk(digest, index, chunk):
                notes.ack(key, "whole")
        if random.random() < 0.5:
            bitmap = store.bitmap(digest)  # what a node claims to its peer
            for index in range(CHUNKS_COUNT):
                if bitmap[0] & 0x80 >> index:
                    notes.ack(f"{key} chunk {index}", "held")


@cache
def _object(number: int) -> bytes:
    return blob(number, 700 if number == 0 else (CHUNKS_COUNT - 1) * CHUNK_BYTES + 100 * number)


class DurableTransfers:
    """Transfers that were asked for over any reset."""

    name = "transfer-intents"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Ask for some, end some."""
        intents = Intents(disk)
        for _ in range(16):
            opened = intents.open()
            if opened and random.random() < 0.3:
                ended = random.choice(opened)
                notes.begin(_named(ended), None)
                intents.end([ended.key])  # the disk may not forget it: a question more
                continue
            notes.begin("number", number := notes.next_number("number"))
            sources = (1, 2) if number % 2 else ()
            intent = Intent(blob(number, 32), 1000 + number, 3, 0 if number % 2 else 7, sources)
            notes.begin(_named(intent), "open")
            intents.add(intent)
            notes.ack(_named(intent), "open")

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """Each that was durable is open, but for those that have ended."""
        opened = {_named(intent) for intent in Intents(disk).open()}
        faults = [f"{name} was never asked for" for name in sorted(opened - set(notes.keys("transfer")))]
        for name in notes.keys("transfer"):
            faults += state_faults(notes, name, "open" if name in opened else None)
        return faults


def _named(intent: Intent) -> str:
    return f"transfer {number_of(intent.digest)} of {intent.size_bytes} from {intent.sources} to {intent.destination}"


class VerifiedHeads:
    """How far the ground has verified the audit chain of each node."""

    name = "audit-book"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Keep heads of some nodes."""
        for _ in range(10):
            node = random.randrange(1, 4)
            number = notes.next_number(f"head of {node}")
            notes.begin(f"head of {node}", number)
            AuditBook(disk).keep(node, Head(number, blob(number, HASH_BYTES)))
            notes.ack(f"head of {node}", number)

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """The head that was durable, or the one that was under way."""
        faults = []
        for node in range(1, 4):
            head = AuditBook(disk).anchor(node)
            number = None if head is None else head.number
            if head is not None and number_of(head.hash) != number:
                faults.append(f"node {node}: hash of another record than {number}")
            faults += state_faults(notes, f"head of {node}", number)
        return faults


class SoftwareUpdate:
    """Updates and slots: something whole always boots, commits stand, and no trial boots too often."""

    name = "update"

    def live(self, disk: Disk, random: Random, notes: Notes) -> None:
        """Stage, try, commit, roll back, give up; several boots."""
        for _ in range(4):
            node = _Node(disk, notes)
            for _ in range(8):
                if node.is_reset or not self._step(node, random, notes):
                    break

    def check(self, disk: Disk, notes: Notes) -> list[str]:
        """Boot once more."""
        node = _Node(disk, notes)
        record = node.slots.record
        faults = list(node.faults)
        content = record.contents.get(record.committed)
        committed = None if record.committed == FACTORY or content is None else content.version
        faults += state_faults(notes, "committed", committed)
        serial = node.update.channels()["serial"]
        faults += state_faults(notes, "serial", int(serial) or None)
        node.cycle()
        if node.update.state is UpdateState.TRIAL and not node.slots.status().is_trial:
            faults.append("a trial that does not run")
        return faults

    def _step(self, node: "_Node", random: Random, notes: Notes) -> bool:
        """One step of an operator; False when the boot is to end."""
        state, update = node.update.state, node.update
        node.cycle()
        if state in (UpdateState.IDLE, UpdateState.COMMITTED, UpdateState.ROLLED_BACK):
            if state is UpdateState.COMMITTED and random.random() < 0.3:
                for version in [*notes.begun("committed"), None]:
                    notes.begin("committed", version)
                node.command("ROLLBACK")
                return False
            serial = max([1, *(one for one in notes.begun("serial") if isinstance(one, int))]) + 1
            notes.begin("serial", serial)
            if node.command("STAGE", _signed(serial)):
                notes.ack("serial", serial)
        elif state in UNDER_WAY:
            if random.random() < 0.1:
                node.command("ABORT")
            elif state is UpdateState.STAGED:
                node.command("TRY")
        elif random.random() < 0.2:
            return False  # a reset on trial
        else:
            notes.begin("committed", update.version)
            if node.command("COMMIT"):
                notes.ack("committed", update.version)
        return not node.is_reset


class _Node:
    """A boot: what the slots say, and the machine that updates them."""

    def __init__(self, disk: Disk, notes: Notes) -> None:
        self.faults: list[str] = []
        self.is_reset = False
        self._now_ns = 0
        self.slots = SimulatedSlots(disk, "sat-01", "0.1.0")
        software = self.slots.boot()
        if software is not None and software.defects != _defects():
            self.faults.append(f"slot {self.slots.record.running} boots what was never signed")
        status = self.slots.status()
        if status.is_trial:
            boots = f"trial boots of {status.version}"
            notes.ack(boots, notes.next_number(boots))
            if notes.next_number(boots) > TRIAL_BOOTS:
                self.faults.append(f"version {status.version} has had {notes.next_number(boots)} boots on trial")
        self._store = ObjectStore(disk, QUOTA_BYTES)
        self._wanted: list[bytes] = []
        self.update = Update(
            disk=disk,
            slots=self.slots,
            store=self._store,
            keys=(_public_key(),),
            want_object=lambda digest, size_bytes: self._wanted.append(digest),
            reset=self._reset,
            report=unheard,
            audit=uncounted,
            settings=lambda: UpdateSettings(stable_s=60, window_s=600, trial_boots=TRIAL_BOOTS, auto_commit=False),
            self_test=lambda: None,
            boot_count=1,
            now_ns=0,
        )

    def cycle(self) -> None:
        """Ten seconds; what was wanted arrives after it."""
        self._now_ns += 10 * NS_PER_S
        self.update.cycle(self._now_ns)
        wanted, self._wanted = self._wanted, []
        for digest in wanted:
            self._store.put(_images()[digest])

    def command(self, name: str, *arguments: Any) -> bool:
        """Give a command; says whether it ended well."""
        return self.update.handlers()[name](arguments).code is OK.code

    def _reset(self, cause: ResetCause) -> None:
        self.is_reset = True


IMAGES_COUNT: Final = 40
"""Versions that are signed: more than the lives of a trial bring."""


def _defects() -> tuple[Defect, ...]:
    """Marks images that were signed here; the node that it strikes is not there."""
    return (Defect(kind="mute", nodes=("nobody",)),)


def _image(serial: int) -> bytes:
    return SimulatedImage(version=f"0.{serial}.0", defects=_defects()).encode()


@cache
def _images() -> dict[bytes, bytes]:
    return {digest_of(image): image for image in map(_image, range(2, 2 + IMAGES_COUNT))}


@cache
def _public_key() -> bytes:
    return public_key_of(KEY)


@cache
def _signed(serial: int) -> bytes:
    data = _image(serial)
    manifest = Manifest(
        target=TARGET,
        version=f"0.{serial}.0",
        image=digest_of(data),
        size_bytes=len(data),
        serial=serial,
        minimum_version="0.1.0",
        minimum_launcher=1,
        allow_downgrade=False,
        dictionary=bytes(8),
    )
    return sign_manifest(manifest, KEY).encode()


def subjects() -> list[Subject]:
    """All of them."""
    return [Objects(), DurableTransfers(), VerifiedHeads(), SoftwareUpdate()]
