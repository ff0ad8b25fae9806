"""Campaigns of RAM flips without a machine: copies that are found, flips that are drawn, answers that are judged."""

import asyncio
import json
import os
import random  # noqa: TID251 - a seeded generator
import signal
from types import SimpleNamespace

import msgspec
import pytest
from click.testing import CliRunner

from flightsw.errors import BoardError, ConfigError
from hil.commands import board_ram_flips
from hil.commands.boards import board_group
from hil.emulation.copies import STEP_BYTES, Extent, find_copies
from hil.emulation.flip_campaign import FlipCampaign
from hil.emulation.flip_outcomes import Outcome
from hil.emulation.flip_places import ELSEWHERE, Places
from hil.emulation.memory import PAGE_BYTES, RAM_BASE, GuestMemory
from hil.emulation.ram_flips import NOTES, Notes, RamFlips, Stage, Trial, stage_of

PAGES = 16
DATA = random.Random(1).randbytes(3 * PAGE_BYTES)
WHOLE = ((0, len(DATA)),)


@pytest.fixture
def memory():
    made = GuestMemory(PAGES * PAGE_BYTES)
    yield made
    made.close()


def put(memory, offset, data):
    """Write into RAM, as a guest does."""
    memory._map[offset : offset + len(data)] = data


def everything(memory, parts=WHOLE):
    return find_copies(memory, DATA, parts)


# Copies


def test_the_pages_of_a_copy_are_found_wherever_they_lie(memory):
    for page, place in enumerate((7, 2, 11)):
        put(memory, place * PAGE_BYTES, DATA[page * PAGE_BYTES : (page + 1) * PAGE_BYTES])
    assert everything(memory) == [
        Extent(RAM_BASE + place * PAGE_BYTES, page * PAGE_BYTES, PAGE_BYTES)
        for place, page in ((2, 1), (7, 0), (11, 2))
    ]


def test_an_extent_ends_with_its_page_whose_neighbour_is_another_ones(memory):
    put(memory, PAGE_BYTES - 100, DATA[:200])
    assert everything(memory) == [Extent(RAM_BASE + PAGE_BYTES - 100, 0, 100), Extent(RAM_BASE + PAGE_BYTES, 100, 100)]


@pytest.mark.parametrize("shift", range(9))
def test_a_copy_is_found_at_any_alignment(memory, shift):
    put(memory, 100 + shift, DATA[500:900])
    assert everything(memory) == [Extent(RAM_BASE + 100 + shift, 500, 400)]


def test_a_struck_copy_is_found_up_to_the_struck_byte(memory):
    put(memory, 0, DATA[:1000])
    memory.flip(RAM_BASE + 600, 3)
    assert everything(memory) == [Extent(RAM_BASE, 0, 600), Extent(RAM_BASE + 601, 601, 399)]


def test_only_the_parts_that_count_are_found(memory):
    put(memory, 0, DATA[:1000])
    assert everything(memory, [(200, 300), (400, 500)]) == [
        Extent(RAM_BASE + 200, 200, 100),
        Extent(RAM_BASE + 400, 400, 100),
    ]


def test_single_words_and_zeros_are_no_copies(memory):
    put(memory, 0, DATA[: STEP_BYTES - 1])
    assert everything(memory) == []
    assert find_copies(memory, bytes(PAGE_BYTES), [(0, PAGE_BYTES)]) == []


# Places


PLACES = Places(
    ram_bytes=PAGES * PAGE_BYTES,
    weights=[Extent(RAM_BASE + 10, 0, 100), Extent(RAM_BASE + 5000, 50, 100), Extent(RAM_BASE + 9000, 50, 60)],
    pages={"manager": [RAM_BASE + 3 * PAGE_BYTES], "worker": [RAM_BASE + PAGE_BYTES]},
)


