import pytest

from flightsw.core.dumps import DUMP_BYTES_MAX, Dumps
from flightsw.wire.messages import CHUNK_BYTES, decode_message, encode_message


@pytest.mark.parametrize(
    ("size_bytes", "parts"),
    [(0, 1), (1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2), (DUMP_BYTES_MAX, DUMP_BYTES_MAX // CHUNK_BYTES)],
)
def test_a_dump_is_cut_into_messages_that_travel(size_bytes, parts):
    sent = []
    data = bytes(index % 251 for index in range(size_bytes))
    assert Dumps(11, 3, sent.append).send("AUDIT", data) == 1
    assert [decode_message(encode_message(part)) for part in sent] == sent
    assert [(part.part, part.parts) for part in sent] == [(index, parts) for index in range(parts)]
    assert b"".join(part.data for part in sent) == data


def test_dumps_of_a_boot_have_numbers_of_their_own():
    sent = []
    dumps = Dumps(11, 3, sent.append)
    assert [dumps.send(kind, b"x") for kind in ("AUDIT", "EVENTS", "AUDIT")] == [1, 2, 3]
    assert [(part.node, part.boot_count, part.number, part.kind) for part in sent] == [
        (11, 3, 1, "AUDIT"),
        (11, 3, 2, "EVENTS"),
        (11, 3, 3, "AUDIT"),
    ]
