"""Update campaigns: a new version for a fleet, wave by wave, that stops by itself when a node fails. Sans-IO.

A wave is staged on all its nodes first, then tried on all of them at once. The next wave begins when every node of this
one has committed and was watched for a while. When one has failed, the wave runs to its end and the campaign stops:
nodes of later waves are not touched.

What a node does is read from its answers to UPDATE.QUERY alone, asked every `POLL_S` and whenever an event of UPDATE
comes in. So nothing that is lost on the way, a reset of the node or a restart of the ground at any instant changes the
outcome; every command may come twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flightsw.errors import ConfigError, MessageError
from flightsw.objects.store import ObjectStore
from flightsw.storage.manifest import Manifest, UpdateReport, decode_manifest, parse_report
from flightsw.wire.messages import Beacon, CommandCode, Event, Stage, Verification
from ground.update_book import (
    FINAL,
    WAVES_MAX,
    Campaign,
    CampaignState,
    NodeRow,
    NodeState,
    Plan,
    UpdateBook,
)

POLL_S: Final = 60.0
"""How often a node of the present wave is asked where it stands [s]."""
RETRY_S: Final = 10.0
"""Pause after a refused command that may pass later [s]: the arm was lost, or the node is busy."""
SOAK_S: Final = 600
"""Default time that a committed node is watched [s]: ten minutes."""
LIMIT_S: Final = 86_400
"""Default time that a node may take [s]: a day, in which every orbit has passes."""
LIMIT_S_MAX: Final = 30 * 86_400
"""Longest time that a node may take, or be watched [s]: a month."""
DETAIL_CHARACTERS_MAX: Final = 256
"""Longest reason on record: a sentence."""
ARM: Final = "COMMANDS.ARM"
QUERY: Final = "UPDATE.QUERY"
"""With the boot count of the last beacon, which a node on trial takes as the acknowledgement of its heartbeat."""
NS_PER_S: Final = 1_000_000_000

Command = Callable[[int, str, tuple[object, ...], int], int]
"""(node, opcode, arguments, now [ns]) -> number of the command."""

UNDER_WAY: Final = ("RECEIVING", "VERIFIED", "STAGED")
"""States on board in which a manifest was taken already."""
AGAIN: Final = (CommandCode.EXPIRED, CommandCode.BUSY, CommandCode.NOT_ARMED)
"""Refusals that say nothing about the update."""


@dataclass(slots=True)
class _Talk:
    """What is under way with a node of the present wave."""

    command_id: int = 0
    """Of the command without an answer; 0: none is out."""
    opcode: str = ""
    then: tuple[str, tuple[object, ...]] | None = None
    """What follows the arming."""
    sent_ns: int = 0
    next_ns: int = 0
    """When the node is asked again."""
    report: UpdateReport | None = None
    heard_ns: int = 0
    """When the report was asked for: it is not older."""
    is_accepted: bool = False
    """STAGE was accepted since the ground started."""


class Campaigns:
    """Runs one campaign at a time.

    Args:
        book: where campaigns are on record.
        store: the ground's objects.
        command: sends a command to a node.
        patience_ns: a command without an answer is given up after this [ns]: its lifetime.
        beacon: (beacon, when heard [ns]) of a node, or None.
        name: of a node.
        note: takes (kind, fields) of what happens.
    """

    def __init__(
        self,
        book: UpdateBook,
        store: ObjectStore,
        command: Command,
        patience_ns: int,
        beacon: Callable[[int], tuple[Beacon, int] | None],
        name: Callable[[int], str],
        note: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._book = book
        self._store = store
        self._command = command
        self._patience_ns = patience_ns
        self._beacon = beacon
        self._name = name
        self._note = note
        self._talks: dict[int, _Talk] = {}
        self._campaign: Campaign | None = None
        self._manifest: Manifest | None = None
        self._changed: dict[int, NodeRow] = {}

    # -- users

    def start(
        self,
        manifest: bytes,
        nodes: Sequence[int],
        now_ns: int,
        *,
        waves: Sequence[int] = (1,),
        soak_s: int = SOAK_S,
        limit_s: int = LIMIT_S,
    ) -> int:
        """Begin a campaign; returns its number. It is on record when this returns.

        Args:
            manifest: signed; its image is in the store.
            nodes: in the order in which they come.
            now_ns: monotonic time [ns].
            waves: sizes of the first waves; all other nodes are in one more.
            soak_s: how long a committed node is watched [s].
            limit_s: how long a node may take [s].

        Raises:
            ConfigError: one runs already, or an argument is wrong.
        """
        if self._campaign is not None:
            raise ConfigError(f"update: campaign {self._campaign.campaign_id} is running, expected it to end first")
        try:
            decoded = decode_manifest(manifest)[1]
        except MessageError as error:
            raise ConfigError(f"update: {error}") from None
        if not nodes or len(set(nodes)) != len(nodes):
            raise ConfigError(f"update: nodes are {list(nodes)}, expected some, each once")
        if len(waves) > WAVES_MAX or any(size < 1 for size in waves):
            raise ConfigError(f"update: waves are {list(waves)}, expected at most {WAVES_MAX} sizes of 1 or more")
        for what, value in (("soak_s", soak_s), ("limit_s", limit_s)):
            if not 1 <= value <= LIMIT_S_MAX:
                raise ConfigError(f"update: {what} is {value}, expected 1 to {LIMIT_S_MAX}")
        if not self._store.has(decoded.image):
            raise ConfigError(f"update: image {decoded.image.hex()[:16]} is not in the store; put it there first")
        held_bytes = self._store.size_bytes(decoded.image)
        if held_bytes != decoded.size_bytes:
            raise ConfigError(f"update: manifest: size_bytes is {decoded.size_bytes}, expected {held_bytes}")
        plan = Plan(manifest, tuple(waves), soak_s, limit_s)
        campaign = self._book.begin(plan, _in_waves(nodes, waves), now_ns)
        self._note("update.started", {"campaign": campaign.campaign_id, "version": decoded.version})
        self._take_up(campaign)
        return campaign.campaign_id

    def stop(self, why: str, now_ns: int) -> None:
        """Stop the campaign: a node that is on trial goes on by itself, no other is touched any more.

        Raises:
            ConfigError: none runs.
        """
        if self._campaign is None:
            raise ConfigError("update: no campaign runs, expected one to stop")
        self._end(CampaignState.STOPPED, why, now_ns)

    def status(self) -> Campaign | None:
        """The campaign that runs, or the last one."""
        return self._campaign or self._book.newest()

    # -- the ground's rounds

    def resume(self, now_ns: int) -> None:
        """After a start: go on with the campaign on record."""
        campaign = self._book.running()
        if campaign is not None:
            self._take_up(campaign)
            self.round(now_ns)

    def round(self, now_ns: int) -> None:
        """Ask, command and judge the nodes of the present wave."""
        campaign, manifest = self._campaign, self._manifest
        if campaign is None or manifest is None:
            return
        wave = self._wave(campaign)
        for row in wave:
            if row.state is NodeState.WAITING:
                self._move(row, NodeState.STAGING, "", now_ns)
        for row in wave:
            if row.state not in FINAL:
                self._judge(campaign.plan, manifest, row, now_ns)
        self._judge_wave(campaign, wave, now_ns)
        self._save(campaign)
        if self._campaign is None:
            return
        for row in wave:  # on record first, then acted upon
            if row.state not in FINAL:
                self._act(campaign.plan, manifest, row, now_ns)

    def on_event(self, event: Event, now_ns: int) -> None:
        """An event of UPDATE says that there is news: ask at once."""
        talk = self._talks.get(event.node)
        if talk is not None and event.component == "UPDATE":
            talk.next_ns = now_ns

    def on_verification(self, verification: Verification, now_ns: int) -> None:
        """Take the end of a command."""
        talk = self._talks.get(verification.node)
        if talk is None or not talk.command_id or talk.command_id != verification.command_id:
            return
        if verification.stage not in (Stage.COMPLETED, Stage.FAILED):
            return
        opcode, then, talk.command_id, talk.then = talk.opcode, talk.then, 0, None
        if verification.stage is Stage.FAILED:
            self._refused(verification, opcode, talk, now_ns)
            return
        if then is not None:
            self._send(verification.node, talk, then[0], then[1], now_ns)
            return
        talk.report = parse_report(verification.detail) if opcode == QUERY else None
        talk.heard_ns = talk.sent_ns
        talk.is_accepted = talk.is_accepted or opcode == "UPDATE.STAGE"
        # what a command has done is asked at once
        talk.next_ns = now_ns if talk.report is None else now_ns + round(POLL_S * NS_PER_S)

    # -- inside

    def _take_up(self, campaign: Campaign) -> None:
        self._campaign = campaign
        self._manifest = decode_manifest(campaign.plan.manifest)[1]
        self._store.pin(self._manifest.image)
        self._talks = {row.node: _Talk() for row in campaign.nodes if row.state not in FINAL}

    def _wave(self, campaign: Campaign) -> list[NodeRow]:
        """Nodes of the first wave that has not ended."""
        number = next((row.wave for row in campaign.nodes if row.state not in FINAL), None)
        return [row for row in campaign.nodes if row.wave == number]

    def _judge(self, plan: Plan, manifest: Manifest, row: NodeRow, now_ns: int) -> None:
        """What the last report says about a node."""
        talk = self._talks[row.node]
        report = talk.report
        if report is not None:
            row.version = report.version
            if talk.heard_ns >= row.changed_ns:  # older ones are of the time before the step
                self._judge_report(plan, manifest, row, report, talk, now_ns)
        if row.state in FINAL:
            return
        is_soaking = row.state is NodeState.SOAKING
        since_ns = row.changed_ns + plan.soak_s * NS_PER_S if is_soaking else self._wave_began_ns(row)
        if now_ns - since_ns >= plan.limit_s * NS_PER_S:
            last = "nothing was heard" if report is None else f"last heard {report.state} {report.version}"
            self._move(row, NodeState.FAILED, f"not done within {plan.limit_s} s: {last}", now_ns)

    def _judge_report(
        self, plan: Plan, manifest: Manifest, row: NodeRow, report: UpdateReport, talk: _Talk, now_ns: int
    ) -> None:
        is_ours = report.serial == manifest.serial
        is_kept = is_ours and report.state == "COMMITTED" and report.version == manifest.version
        match row.state:
            case NodeState.STAGING if is_kept:
                self._move(row, NodeState.SOAKING, "", now_ns)
            case NodeState.STAGING if is_ours and report.state == "STAGED":
                self._move(row, NodeState.STAGED, "", now_ns)
            case NodeState.STAGING if is_ours and report.state == "TRIAL":
                self._move(row, NodeState.TRYING, "", now_ns)
            case NodeState.STAGING if is_ours and report.state == "IDLE" and talk.is_accepted:
                self._move(row, NodeState.FAILED, report.reason or "given up on board", now_ns)
            case NodeState.TRYING if is_kept:
                self._move(row, NodeState.SOAKING, "", now_ns)
            case NodeState.TRYING if report.state in ("ROLLED_BACK", "IDLE") or not is_ours:
                self._move(row, NodeState.FAILED, report.reason or report.state, now_ns)
            case NodeState.SOAKING if not is_kept:
                self._move(row, NodeState.FAILED, report.reason or f"left again: {report.version} runs", now_ns)
            case NodeState.SOAKING:
                self._judge_soak(plan, manifest, row, talk, now_ns)

    def _judge_soak(self, plan: Plan, manifest: Manifest, row: NodeRow, talk: _Talk, now_ns: int) -> None:
        """A success is a node that after the soak says that it is well, and whose beacons are heard."""
        until_ns = row.changed_ns + plan.soak_s * NS_PER_S
        known = self._beacon(row.node)
        if talk.heard_ns < until_ns or known is None or known[1] < row.changed_ns:
            return
        if known[0].dictionary_digest != manifest.dictionary:
            self._move(row, NodeState.FAILED, "its beacons are of another dictionary than the manifest says", now_ns)
        else:
            self._move(row, NodeState.SUCCEEDED, "", now_ns)

    def _judge_wave(self, campaign: Campaign, wave: list[NodeRow], now_ns: int) -> None:
        states = {row.state for row in wave}
        is_failed = NodeState.FAILED in states
        if not states & {NodeState.STAGING, NodeState.TRYING, NodeState.SOAKING} and is_failed:
            failed = [self._name(row.node) for row in wave if row.state is NodeState.FAILED]
            self._end(CampaignState.STOPPED, f"wave {wave[0].wave + 1}: {', '.join(failed)} failed", now_ns)
        elif states <= {NodeState.STAGED, NodeState.SOAKING, NodeState.SUCCEEDED} and NodeState.STAGED in states:
            for row in wave:
                if row.state is NodeState.STAGED:
                    self._move(row, NodeState.TRYING, "", now_ns)
        elif states <= {NodeState.SUCCEEDED} and all(row.state in FINAL for row in campaign.nodes):
            self._end(CampaignState.SUCCEEDED, "", now_ns)

    def _act(self, plan: Plan, manifest: Manifest, row: NodeRow, now_ns: int) -> None:
        """Send what the node needs next, when it is its turn and nothing is out."""
        talk = self._talks[row.node]
        if talk.command_id:
            if now_ns - talk.sent_ns < self._patience_ns:
                return
            talk.command_id, talk.then = 0, None  # it has expired
        report = talk.report if talk.heard_ns >= row.changed_ns else None
        is_ours = report is not None and report.serial == manifest.serial
        state = "" if report is None else report.state
        if row.state is NodeState.STAGING and state and not talk.is_accepted and not (is_ours and state in UNDER_WAY):
            self._arm(row.node, talk, "UPDATE.STAGE", (plan.manifest,), now_ns)
        elif row.state is NodeState.TRYING and state == "STAGED":
            self._arm(row.node, talk, "UPDATE.TRY", (), now_ns)
        elif row.state is NodeState.TRYING and state == "TRIAL" and report is not None and report.is_ready:
            self._send(row.node, talk, "UPDATE.COMMIT", (), now_ns)
        elif now_ns >= talk.next_ns or report is not talk.report:
            self._send(row.node, talk, QUERY, (), now_ns)

    def _refused(self, verification: Verification, opcode: str, talk: _Talk, now_ns: int) -> None:
        talk.next_ns = now_ns + round(RETRY_S * NS_PER_S)
        if verification.code in AGAIN or opcode != "UPDATE.STAGE" or self._campaign is None:
            talk.report = None  # ask first: what it said before may be of another time
            return
        for row in self._wave(self._campaign):
            if row.node == verification.node and row.state is NodeState.STAGING:
                why = f"refused: {verification.code.name} {verification.detail}"
                self._move(row, NodeState.FAILED, why, now_ns)

    def _arm(self, node: int, talk: _Talk, opcode: str, arguments: tuple[object, ...], now_ns: int) -> None:
        self._send(node, talk, ARM, (opcode,), now_ns)
        talk.then = (opcode, arguments)

    def _send(self, node: int, talk: _Talk, opcode: str, arguments: tuple[object, ...], now_ns: int) -> None:
        if opcode == QUERY:
            known = self._beacon(node)
            arguments = (0 if known is None else known[0].boot_count,)
        talk.opcode, talk.sent_ns = opcode, now_ns
        talk.command_id = self._command(node, opcode, arguments, now_ns)

    def _move(self, row: NodeRow, state: NodeState, detail: str, now_ns: int) -> None:
        row.state, row.detail, row.changed_ns = state, detail[:DETAIL_CHARACTERS_MAX], now_ns
        self._changed[row.node] = row
        fields = {"node": self._name(row.node), "state": state.value}
        self._note("update.node", fields | ({"detail": row.detail} if detail else {}))

    def _wave_began_ns(self, row: NodeRow) -> int:
        """When the wave of a node began: the latest end of the waves before it, or the campaign's start."""
        campaign = self._campaign
        assert campaign is not None, "only a running campaign is judged"
        ends = [one.changed_ns for one in campaign.nodes if one.wave < row.wave]
        return max(ends, default=campaign.started_ns)

    def _end(self, state: CampaignState, why: str, now_ns: int) -> None:
        campaign, manifest = self._campaign, self._manifest
        assert campaign is not None, "only a running campaign ends"
        assert manifest is not None, "a running campaign has a manifest"
        staged = [row.node for row in campaign.nodes if row.state in (NodeState.STAGING, NodeState.STAGED)]
        for row in campaign.nodes:
            if row.state in (NodeState.WAITING, NodeState.STAGING, NodeState.STAGED):
                self._move(row, NodeState.UNTOUCHED, "the campaign stopped", now_ns)
            elif row.state not in FINAL:
                self._move(row, NodeState.FAILED, "the campaign stopped while it was on trial", now_ns)
        campaign.state, campaign.detail, campaign.ended_ns = state, why[:DETAIL_CHARACTERS_MAX], now_ns
        self._campaign, self._manifest, self._talks = None, None, {}
        self._save(campaign)
        self._store.unpin(manifest.image)
        self._note("update.ended", {"campaign": campaign.campaign_id, "state": state.value, "detail": campaign.detail})
        for node in staged:
            self._command(node, "UPDATE.ABORT", (), now_ns)

    def _save(self, campaign: Campaign) -> None:
        if self._changed or campaign.ended_ns is not None:
            changed, self._changed = list(self._changed.values()), {}
            self._book.save(campaign, changed)


def _in_waves(nodes: Sequence[int], waves: Sequence[int]) -> list[tuple[int, int]]:
    """(node, wave) of each node."""
    placed: list[tuple[int, int]] = []
    for wave, size in enumerate((*waves, len(nodes))):
        placed += [(node, wave) for node in nodes[len(placed) : len(placed) + size]]
    return placed
