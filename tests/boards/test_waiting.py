"""What a program does before its settings are there counts when they are, and holds nobody up."""

import asyncio

import pytest

from boards import profiles, waiting
from boards.waiting import try_ahead
from boards.worker.isolation import proof as proving
from boards.worker.isolation.proof import Proof, Proofs
from boards.worker.runner import open_runner
from boards.worker.settings import WorkerSettings
from flightsw.errors import BoardError


def test_what_was_proven_during_the_wait_is_not_proven_again(monkeypatch):
    proofs, hogs = Proofs(), []

    async def counted(isolator, *others):
        hogs.append(isolator.name)
        return Proof(True, True, "proven")

    async def open_and_close():
        runner = await open_runner(
            WorkerSettings(), profiles.load("raspberry-pi-5"), name="sat-01", log=lambda *_: None, proofs=proofs
        )
        await runner.close()

    monkeypatch.setattr(proving, "prove", counted)
    asyncio.run(try_ahead(proofs, lambda: True))
    tried = list(hogs)
    asyncio.run(open_and_close())
    assert hogs == tried
    assert tried


def test_a_proof_that_takes_long_lets_the_program_stroke_and_end(monkeypatch):
    given_up, strokes = [], []

    async def endless(*_):
        try:
            await asyncio.Event().wait()
        finally:
            given_up.append(True)

    def live():
        strokes.append(True)
        return len(strokes) < 4

    monkeypatch.setattr(waiting, "STROKE_S", 0.001)
    monkeypatch.setattr(proving, "prove", endless)
    asyncio.run(try_ahead(Proofs(), live))
    assert len(strokes) == 4
    assert given_up


@pytest.mark.parametrize(("error", "is_said"), [(BoardError("no way"), False), (ZeroDivisionError(), True)])
def test_a_way_that_cannot_be_had_is_no_matter_of_the_wait_but_a_mistake_of_ours_is(monkeypatch, error, is_said):
    async def failing(*_):
        raise error

    monkeypatch.setattr(proving, "prove", failing)
    if is_said:
        with pytest.raises(ZeroDivisionError):
            asyncio.run(try_ahead(Proofs(), lambda: True))
    else:
        asyncio.run(try_ahead(Proofs(), lambda: True))
