"""What a program does before its settings are there counts when they are."""

import asyncio

from boards import profiles
from boards.waiting import load_ahead
from boards.worker.isolation import proof as proving
from boards.worker.isolation.proof import Proof, Proofs
from boards.worker.runner import open_runner
from boards.worker.settings import WorkerSettings


def test_what_was_proven_during_the_wait_is_not_proven_again(monkeypatch):
    proofs, hogs = Proofs(), []

    async def counted(isolator, *others):
        hogs.append(isolator.name)
        return Proof(True, True, "proven")

    monkeypatch.setattr(proving, "prove", counted)
    load_ahead(proofs)
    tried, profile = list(hogs), profiles.load("raspberry-pi-5")

    async def open_and_close():
        runner = await open_runner(WorkerSettings(), profile, name="sat-01", log=lambda *_: None, proofs=proofs)
        await runner.close()

    asyncio.run(open_and_close())
    assert hogs == tried
    assert tried
