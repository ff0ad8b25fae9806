"""Whole machines under hostile traffic: noise changes nothing, floods fill nothing, strangers move nothing."""

import asyncio
import functools
import gc
import tracemalloc

import pytest
from msgspec.structs import replace

from flightsw.errors import WireError
from flightsw.net.agent import BundleAgent
from flightsw.ports import Random
from flightsw.wire.bundles import decode_bundle, encode_bundle
from flightsw.wire.messages import SERVICE_COMMAND, SERVICE_JOB, SERVICE_OBJECT, Command, encode_message
from flightsw.wire.sdnv import encode_sdnv
from flightsw.wire.security import BLOCK_INTEGRITY
from flightsw.wire.segments import (
    CancelAck,
    CancelReason,
    CancelSegment,
    DataSegment,
    ReportAck,
    ReportSegment,
    decode_segment,
    encode_segment,
)
from hil.fuzz import machines
from hil.fuzz.fingerprint import fingerprint
from hil.fuzz.machines import CODING, FAR, GROUND, LIMITS, LINKS, NODE, PLAN, STRANGER, bundle, green
from hil.fuzz.mutation import inputs
from hil.fuzz.wire_samples import bundle_sample, frame_sample, segment_sample
from hil.sim.loop import VirtualLoop

S = 1_000_000_000
COUNTED = {"counters", "_counters", "refused_counts", "_reports", "_reported_ns"}
"""Attributes that may change when something is refused: it is counted, and said now and then."""


HELD_BYTES = 4 << 20
"""More than an agent with these limits may hold: 2 x 8 half received blocks of 64 KiB, and small things."""


