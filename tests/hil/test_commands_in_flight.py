"""Commands through a whole run: what a real node answers to a real ground over impaired links."""

import asyncio
from pathlib import Path

import pytest

from flightsw.wire import cbor
from flightsw.wire.messages import SERVICE_COMMAND, CommandCode, Stage
from hil.bench.execute import execute, prepare
from hil.bench.scenario import load

MALFORMED = 100_000
"""A number that no command of the run has."""
WAIT_S = 300
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def flown():
    """What became of each of some commands, by name."""
    found = {}

    async def operator(bench):
        ground = bench.ground.segment
        numbers = {
            "reset counters": ground.command("sat-01", "MODE.RESET_COUNTERS"),
            "not armed": ground.command("sat-01", "NODE.POWER_CYCLE"),
            "arm": ground.command("sat-02", "COMMANDS.ARM", opcode="NODE.POWER_CYCLE"),
        }
        node = ground._numbers["sat-01"]
        payload = cbor.dumps([3, MALFORMED, "NODE.RESET", "soon", []])
        ground.endpoint.send(node, SERVICE_COMMAND, payload, lifetime_ms=4 * 3_600_000)
        desk = ground.cluster._desk
        ours, desk._dictionary_digest = desk._dictionary_digest, b"another!"
        numbers["another dictionary"] = ground.command("sat-01", "MODE.SAFE")
        numbers["link test"] = ground.command("sat-01", "NODE.NOOP")
        desk._dictionary_digest = ours
        verifications = []
        add, ground.archive.add_verification = ground.archive.add_verification, None

        def kept(verification, now_ns):
            verifications.append(verification)
            add(verification, now_ns)

        ground.archive.add_verification = kept
        await asyncio.sleep(WAIT_S)
        found.update({name: ground.cluster.chain(number) for name, number in numbers.items()})
        found["malformed"] = [one for one in verifications if one.command_id == MALFORMED]

    done = execute(prepare(load(str(ROOT / "examples" / "flight.toml")), 7, "none"), 7, operator=operator)
    assert done.outcome.crash == ""
    return found


@pytest.mark.parametrize("name", ["reset counters", "arm", "link test"])
def test_a_good_command_goes_through_all_stages_in_rising_time(flown, name):
    chain = flown[name]
    assert [row.stage for row in chain] == [
        Stage.QUEUED,
        Stage.RELEASED,
        Stage.SENT,
        Stage.ACCEPTED,
        Stage.COMPLETED,
    ]
    assert [row.at_ns for row in chain] == sorted(row.at_ns for row in chain)


@pytest.mark.parametrize(
    ("name", "code"),
    [("not armed", CommandCode.NOT_ARMED), ("another dictionary", CommandCode.FORMAT_ERROR)],
)
def test_a_refused_command_ends_with_its_code(flown, name, code):
    chain = flown[name]
    assert [row.stage for row in chain] == [Stage.QUEUED, Stage.RELEASED, Stage.SENT, Stage.FAILED]
    assert chain[-1].code is code


def test_a_command_that_does_not_decode_is_answered(flown):
    (answer,) = flown["malformed"]
    assert (answer.stage, answer.code) == (Stage.FAILED, CommandCode.FORMAT_ERROR)
    assert "lifetime_ms" in answer.detail or "$[3]" in answer.detail
