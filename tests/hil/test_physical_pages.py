"""Which physical pages are a process's own, by what its kernel says of them."""

import struct

import pytest

from flightsw.errors import BoardError
from hil.on_board.memory import EXCLUSIVE, PAGE_BYTES, PRESENT, ProcessMemory

PID = 7
START = 16 * PAGE_BYTES
MODELS = START + 8 * PAGE_BYTES
SHARED = 1 << 61
"""Source: pagemap.rst, "page is file-page or shared-anon"."""


@pytest.fixture
def memory(tmp_path):
    """A process with four pages of its own memory and two of models, of whose pages the kernel says this."""

    def make(private, models=()):
        folder = tmp_path / str(PID)
        folder.mkdir()
        lines = [
            f"{START:x}-{START + 4 * PAGE_BYTES:x} rw-p 00000000 00:00 0 [heap]",
            f"{MODELS:x}-{MODELS + 2 * PAGE_BYTES:x} rw-s 00000000 00:01 9 /memfd:flatrack-models (deleted)",
        ]
        (folder / "maps").write_text("\n".join(lines) + "\n")
        entries = {START // PAGE_BYTES + index: entry for index, entry in enumerate(private)}
        entries |= {MODELS // PAGE_BYTES + index: entry for index, entry in enumerate(models)}
        table = [entries.get(index, 0) for index in range(MODELS // PAGE_BYTES + 2)]
        (folder / "pagemap").write_bytes(struct.pack(f"<{len(table)}Q", *table))
        return ProcessMemory(PID, tmp_path)

    return make


def test_pages_that_are_swapped_out_or_shared_are_not_the_processs_own(memory):
    own, zeros, absent = PRESENT | EXCLUSIVE | 0x40001, PRESENT | 0x40002, 0x40003
    assert memory([own, zeros, absent, own + 4]).physical_pages("private") == [
        0x40001 * PAGE_BYTES,
        0x40005 * PAGE_BYTES,
    ]


def test_models_are_shared_with_the_worker_and_count_all_the_same(memory):
    found = memory([], [PRESENT | SHARED | 0x40008]).physical_pages("models")
    assert found == [0x40008 * PAGE_BYTES]


def test_a_kernel_that_hides_where_pages_lie_is_told(memory):
    with pytest.raises(BoardError, match="process 7: no physical pages of private memory"):
        memory([PRESENT | EXCLUSIVE]).physical_pages("private")
