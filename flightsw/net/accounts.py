"""The books of a bundle agent as plain values, for whoever audits it from outside: every frame and every bundle that it
took must be somewhere in them."""

from flightsw.net.agent import BundleAgent


def frame_counts(agent: BundleAgent) -> dict[str, int]:
    """What became of frames and bundles since the agent was made."""
    counters = agent.counters
    interfaces = counters.interfaces.values()
    return {
        "frames_accepted": sum(one.frames_accepted_count for one in interfaces),
        "frames_corrected": sum(one.frames_corrected_count for one in interfaces),
        "frames_rejected": sum(one.frames_rejected_count for one in interfaces),
        "segments_rejected": sum(one.segments_rejected_count for one in interfaces),
        "retransmissions": counters.ltp.retransmissions_count,
        "rerouted": counters.bundles_rerouted_count,
        "dropped": counters.bundles_dropped_count,
    }


def queue_counts(agent: BundleAgent) -> list[list[int]]:
    """[pushed, taken, displaced, held, length, most] of each queue: pushed = taken + displaced + held must hold."""
    return [
        [
            queue.pushed_count,
            queue.taken_count,
            queue.displaced_count,
            queue.held_count(),
            len(queue),
            queue.bundles_max,
        ]
        for queue in agent.queues()
    ]