def test_the_flips_of_a_trial_follow_from_seed_and_number_alone():
    assert PLACES.draw("ram", 8, 1, 5) == PLACES.draw("ram", 8, 1, 5)
    assert len({PLACES.draw("ram", 8, seed, number) for seed in (1, 2) for number in (5, 6)}) == 4


@pytest.mark.parametrize("where", ["weights", "manager", "worker", "ram"])
def test_flips_strike_bytes_of_their_own_where_they_should(where):
    size_bytes = PLACES.size_bytes(where)
    flips = PLACES.draw(where, min(size_bytes, 200), 1, 1)
    addresses = [address for address, _ in flips]
    assert len(set(addresses)) == min(size_bytes, 200)
    assert {bit for _, bit in flips} == set(range(8))
    if where == "weights":
        within = [any(0 <= one - copy.address < copy.length for copy in PLACES.weights) for one in addresses]
        assert all(within)
        assert {min(addresses) < RAM_BASE + 110, max(addresses) >= RAM_BASE + 9000} == {True}
    elif where == "ram":
        assert all(0 <= one - RAM_BASE < PLACES.ram_bytes for one in addresses)
    else:
        assert {PLACES.owner(one) for one in addresses} == {where}


def test_each_byte_of_the_weights_is_a_place_of_its_own():
    places = [PLACES._address("weights", place) for place in range(PLACES.size_bytes("weights"))]
    assert places == [copy.address + byte for copy in PLACES.weights for byte in range(copy.length)]


def test_a_page_is_of_the_first_that_claims_it():
    both = Places(PAGE_BYTES, [], {"manager": [RAM_BASE], "models": [RAM_BASE]})
    assert [both.owner(RAM_BASE + 7), both.owner(RAM_BASE + PAGE_BYTES)] == ["manager", ELSEWHERE]


def test_a_bit_is_struck_in_all_copies_but_those_of_an_owner():
    rng = random.Random(4)
    drawn = [PLACES.in_all_copies(rng) for _ in range(200)]
    assert {len(flips) for flips in drawn} == {1, 2, 3}
    for flips in drawn:
        assert len({bit for _, bit in flips}) == 1
        offsets = {
            copy.offset + address - copy.address
            for address, _ in flips
            for copy in PLACES.weights
            if 0 <= address - copy.address < copy.length
        }
        assert len(offsets) == 1, "the same byte of the model in each"
    spared = [flip for _ in range(200) for flip in PLACES.in_all_copies(rng, but="worker")]
    assert {PLACES.owner(address) for address, _ in spared} == {ELSEWHERE}


def test_a_campaign_without_enough_to_strike_is_refused():
    stage = Stage("job", None, Notes(PLACES, b""), "d1")
    with pytest.raises(ConfigError, match="--flips 261: expected at most 260, a bit of each byte"):
        FlipCampaign("job", "weights", 261, 1, [0]).check(stage)
    no_pages = Stage("job", None, Notes(Places(1, [], {}), b""), "d1")
    with pytest.raises(ConfigError, match="--where worker: nothing of it is known of --subject job"):
        FlipCampaign("job", "worker", 1, 1, [0]).check(no_pages)


def test_a_trial_of_another_snapshot_is_refused():
    stage = Stage("job", None, Notes(PLACES, b""), "d1")
    FlipCampaign("job", "ram", 1, 1, [0], snapshot="d1").check(stage)
    with pytest.raises(ConfigError, match="--snapshot d2: expected d1"):
        FlipCampaign("job", "ram", 1, 1, [0], snapshot="d2").check(stage)


async def test_a_snapshot_is_named_by_what_is_known_of_it(tmp_path):
    digests = set()
    for address in (1, 2, 2):
        folder = tmp_path / "struck-job-512"
        folder.mkdir(exist_ok=True)
        (folder / NOTES).write_bytes(msgspec.json.encode(Notes(Places(1, [Extent(address, 0, 1)], {}), b"right")))
        digests.add((await stage_of("job", SimpleNamespace(disk=tmp_path / "disk"), ram_mib=512)).digest)
    assert len(digests) == 2