def busy_agent():
    """An agent in the middle of its work: blocks on their way in and out, bundles in queues, timers armed."""
    agent = BundleAgent(NODE, PLAN, LINKS, 0, LIMITS)
    agent.pump(0)
    for number in range(6):
        agent.send(GROUND if number % 2 else FAR, 5, bytes(3000), now_ns=0, utc_ns=0, lifetime_ms=600_000)
    agent.pump(0)
    half = DataSegment((GROUND, 7), True, False, False, False, 1, 0, bytes(100))
    agent.receive_frame(0, CODING.encode(encode_segment(half)), S // 100)
    agent.receive_frame(0, CODING.encode(green(bundle(GROUND, NODE, 5, b"x", 1, False), GROUND, 8)), S // 100)
    agent.receive_frame(0, CODING.encode(green(bundle(GROUND, FAR, 5, b"x", 2, False), GROUND, 9)), S // 100)
    agent.pump(S // 100)
    return agent


def refuses(call, data):
    try:
        call(data)
    except WireError:
        return True
    return False


def noise(count):
    """Frames that do not decode."""
    made = inputs(Random(1), lambda random: frame_sample(random, CODING), 3 * count)
    return [one for one in made if refuses(CODING.decode, one)][:count]


def no_segments(count):
    """Sound frames with what is no segment."""
    made = inputs(Random(2), segment_sample, 3 * count)
    return [CODING.encode(one) for one in made if one and refuses(decode_segment, one)][:count]


def of_strangers(count):
    """Sound segments of engines that no contact leads to; blocks of one segment are taken from anybody."""
    random = Random(3)
    made = []
    while len(made) < count:
        data = segment_sample(random, (STRANGER, 2**64 - 1, 0))
        if refuses(decode_segment, data):
            continue
        segment = decode_segment(data)
        if not (isinstance(segment, DataSegment) and not segment.red):
            made.append(CODING.encode(data))
    return made


def no_bundles(count):
    """Blocks that are no bundle."""
    made = inputs(Random(4), lambda random: bundle_sample(random, (NODE, 5)), 3 * count)
    fitting = (one for one in made if len(one) <= 65_000)  # the longest go into no frame
    return [CODING.encode(green(one, GROUND, 50)) for one in fitting if refuses(decode_bundle, one)][:count]


def for_no_interface(count):
    blocks = [bundle(GROUND, NODE, 5, b"x", 100 + number, False) for number in range(count)]
    return [CODING.encode(green(block, GROUND, 9)) for block in blocks]


@pytest.mark.parametrize("frames", [noise, no_segments, of_strangers, no_bundles], ids=lambda made: made.__name__)
def test_what_is_refused_leaves_an_agent_as_it_was(frames):
    agent = busy_agent()
    # The longest frame that was heard says how long to wait for an answer, whatever is in it.
    patience = {"longest_ns", "timeout_ns"} if frames is no_bundles else set()
    before = fingerprint(agent, COUNTED | patience)
    made = frames(800)
    assert len(made) > 500
    for coded in made:
        agent.receive_frame(0, coded, S // 50)
    assert fingerprint(agent, COUNTED | patience) == before
    rejected = agent.counters.frames_rejected_count() + agent.counters.bundles_rejected_count
    assert rejected == len(made), "each is counted once"


def test_frames_for_an_interface_that_is_not_there_leave_an_agent_as_it_was():
    agent = busy_agent()
    before = fingerprint(agent, COUNTED)
    for coded in for_no_interface(100):
        agent.receive_frame(9, coded, S // 50)
    assert fingerprint(agent, COUNTED) == before
    assert agent.counters.frames_stray_count == 100


def test_a_fingerprint_sees_every_part_of_an_agent():
    """Else the tests above would prove nothing."""
    before = fingerprint(busy_agent(), COUNTED)
    assert fingerprint(busy_agent(), COUNTED) == before

    def heard(segment):
        agent = busy_agent()
        agent.receive_frame(0, CODING.encode(encode_segment(segment)), S // 50)
        return fingerprint(agent, COUNTED)

    seen = {
        before,
        heard(DataSegment((GROUND, 7), True, False, False, False, 1, 100, b"y")),
        heard(DataSegment((GROUND, 7), True, False, False, False, 1, 100, b"z")),
        heard(DataSegment((GROUND, 11), True, False, False, False, 1, 0, b"y")),
        heard(CancelSegment((GROUND, 7), CancelReason.USR_CNCLD, True)),
        heard(CancelSegment((GROUND, 12), CancelReason.USR_CNCLD, True)),
    }
    assert len(seen) == 6
    agent = busy_agent()
    agent.send(GROUND, 5, b"one more", now_ns=S // 50, utc_ns=0, lifetime_ms=1000)
    assert fingerprint(agent, COUNTED) not in seen


# -- floods


def cancels(number):
    return CancelSegment((GROUND, 1000 + number), CancelReason.USR_CNCLD, True)


def cancels_of_ours(number):
    return CancelSegment((NODE, 1000 + number), CancelReason.USR_CNCLD, False)


def cancel_acks(number):
    return CancelAck((GROUND, 1000 + number), True)


def begun_blocks(number):
    return DataSegment((GROUND, 1000 + number), True, False, False, False, 1, 0, b"x")


def far_ends(number):
    return DataSegment((GROUND, 1000 + number), True, True, True, True, 1, 60_000, b"x", 1)


def checkpoints(number):
    return DataSegment((GROUND, 77), True, True, False, False, 1, 0, b"x", 1 + number)


def whole_blocks(number):
    block = bundle(GROUND, NODE, 5, b"x", number, False)
    return DataSegment((GROUND, 1000 + number), True, True, True, True, 1, 0, block, 1)


def reports(number):
    return ReportSegment((NODE, 1 + number % 9), 1 + number, 0, 3000, 0, ((0, 1 + number % 2000),))


def report_acks(number):
    return ReportAck((GROUND, 7), 1 + number)


def scattered(number):
    """One byte in two of one block: as many pieces as may be, and then some."""
    return DataSegment((GROUND, 78), True, False, False, False, 1, 2 * number % 60_000, b"x")


def green_bundle(number, destination, payload):
    block = bundle(GROUND, destination, 5, payload, number, False)
    return DataSegment((GROUND, number), False, False, False, True, 1, 0, block)


def for_the_unreachable(number):
    return green_bundle(number, 777, bytes(50))


def for_the_far_node(number):
    return green_bundle(number, FAR, bytes(50))


def for_a_service(number):
    return green_bundle(number, NODE, b"x")


FLOODS = (
    cancels, cancels_of_ours, cancel_acks, begun_blocks, far_ends, checkpoints, whole_blocks, reports, report_acks,
    scattered, for_the_unreachable, for_the_far_node, for_a_service,
)  # fmt: skip


@pytest.mark.parametrize("is_answered", [True, False], ids=["in contact", "out of contact"])
@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_a_flood_of_segments_fills_nothing(flood, is_answered):
    """Twice as many segments take no more memory."""
    agent = BundleAgent(NODE, PLAN, LINKS, 0, LIMITS)
    agent.pump(0)
    for _ in range(4):
        agent.send(GROUND, 5, bytes(3000), now_ns=0, utc_ns=0, lifetime_ms=600_000)
    agent.pump(0)
    # out of contact: the far node's segments while there is none with it
    interface, engine = (0, GROUND) if is_answered else (1, FAR)
    now_ns = S if is_answered else 30 * S
    agent.pump(now_ns)
    sizes = []
    tracemalloc.start()
    try:
        for number in range(3_000):
            data = encode_segment(flood(number))
            if not is_answered:
                data = data[:1] + data[1:].replace(encode_sdnv(GROUND), encode_sdnv(engine), 1)
            agent.receive_frame(interface, CODING.encode(data), now_ns)
            now_ns += 1_000_000 if is_answered else 0
            agent.pump(now_ns)
            agent.take_deliveries()
            if number in (1_499, 2_999):
                sizes.append(traced_bytes())
    finally:
        tracemalloc.stop()
    assert sizes[1] < 1.1 * sizes[0] + 50_000, f"{sizes[0]} bytes after 1,500 segments, {sizes[1]} after 3,000"
    assert sizes[1] < HELD_BYTES, "no more than what the limits allow"


def traced_bytes():
    """Memory that is held, without what the caches of the codecs hold: they are bounded, and take a while to fill."""
    for one in gc.get_objects():
        if isinstance(one, functools._lru_cache_wrapper) and one.__module__.startswith("flightsw."):
            one.cache_clear()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


# -- a node


WORKED_OUT = ("_live", "_sending")
"""What keys are derived to, when a peer is first named; not what they are."""
TOLD = ("_disk", "disk", "_components")
"""What leads to the events that tell of refused messages: they are kept on the disk, and each component has counts."""
REMOVE = Command(1, "OBJECTS.REMOVE", 10**6, (machines.known()[1],))


def virtual(scenario):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scenario())


def files(disk):
    """What a disk holds, but for the kept events."""
    return {name: disk.read(name) for name in disk.names() if not name.startswith("events/")}


@pytest.mark.parametrize("service", [SERVICE_COMMAND, SERVICE_OBJECT, SERVICE_JOB])
@pytest.mark.parametrize("source", [GROUND, FAR, STRANGER])
def test_messages_without_a_tag_leave_a_node_as_it_was(service, source):
    """Not its disk, not its jobs, not its objects, not its modes."""

    async def scenario():
        node, link, disk = machines.make_node(asyncio.get_running_loop())
        node.endpoint.flush()
        parts = (node.jobs, node.store, node.modes, node.models, node.commands, node.keys, node.transfers)
        before = [fingerprint(part, WORKED_OUT + TOLD) for part in parts], files(disk)
        random = Random(5)
        for number in range(300):
            payload = machines.node_message(random)
            if service == SERVICE_COMMAND and number % 3 == 0:
                payload = encode_message(replace(REMOVE, command_id=number))
            block = bundle(source, NODE, service, payload, number, False)
            link.deliver(0, CODING.encode(green(block, GROUND, number)))
        after = [fingerprint(part, WORKED_OUT + TOLD) for part in parts], files(disk)
        await node.endpoint.close()
        return before, after, node.agent.counters

    before, after, counters = virtual(scenario)
    assert after == before
    assert counters.bundles_delivered_count == 0


def test_a_signed_command_changes_that_node():
    """Else the test above would prove nothing."""

    async def scenario():
        node, link, disk = machines.make_node(asyncio.get_running_loop())
        node.endpoint.flush()
        before = [fingerprint(part) for part in (node.store, node.commands, disk)]
        payload = encode_message(REMOVE)
        link.deliver(0, CODING.encode(green(bundle(GROUND, NODE, SERVICE_COMMAND, payload, 1, True), GROUND, 1)))
        after = [fingerprint(part) for part in (node.store, node.commands, disk)]
        await node.endpoint.close()
        return before, after

    before, after = virtual(scenario)
    assert all(one != other for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("mpix", [float("inf"), float("nan"), 1e300, -1.0])
def test_a_job_whose_steps_never_end_is_refused_and_the_node_goes_on(mpix):
    """Infinity ended the arithmetic of the budget, and with it the manager; found by these inputs."""

    async def scenario():
        node, link, _ = machines.make_node(asyncio.get_running_loop())
        task = asyncio.get_running_loop().create_task(node.run())
        await asyncio.sleep(1)
        model, tile = machines.known()
        spec = [9, 1, 1, "cloud_mask", model, 8, tile, 7, 4, mpix, 4, 10_000, 1, 1.0]
        for number, work in ((1, mpix), (2, 1.0)):
            spec[1], spec[9] = number, work
            payload = encode_message(Command(number, "JOBS.SUBMIT", 10**6, (list(spec),)))
            block = bundle(GROUND, NODE, SERVICE_COMMAND, payload, number, True)
            link.deliver(0, CODING.encode(green(block, GROUND, number)))
        jobs = list(node.jobs.jobs)
        await asyncio.sleep(100)
        is_running = not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return jobs, is_running

    assert virtual(scenario) == ([2], True)


def is_of_another(block, changed):
    """Whether a change is to more than the blocks that no tag covers, because they change on the way."""
    bundle = decode_bundle(block)
    try:
        other = decode_bundle(changed)
    except WireError:
        return True
    return signed_parts(bundle) != signed_parts(other)


def signed_parts(bundle):
    tags = [block for block in bundle.blocks if block.type == BLOCK_INTEGRITY]
    return bundle.primary_bytes, bundle.payload_block_bytes, tags


def test_a_bundle_with_every_bit_flipped_in_turn_is_never_taken_for_another():
    """Each of the bits of a signed command: no flip gives a bundle that is accepted."""

    async def scenario():
        payload = encode_message(REMOVE)
        block = bundle(GROUND, NODE, SERVICE_COMMAND, payload, 1, True)
        node, link, _ = machines.make_node(asyncio.get_running_loop())
        node.endpoint.flush()
        for bit in range(8 * len(block)):
            flipped = bytearray(block)
            flipped[bit // 8] ^= 0x80 >> bit % 8
            if not is_of_another(block, bytes(flipped)):
                continue  # age and hop count change on the way: no tag covers them
            link.deliver(0, CODING.encode(green(bytes(flipped), GROUND, bit)))
        executed = node.commands.executed_count
        link.deliver(0, CODING.encode(green(block, GROUND, 9999)))
        await node.endpoint.close()
        return executed, node.commands.executed_count, encode_bundle(decode_bundle(block)) == block

    assert virtual(scenario) == (0, 1, True)
