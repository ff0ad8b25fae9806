"""The simulated disk: what a power cut may take, and what it may not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightsw.errors import StorageError
from flightsw.ports import Random
from hil.sim.disk import SECTOR_BYTES, SimulatedDisk
from hil.sim.faulty_disk import FaultyDisk, PowerCut

MEBIBYTE = 1 << 20
SEEDS = st.integers(0, 2**32)
CUTS = 300


def disk(seed: int = 1, capacity_bytes: int = MEBIBYTE) -> SimulatedDisk:
    return SimulatedDisk(capacity_bytes, Random(seed))


def pattern(size_bytes: int, salt: int = 1) -> bytes:
    """Bytes without zeros, so that a hole is seen."""
    return bytes(1 + (salt * 31 + index * 7 + index // 255) % 255 for index in range(size_bytes))


# The port


def test_what_is_written_is_read_back() -> None:
    flash = disk()
    flash.append("log", b"one")
    flash.append("log", b"two")
    flash.write("state", b"old")
    flash.write("state", b"new")
    flash.replace("slot", b"a")
    flash.replace("slot", b"bb")
    assert [flash.read(name) for name in ("log", "state", "slot")] == [b"onetwo", b"new", b"bb"]
    assert flash.free_bytes() == MEBIBYTE - 6 - 3 - 2


@pytest.mark.parametrize("action", [SimulatedDisk.read, SimulatedDisk.sync])
def test_an_absent_file_is_a_storage_error(action: object) -> None:
    with pytest.raises(StorageError, match="log: no such file"):
        action(disk(), "log")  # type: ignore[operator]


def test_removing_is_forgetting_and_an_absent_name_is_no_error() -> None:
    flash = disk()
    flash.replace("slot", b"abc")
    flash.remove("slot")
    flash.remove("slot")
    assert not flash.exists("slot")
    assert flash.free_bytes() == MEBIBYTE


def test_names_are_sorted_and_selected_by_prefix() -> None:
    flash = disk()
    for name in ("log/2", "slot", "log/10", "log/1"):
        flash.append(name, b"")
    assert flash.names() == ["log/1", "log/10", "log/2", "slot"]
    assert flash.names("log/1") == ["log/1", "log/10"]


def test_a_full_disk_names_the_sizes_and_keeps_what_it_has() -> None:
    flash = disk(capacity_bytes=1000)
    flash.append("log", bytes(600))
    with pytest.raises(StorageError, match=r"append of 500 bytes to log: 400 of 1000 bytes are free"):
        flash.append("log", bytes(500))
    with pytest.raises(StorageError, match=r"write of 1001 bytes to log: 1000 of 1000 bytes are free"):
        flash.write("log", bytes(1001))
    with pytest.raises(StorageError, match=r"replace of 401 bytes to log: 400 of"):
        flash.replace("log", bytes(401))  # old and new stand side by side until the rename
    assert flash.read("log") == bytes(600)
    flash.write("log", bytes(1000))
    assert flash.free_bytes() == 0


def is_scattered(left: bytes, whole: bytes) -> bool:
    """Whether each sector is whole, zeros, or its first bytes and zeros."""
    if len(left) > len(whole):
        return False
    for start in range(0, len(left), SECTOR_BYTES):
        written = left[start : start + SECTOR_BYTES].rstrip(b"\0")
        if whole[start : start + len(written)] != written:
            return False
    return True


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["append", "write", "sync", "replace", "remove", "power_cut"]),
        st.sampled_from("abc"),
        st.integers(0, 1500),
    ),
    max_size=25,
)


@given(SEEDS, ACTIONS)
def test_after_any_history_a_cut_leaves_only_what_the_rules_allow(
    seed: int, actions: list[tuple[str, str, int]]
) -> None:
    flash = disk(seed)
    now: dict[str, bytes] = {}
    durable: dict[str, bytes] = {}
    removed: dict[str, bytes] = {}
    rewritten: dict[str, bool] = {}
    for number, (action, name, size_bytes) in enumerate([*actions, ("power_cut", "", 0)]):
        data = pattern(size_bytes, number)
        match action:
            case "append":
                flash.append(name, data)
                now[name] = now.get(name, b"") + data
            case "write":
                flash.write(name, data)
                now[name] = data
                rewritten[name] = True
            case "sync" if name in now:
                flash.sync(name)
                durable[name] = now[name]
                rewritten[name] = False
                removed.pop(name, None)
            case "replace":
                flash.replace(name, data)
                now[name] = durable[name] = data
                rewritten[name] = False
                removed.clear()
            case "remove":
                flash.remove(name)
                now.pop(name, None)
                rewritten[name] = False
                if name in durable:
                    removed[name] = durable.pop(name)
            case "power_cut":
                assert {name: flash.synced_view(name) for name in now} == {name: durable.get(name) for name in now}
                flash.power_cut()
                left = {name: flash.read(name) for name in flash.names()}
                assert durable.keys() <= left.keys() <= now.keys() | removed.keys()
                for left_name, content in left.items():
                    is_torn = left_name in now and is_scattered(content, now[left_name])
                    if left_name in durable and not rewritten.get(left_name):
                        assert is_torn
                        assert content.startswith(durable[left_name])
                    else:
                        before = durable.get(left_name, removed.get(left_name, b""))
                        assert is_torn or content == before
                        assert len(content) <= max(len(now.get(left_name, b"")), len(before))
                now, durable, removed, rewritten = dict(left), dict(left), {}, {}
        assert {name: flash.read(name) for name in flash.names()} == now
        assert flash.free_bytes() == MEBIBYTE - sum(map(len, now.values()))


# Power cuts


def test_a_cut_with_nothing_unsynced_takes_nothing() -> None:
    for seed in range(50):
        flash = disk(seed)
        flash.append("log", pattern(700))
        flash.sync("log")
        flash.write("state", pattern(300, 2))
        flash.sync("state")
        flash.replace("slot", pattern(900, 3))
        flash.power_cut()
        assert flash.read("log") == pattern(700)
        assert flash.read("state") == pattern(300, 2)
        assert flash.read("slot") == pattern(900, 3)


def test_of_an_unsynced_append_any_sectors_survive_and_one_may_be_torn() -> None:
    whole = pattern(5000)
    lengths, kept = set(), set()
    torn_count = 0
    for seed in range(CUTS):
        flash = disk(seed)
        flash.append("log", whole[:700])
        flash.sync("log")
        flash.append("log", whole[700:3000])
        flash.append("log", whole[3000:])
        flash.power_cut()
        left = flash.read("log")
        assert left[:700] == whole[:700], "synced bytes survive"
        assert is_scattered(left, whole)
        sectors = [left[start : start + SECTOR_BYTES] for start in range(1024, len(left), SECTOR_BYTES)]
        kept.add(tuple(0 not in sector for sector in sectors))
        torn = [0 in sector and any(sector) for sector in sectors]
        assert sum(torn) <= 1
        torn_count += any(torn)
        lengths.add(len(left))
    assert {700, 4608, 5000} <= lengths
    assert any(not first and last for first, *_, last in (one for one in kept if len(one) > 1)), "a hole before data"
    assert (True,) * 8 in kept
    assert torn_count > CUTS // 10


def test_an_unsynced_whole_write_is_the_old_file_or_a_torn_new_one() -> None:
    old, new = pattern(1000, 1), pattern(2000, 2)
    kept_old = kept_new = torn = 0
    for seed in range(CUTS):
        flash = disk(seed)
        flash.replace("state", old)
        flash.write("state", new[:1500])
        flash.append("state", new[1500:])
        assert flash.synced_view("state") == old
        flash.power_cut()
        left = flash.read("state")
        assert left == old or is_scattered(left, new)
        kept_old += left == old
        kept_new += left == new
        torn += left not in (old, new)
    assert kept_old > CUTS // 4
    assert torn > CUTS // 4
    assert kept_new > 0


def test_a_replaced_file_is_never_torn_and_never_old() -> None:
    for seed in range(CUTS):
        flash = disk(seed)
        flash.append("slot", pattern(600, 1))
        flash.write("slot", pattern(700, 2))
        flash.replace("slot", pattern(800, 3))
        flash.power_cut()
        assert flash.read("slot") == pattern(800, 3)


def test_a_file_that_was_never_synced_may_be_absent() -> None:
    present = 0
    for seed in range(CUTS):
        flash = disk(seed)
        flash.append("log", pattern(100))
        assert flash.synced_view("log") is None
        flash.power_cut()
        present += flash.exists("log")
    assert CUTS // 4 < present < CUTS * 3 // 4


def test_the_last_removals_may_be_undone_but_never_an_earlier_one_alone() -> None:
    outcomes = set()
    for seed in range(CUTS):
        flash = disk(seed)
        for name in ("a", "b"):
            flash.replace(name, name.encode())
        flash.remove("a")
        flash.remove("b")
        flash.power_cut()
        outcomes.add(tuple(flash.names()))
        assert all(flash.read(name) == name.encode() for name in flash.names())
    assert outcomes == {(), ("b",), ("a", "b")}


def test_a_replace_makes_earlier_removals_durable() -> None:
    for seed in range(50):
        flash = disk(seed)
        flash.replace("a", b"a")
        flash.remove("a")
        flash.replace("b", b"b")
        flash.power_cut()
        assert flash.names() == ["b"]


def test_a_file_made_again_after_its_removal_is_old_or_new_but_no_mixture() -> None:
    outcomes = set()
    for seed in range(CUTS):
        flash = disk(seed)
        flash.replace("a", b"old")
        flash.remove("a")
        flash.append("a", b"new!")
        flash.power_cut()
        outcomes.add(flash.read("a").rstrip(b"\0") if flash.exists("a") else None)
    assert {b"old", b"new!", None} <= outcomes
    assert all(left is None or left == b"old" or b"new!".startswith(left) for left in outcomes)


def test_a_file_made_again_and_synced_is_the_new_one() -> None:
    for seed in range(50):
        flash = disk(seed)
        flash.replace("a", b"old")
        flash.remove("a")
        flash.append("a", b"new!")
        flash.sync("a")
        flash.power_cut()
        assert flash.read("a") == b"new!"


def test_what_a_cut_left_is_durable() -> None:
    for seed in range(50):
        flash = disk(seed)
        flash.append("log", pattern(3000))
        flash.write("state", pattern(3000, 2))
        flash.power_cut()
        first = {name: flash.read(name) for name in flash.names()}
        flash.power_cut()
        assert {name: flash.read(name) for name in flash.names()} == first
    assert flash.power_cuts_count == 2


@given(SEEDS)
def test_a_cut_repeats_with_its_stream(seed: int) -> None:
    left = []
    for _ in range(2):
        flash = disk(seed)
        for name in ("b", "a"):
            flash.append(name, pattern(2000))
            flash.sync(name)
            flash.append(name, pattern(3000, 2))
        flash.power_cut()
        left.append({name: flash.read(name) for name in flash.names()})
    assert left[0] == left[1]


# Bit rot


def test_a_flipped_bit_is_flipped_for_every_reader_and_survives_a_cut() -> None:
    flash = disk()
    flash.replace("object", b"\x00\x00\x00")
    flash.flip_bit("object", 9)
    assert flash.read("object") == b"\x00\x02\x00" == flash.synced_view("object")
    flash.power_cut()
    assert flash.read("object") == b"\x00\x02\x00"
    flash.flip_bit("object", 9)
    assert flash.read("object") == bytes(3)


def test_a_lost_sector_is_zeros_and_the_others_stand() -> None:
    flash = disk()
    whole = pattern(1300)
    flash.replace("object", whole)
    flash.lose_sector("object", 2)
    flash.power_cut()
    assert flash.read("object") == whole[:1024] + bytes(276)
    with pytest.raises(StorageError, match="no sector 3 in 1300 bytes"):
        flash.lose_sector("object", 3)


@pytest.mark.parametrize("bit_index", [-1, 24])
def test_a_bit_outside_the_file_cannot_flip(bit_index: int) -> None:
    flash = disk()
    flash.replace("object", bytes(3))
    with pytest.raises(StorageError, match="in 3 bytes"):
        flash.flip_bit("object", bit_index)


# A disk that refuses


def faulty(seed: int = 1) -> FaultyDisk:
    return FaultyDisk(MEBIBYTE, Random(seed))


def test_a_spoilt_file_is_unreadable_until_it_is_written_anew() -> None:
    flash = faulty()
    flash.replace("slot", b"old")
    flash.spoil("slot")
    with pytest.raises(StorageError, match="read slot: input/output error"):
        flash.read("slot")
    flash.power_cut()
    with pytest.raises(StorageError):
        flash.read("slot")
    flash.replace("slot", b"new")
    assert flash.read("slot") == b"new"


def test_failing_writes_raise_and_leave_old_new_or_a_part() -> None:
    appended, replaced = set(), set()
    for seed in range(50):
        flash = faulty(seed)
        flash.append("log", b"one")
        flash.replace("slot", b"old")
        flash.fail_writes("log", "sl")
        with pytest.raises(StorageError, match="log: input/output error"):
            flash.append("log", b"two")
        with pytest.raises(StorageError):
            flash.replace("slot", b"new")
        flash.replace("other", b"fine")
        flash.fail_writes()
        flash.sync("log")
        appended.add(flash.read("log"))
        replaced.add(flash.read("slot"))
    assert appended == {b"one", b"onet", b"onetw", b"onetwo"}
    assert replaced == {b"old", b"new"}


def test_a_filled_disk_has_only_the_space_that_was_left() -> None:
    flash = faulty()
    flash.append("log", bytes(100))
    flash.fill(free_bytes=10)
    with pytest.raises(StorageError, match="disk full"):
        flash.append("log", bytes(11))
    flash.append("log", bytes(10))
    flash.unfill()
    assert flash.free_bytes() == MEBIBYTE - 110


def test_power_that_fails_during_a_call_leaves_the_call_done_or_not_and_the_disk_silent() -> None:
    seen = set()
    for seed in range(50):
        flash = faulty(seed)
        flash.replace("slot", b"old")
        flash.cut_power_at(1)
        flash.append("log", b"x")
        with pytest.raises(PowerCut):
            flash.replace("slot", b"new")
        for call in (flash.read, flash.sync, flash.remove):
            with pytest.raises(PowerCut, match="the power is off"):
                call("log")
        flash.power_cut()
        seen.add(flash.read("slot"))
        flash.replace("slot", b"next")
    assert seen == {b"old", b"new"}