# Trials of the small program


class Chatty:
    """Stands in for a machine: its program answers each job, and then says what is of no use to anybody."""

    name = "chatty"
    pid = 1
    exit_code = None

    def __init__(self, folder, answer):
        self.uart_path = folder / "uart"
        self.connections = []
        self.memory = GuestMemory(PAGE_BYTES)
        self.resumed_count = 0
        self._answer = answer

    async def freeze(self):
        pass

    async def load(self, tag):
        pass

    async def resume(self):
        self.resumed_count += 1

    def console(self):
        return ""

    def forget_words(self):
        pass

    def cpu_s(self):
        return 0.0

    async def ended(self):
        pass

    async def serve(self, reader, writer):
        self.connections.append(asyncio.current_task())
        while line := await reader.readline():
            if line.startswith(b"job "):
                writer.write(self._answer(int(line[4:])) + b"\nnoise of a board that falls\n")
            if self.exit_code is not None:
                break
        writer.close()
        await writer.wait_closed()


def answer(**fields):
    return lambda job: json.dumps({"job": job, "mask": "right", **fields}).encode()


async def trials(folder, replies, count=1):
    chatty = Chatty(folder, replies)
    server = await asyncio.start_unix_server(chatty.serve, chatty.uart_path)
    campaign = RamFlips(chatty, Stage("job", None, Notes(PLACES, b"right"), "d1"))
    found = [await campaign.trial([(RAM_BASE + 7, 3)]) for _ in range(count)]
    await asyncio.gather(*chatty.connections)
    server.close()
    assert chatty.resumed_count == count
    flipped = chatty.memory.read(RAM_BASE + 7, 1)
    chatty.memory.close()
    assert flipped == bytes((8 * (count % 2),)), "the stand-in's memory is never restored"
    assert len(chatty.connections) == count
    return [one.outcome for one in found]


async def test_what_a_trial_leaves_on_the_line_is_not_judged_in_the_next(tmp_path):
    assert await trials(tmp_path, answer(), 3) == [Outcome.MASKED] * 3


@pytest.mark.parametrize(
    ("replies", "outcome"),
    [
        (answer(mended=1), Outcome.CORRECTED),
        (answer(error="struck"), Outcome.DETECTED),
        (answer(mask="wrong", reloaded=1), Outcome.SILENT),
        (lambda job: answer(mask="wrong")(job - 1) + b"\n" + answer()(job), Outcome.MASKED),
        (lambda job: b"}{", Outcome.GARBLED),
        (lambda job: b"}" * (1 << 17), Outcome.GARBLED),
        (lambda job: b"target: loads", Outcome.CRASH),
    ],
)
async def test_the_answer_of_the_small_program_is_judged(tmp_path, replies, outcome):
    assert await trials(tmp_path, replies) == [outcome]


async def test_a_uart_that_goes_with_its_qemu_is_no_answer(tmp_path):
    chatty = Chatty(tmp_path, lambda job: b"{}")
    chatty.exit_code = 0
    server = await asyncio.start_unix_server(chatty.serve, chatty.uart_path)
    campaign = RamFlips(chatty, Stage("job", None, Notes(PLACES, b"right"), "d1"))
    assert (await campaign.trial(())) == Trial((), Outcome.CRASH, "the board has switched itself off")
    chatty.exit_code = -6
    with pytest.raises(BoardError, match="QEMU has ended"):
        await campaign.trial(())
    await asyncio.gather(*chatty.connections)
    server.close()
    chatty.memory.close()


# The command


