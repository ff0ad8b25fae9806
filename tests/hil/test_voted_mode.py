"""The mode on board lies in three copies: one that is struck is mended, and where none agree the node is SAFE."""

from flightsw.wire.messages import Mode
from hil.bench.single import run_single

STRUCK = 0b100
"""A bit that makes NOMINAL no mode, and SAFE another one."""


async def settled(rig):
    await rig.until(lambda: rig.mode is Mode.NOMINAL, within_s=300)


def test_a_struck_copy_of_the_mode_is_mended_and_the_ground_is_told():
    async def scenario(rig):
        await settled(rig)
        rig.node.modes.voted.copies()[1][0] ^= STRUCK
        await rig.run(60)
        copies = {bytes(copy) for copy in rig.node.modes.voted.copies()}
        return rig.mode, copies, rig.events()

    mode, copies, events = run_single(scenario)
    assert mode is Mode.NOMINAL
    assert copies == {bytes((Mode.NOMINAL,))}
    assert ("MODE.MENDED", "a copy of the mode in memory was struck and mended, 1 so far") in events


def test_without_two_copies_that_agree_the_node_is_safe_and_stays_so_over_a_reset():
    async def scenario(rig):
        await settled(rig)
        first, second, _ = rig.node.modes.voted.copies()
        first[0] ^= STRUCK
        second[0] ^= STRUCK << 1
        await rig.until(lambda: rig.mode is Mode.SAFE, within_s=60)
        await rig.run(60)  # until the events have come down too
        events = rig.events()
        await rig.command("NODE.RESET")
        await rig.until(lambda: rig.boots_count == 2, within_s=120)
        await rig.run(60)
        return events, rig.mode

    events, after = run_single(scenario)
    assert ("MODE.RESTRICTED", "SAFE: no two copies of the mode agree") in events
    assert after is Mode.SAFE


def test_with_the_switch_off_nothing_compares_the_copies():
    async def scenario(rig):
        await settled(rig)
        assert (await rig.command("PARAMETERS.SET", "MODE.voted", "false")).stage.name == "COMPLETED"
        voted = rig.node.modes.voted
        voted.copies()[0][0] = Mode.LOW_POWER
        return rig.node.modes.mode, voted.corrected_count

    assert run_single(scenario) == (Mode.LOW_POWER, 0)
