"""What goes wrong with the manager itself: hangs, crashes, silence, clocks."""

from typing import Final

from flightsw.wire.messages import JobState, Mode
from hil.bench.single import NODE, Single
from hil.faults.plan import BootLoop, ClockJump, ComponentHang, Fault, WeightUpset, WorkerHang
from hil.protection.scenario import Act, Scenario, require

ARM_ALL: Final = ("LIMITS.ARM", "*")
NOMINAL: Final = ("MODE.NOMINAL",)
LOSS_S: Final = 900
"""What the timers of command and contact loss are set to [s]: days would show nothing more."""
THREE_DAYS_S: Final = 259_200.0
STORM_EVENTS: Final = 400
JOBS_SPOILT: Final = 5
SPOILT_DEADLINE_S: Final = 1800
EVENTS_ASKED: Final = 50


def strike(kind: type[Fault], **fields: object) -> Act:
    """Let a fault of a scenario strike."""

    async def inject(rig: Single) -> None:
        rig.strike(kind(node=rig.name, at_s=0.0, **fields))  # type: ignore[call-arg, arg-type]
        await rig.run(1.0)

    return inject


def with_job(kind: type[Fault], **fields: object) -> Act:
    """Let a fault strike while a job runs."""

    async def inject(rig: Single) -> None:
        rig.submit(step_s=20.0)
        rig.strike(kind(node=rig.name, at_s=0.0, when="job_running", **fields))  # type: ignore[call-arg, arg-type]
        await rig.run(1.0)

    return inject


async def job_completes(rig: Single) -> None:
    """The job that was struck ends as if nothing had happened."""
    await rig.until(lambda: bool(rig.completed), within_s=1200.0)
    (report,) = rig.completed.values()
    require(report.state is JobState.COMPLETED, f"the job ended {report.state.name}: {report.detail}")


async def spoilt_jobs(rig: Single) -> None:
    """Jobs whose model is none."""
    for number in range(JOBS_SPOILT):
        rig.submit(seed=number, model=b"no model at all " * (8 + number), deadline_s=SPOILT_DEADLINE_S)
    await rig.run(1.0)


async def jobs_are_over(rig: Single) -> None:
    """Their deadlines have passed, and the hour in which failures are counted."""
    await rig.run(SPOILT_DEADLINE_S + 3700.0)


async def silence_of_commands(rig: Single) -> None:
    """Nobody commands the node any more; it is heard all the same."""
    await rig.command("PARAMETERS.SET", "LIMITS.command_loss_s", str(LOSS_S))


async def silence_of_ground(rig: Single) -> None:
    """The ground is not heard any more, for a while."""
    await rig.command("PARAMETERS.SET", "LIMITS.contact_loss_s", str(LOSS_S))
    rig.link.add_outage(rig.loop.now_ns, rig.loop.now_ns + round((LOSS_S + 100.0) * 1e9))


async def restarted_once(rig: Single) -> None:
    """The restart was tried once, and the reason is on board: what was said of it went into the silence."""
    require(rig.boots_count == 2, f"{rig.boots_count} boots, expected 2")
    await rig.command("EVENTS.DUMP", EVENTS_ASKED)
    await rig.run(10.0)
    (row,) = rig.ground.archive.dumps(NODE, "EVENTS")
    content = rig.ground.archive.dump(NODE, row.boot_count, row.number) or b""
    require(b"contact_loss: contact_missing" in content, "the event of the rule is not in the ring")


async def storm(rig: Single) -> None:
    """A part of the manager reports without end."""
    for number in range(STORM_EVENTS):
        rig.node.events.report("NODE.BAD_MESSAGE", f"storm {number}")
    await rig.run(1.0)


def jump(seconds: float) -> Act:
    """Step the board's clock."""
    return strike(ClockJump, jump_s=seconds)


async def timers_hold(rig: Single) -> None:
    """No timer has noticed: beacons go on, no rule fires, and the node is still there after an hour."""
    heard = rig.ground.archive.beacons_count()
    await rig.run(3600.0)
    require(rig.ground.archive.beacons_count() - heard >= 350, "beacons were missed after the jump")
    require(rig.boots_count == 1, "the node has restarted")
    require(not [key for key, _ in rig.events() if key.startswith("LIMITS.")], "a limit rule has moved")