def run(monkeypatch, outcomes, *words, end=None):
    """The command on a campaign whose trials become this, and that ends so."""

    async def campaign(asked, files, boards_count, on_trial, on_stage):
        on_stage(Stage(asked.subject, None, Notes(PLACES, b""), "d1"))
        for number in asked.numbers:
            on_trial(number, Trial(((RAM_BASE, 1),), outcomes[number % len(outcomes)], "why"))
        if end is not None:
            await end()

    monkeypatch.setattr(board_ram_flips.os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(board_ram_flips, "run_campaign", campaign)
    monkeypatch.setattr(board_ram_flips, "build", lambda target, folder: type("Files", (), {"digest": "cafe"}))
    return CliRunner().invoke(board_group, ["ram-flips", *words])


def test_the_command_prints_rates_and_how_a_trial_is_repeated(monkeypatch, tmp_path):
    found = [Outcome.MASKED, Outcome.MASKED, Outcome.SILENT, Outcome.MASKED]
    result = run(monkeypatch, found, "--trials", "8", "--seed", "3", "--json", str(tmp_path / "all.json"))
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "trial 2: silent corruption: why",
        "  flatrack board ram-flips --subject manager --where weights --flips 1 --seed 3 --only 2 --snapshot d1",
        "trial 6: silent corruption: why",
        "  flatrack board ram-flips --subject manager --where weights --flips 1 --seed 3 --only 6 --snapshot d1",
        "",
        "subject manager, weights struck, flips 1, seed 3, image cafe, snapshot d1",
        "outcome            trials    rate  95 % interval",
        "masked                  6   75.0%  [40.9%, 92.9%]",
        "silent corruption       2   25.0%  [7.1%, 59.1%]",
    ]
    kept = json.loads((tmp_path / "all.json").read_text())
    assert (kept["seed"], kept["image"], kept["snapshot"], len(kept["trials"])) == (3, "cafe", "d1", 8)
    assert kept["trials"][2] == {
        "number": 2,
        "outcome": "SILENT",
        "said": "why",
        "flips": [[RAM_BASE, 1]],
        "struck": {ELSEWHERE: 1},
    }


def test_one_trial_can_be_repeated_alone(monkeypatch):
    words = ["--subject", "job", "--where", "ram", "--only", "17", "--image", "my images"]
    result = run(monkeypatch, [Outcome.HANG], *words)
    assert "--where ram --flips 64 --seed 1 --only 17 --snapshot d1 --image 'my images'" in result.output
    assert "trial 17: hang" in result.output
    assert result.output.count("trial ") == 1


@pytest.mark.parametrize("where", ["manager", "worker"])
def test_the_small_program_has_neither_manager_nor_worker(monkeypatch, where):
    result = run(monkeypatch, [Outcome.MASKED], "--subject", "job", "--where", where)
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(f"--where {where}: expected weights or ram")


async def interrupted():
    raise KeyboardInterrupt


async def failed():
    raise BoardError("board1: QEMU does not run")


async def terminated():
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@pytest.mark.parametrize("end", [interrupted, failed, terminated])
def test_what_was_done_is_printed_and_written_however_a_campaign_ends(monkeypatch, tmp_path, end):
    def ours(*_):
        pass

    before = signal.signal(signal.SIGTERM, ours)
    try:
        to = tmp_path / "all.json"
        result = run(monkeypatch, [Outcome.MASKED], "--trials", "3", "--json", str(to), end=end)
    finally:
        after = signal.signal(signal.SIGTERM, before)
    assert result.exit_code != 0
    assert "masked                  3  100.0%" in result.output
    assert len(json.loads(to.read_text())["trials"]) == 3
    assert after is ours, "the signal is given back"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--json", "{}"], "--json {}: expected a file, it is a folder"),
        (["--json", "{}/no/all.json"], "--json {}/no/all.json: no folder {}/no"),
        (["--at-once", "3"], "--at-once 3: expected at most 2, a core for each board"),
    ],
)
def test_what_a_campaign_cannot_have_is_refused_before_its_trials(monkeypatch, tmp_path, words, said):
    result = run(monkeypatch, [Outcome.MASKED], *(word.format(tmp_path) for word in words))
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == said.format(tmp_path, tmp_path)
    assert result.output == ""
