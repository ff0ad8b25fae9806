"""Update campaigns on record, in the ledger's file: written before the ground acts, read back after a restart."""

from enum import StrEnum, unique
from typing import Final

import msgspec

from flightsw.storage.manifest import SIGNED_BYTES_MAX
from flightsw.wire import cbor
from ground.ledger import Ledger

WAVES_MAX: Final = 64
"""Most waves that a campaign names: with doubling waves a fleet of any size needs fourteen."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS campaigns (
  campaign_id INTEGER PRIMARY KEY, plan BLOB NOT NULL, state TEXT NOT NULL, detail TEXT NOT NULL DEFAULT '',
  started_ns INTEGER NOT NULL, ended_ns INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS campaign_nodes (
  campaign_id INTEGER NOT NULL, node INTEGER NOT NULL, wave INTEGER NOT NULL, state TEXT NOT NULL,
  detail TEXT NOT NULL DEFAULT '', version TEXT NOT NULL DEFAULT '', changed_ns INTEGER NOT NULL,
  PRIMARY KEY (campaign_id, node)
) STRICT, WITHOUT ROWID;
"""


@unique
class CampaignState(StrEnum):
    """How a campaign stands."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    STOPPED = "STOPPED"
    """A node failed, or somebody stopped it; nodes of later waves were not touched."""


@unique
class NodeState(StrEnum):
    """How far a node is. The last three are final."""

    WAITING = "WAITING"
    """Its wave has not begun."""
    STAGING = "STAGING"
    STAGED = "STAGED"
    TRYING = "TRYING"
    SOAKING = "SOAKING"
    """It has committed, and is watched for a while."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    UNTOUCHED = "UNTOUCHED"
    """The campaign stopped before it was tried here."""


FINAL: Final = (NodeState.SUCCEEDED, NodeState.FAILED, NodeState.UNTOUCHED)


class Plan(msgspec.Struct, frozen=True, array_like=True):
    """What a campaign is to do."""

    manifest: bytes
    """Signed."""
    waves: tuple[int, ...]
    """Sizes of the first waves; all other nodes are in one more."""
    soak_s: int
    """How long a node is watched after its commit before it counts as a success [s]."""
    limit_s: int
    """How long a node may take, from the start of its wave [s]."""


class NodeRow(msgspec.Struct):
    """One node of a campaign."""

    node: int
    wave: int
    state: NodeState
    detail: str
    version: str
    """That ran when last heard; empty before."""
    changed_ns: int


class Campaign(msgspec.Struct):
    """A campaign and its nodes, in the order in which they come."""

    campaign_id: int
    plan: Plan
    state: CampaignState
    detail: str
    started_ns: int
    ended_ns: int | None
    nodes: list[NodeRow]


class UpdateBook:
    """Campaigns in the ledger's file.

    Args:
        ledger: of the ground.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._db = ledger.database
        self._db.executescript(_TABLES)

    def begin(self, plan: Plan, nodes: list[tuple[int, int]], now_ns: int) -> Campaign:
        """Put a new campaign on record.

        Args:
            plan: what to do.
            nodes: (node, wave) of each.
            now_ns: monotonic time [ns].
        """
        packed = cbor.dumps(msgspec.to_builtins(plan, builtin_types=(bytes,)), 4 * SIGNED_BYTES_MAX)
        with self._ledger.transaction():
            cursor = self._db.execute(
                "INSERT INTO campaigns (plan, state, started_ns) VALUES (?, ?, ?)",
                (packed, CampaignState.RUNNING, now_ns),
            )
            number = cursor.lastrowid
            assert number is not None, "an insert has a row"
            self._db.executemany(
                "INSERT INTO campaign_nodes (campaign_id, node, wave, state, changed_ns) VALUES (?, ?, ?, ?, ?)",
                [(number, node, wave, NodeState.WAITING, now_ns) for node, wave in nodes],
            )
        found = self.find(number)
        assert found is not None, "it was just written"
        return found

    def save(self, campaign: Campaign, changed: list[NodeRow]) -> None:
        """Put what changed on record, all or nothing."""
        with self._ledger.transaction():
            self._db.execute(
                "UPDATE campaigns SET state = ?, detail = ?, ended_ns = ? WHERE campaign_id = ?",
                (campaign.state, campaign.detail, campaign.ended_ns, campaign.campaign_id),
            )
            self._db.executemany(
                "UPDATE campaign_nodes SET state = ?, detail = ?, version = ?, changed_ns = ? "
                "WHERE campaign_id = ? AND node = ?",
                [
                    (row.state, row.detail, row.version, row.changed_ns, campaign.campaign_id, row.node)
                    for row in changed
                ],
            )

    def running(self) -> Campaign | None:
        """The campaign that has not ended; there is at most one."""
        row = self._db.execute("SELECT campaign_id FROM campaigns WHERE state = ?", (CampaignState.RUNNING,)).fetchone()
        return None if row is None else self.find(row[0])

    def newest(self) -> Campaign | None:
        """The last campaign that was begun."""
        row = self._db.execute("SELECT MAX(campaign_id) FROM campaigns").fetchone()
        return None if row[0] is None else self.find(row[0])

    def find(self, number: int) -> Campaign | None:
        """A campaign by its number."""
        row = self._db.execute(
            "SELECT plan, state, detail, started_ns, ended_ns FROM campaigns WHERE campaign_id = ?", (number,)
        ).fetchone()
        if row is None:
            return None
        nodes = self._db.execute(
            "SELECT node, wave, state, detail, version, changed_ns FROM campaign_nodes WHERE campaign_id = ? "
            "ORDER BY wave, node",
            (number,),
        )
        plan = msgspec.convert(cbor.loads(row[0], 4 * SIGNED_BYTES_MAX), Plan, builtin_types=(bytes,))
        rows = [NodeRow(one[0], one[1], NodeState(one[2]), *one[3:]) for one in nodes]
        return Campaign(number, plan, CampaignState(row[1]), row[2], row[3], row[4], rows)