SCENARIOS: Final = (
    Scenario(
        name="worker_hang",
        fault="a step of a job never ends",
        inject=with_job(WorkerHang),
        mode=Mode.NOMINAL,
        events=("HEALTH.HUNG executor", "HEALTH.RESTARTED executor"),
        within_s=900.0,
        check=job_completes,
    ),
    Scenario(
        name="component_hang",
        fault="a member of the rate group answers no ping",
        inject=strike(ComponentHang, party="telemetry"),
        mode=Mode.NOMINAL,
        events=("HEALTH.HUNG telemetry", "NODE.RESET boot 2 after WATCHDOG"),
        within_s=600.0,
    ),
    Scenario(
        name="manager_hang",
        fault="the whole manager stands still",
        inject=strike(ComponentHang, party="program"),
        mode=Mode.NOMINAL,
        events=("NODE.RESET boot 2 after WATCHDOG",),
        within_s=300.0,
    ),
    Scenario(
        name="boot_loop",
        fault="three boots in a row end after 30 s",
        inject=strike(BootLoop, crashes=3),
        mode=Mode.SAFE,
        events=("NODE.BOOT_LOOP", "MODE.RESTRICTED SAFE: boots that did not last"),
        within_s=600.0,
        recovery=(("NODE.CLEAR_BOOTS",), NOMINAL),
    ),
    Scenario(
        name="job_crash_loop",
        fault="job after job fails",
        inject=spoilt_jobs,
        mode=Mode.SAFE,
        events=("LIMITS.FIRED job_crash_loop", "MODE.RESTRICTED SAFE: limit rule job_crash_loop"),
        within_s=900.0,
        mend=jobs_are_over,
        recovery=(NOMINAL, ARM_ALL),
    ),
    Scenario(
        name="weights_struck",
        fault="bits of the weights of a running job flip",
        inject=with_job(WeightUpset, bits=3),
        mode=Mode.NOMINAL,
        events=("JOBS.WEIGHTS_STRUCK",),
        within_s=600.0,
        check=job_completes,
    ),
    Scenario(
        name="command_loss",
        fault=f"no valid command for {LOSS_S} s (the parameter, set so)",
        inject=silence_of_commands,
        mode=Mode.SAFE,
        events=("LIMITS.FIRED command_loss", "MODE.RESTRICTED SAFE: limit rule command_loss"),
        within_s=LOSS_S + 60.0,
        recovery=(NOMINAL, ARM_ALL),
    ),
    Scenario(
        name="contact_loss",
        fault=f"nothing is heard of the ground for {LOSS_S} s (the parameter, set so)",
        inject=silence_of_ground,
        mode=Mode.NOMINAL,
        events=("NODE.RESET boot 2 after RESET_COMMAND",),
        within_s=LOSS_S + 600.0,
        recovery=(ARM_ALL,),
        check=restarted_once,
    ),
    Scenario(
        name="event_storm",
        fault=f"a part reports {STORM_EVENTS} events at once",
        inject=storm,
        mode=Mode.NOMINAL,
        events=("LIMITS.NOTICED event_storm", "EVENTS.SUPPRESSED NODE.BAD_MESSAGE"),
        within_s=120.0,
        recovery=(ARM_ALL,),
    ),
    Scenario(
        name="clock_jump_forward",
        fault="the board's clock jumps three days forward",
        inject=jump(THREE_DAYS_S),
        mode=Mode.NOMINAL,
        events=("TIME.CLOCK_JUMPED",),
        within_s=60.0,
        check=timers_hold,
    ),
    Scenario(
        name="clock_jump_back",
        fault="the board's clock jumps three days back",
        inject=jump(-THREE_DAYS_S),
        mode=Mode.NOMINAL,
        events=("TIME.CLOCK_JUMPED",),
        within_s=60.0,
        check=timers_hold,
    ),
)
