"""Bundle status reports: told to whoever asked for them, when this node is set to tell (RFC 9171 §5 and §6).

RFC 9171 §8 has the generation of reports switched off by default (`is_enabled`), because asking costs a stranger
nothing. They are also limited in rate, never made for administrative records, and themselves ask for nothing.
"""

from typing import Final

from flightsw.net.agent_values import PRIORITY_DEFAULT, AgentCounters
from flightsw.net.responses import Allowance, MissionTime, Response
from flightsw.wire.admin import Reason, Status, StatusReport, encode_status_report
from flightsw.wire.bundles import BlockFlags, Bundle, BundleFlags
from flightsw.wire.eids import DTN_NONE

REPORT_LIFETIME_MAX_MS: Final = 86_400_000
"""Longest lifetime of a report [ms]: a day; it lives no longer than the bundle that it speaks of."""

REPORT_BURST_MAX: Final = 50
"""Reports at once: a queue that overflows must not fill the next with reports."""

REPORT_PERIOD_NS: Final = 100_000_000
"""Time for one more report [ns]: ten of about 100 bytes a second are little beside what they report on."""

_FLAGS: Final = {
    Status.RECEIVED: int(BundleFlags.REPORT_RECEPTION),
    Status.FORWARDED: int(BundleFlags.REPORT_FORWARDING),
    Status.DELIVERED: int(BundleFlags.REPORT_DELIVERY),
    Status.DELETED: int(BundleFlags.REPORT_DELETION),
}
_STATUS_TIME: Final = int(BundleFlags.STATUS_TIME)
_FRAGMENT: Final = int(BundleFlags.FRAGMENT)
_ADMINISTRATIVE: Final = int(BundleFlags.ADMINISTRATIVE_RECORD)
_REPORT_BLOCK: Final = int(BlockFlags.REPORT_IF_UNPROCESSED)


class StatusReporter:
    """Makes the status reports of a node.

    Args:
        is_enabled: whether this node reports at all.
        time: mission time, for reports that are to say when.
        counters: of the agent.
    """

    def __init__(self, is_enabled: bool, time: MissionTime, counters: AgentCounters) -> None:
        self.is_enabled = is_enabled
        self.pending: list[Response] = []
        """Reports that wait to be sent."""
        self._time = time
        self._counters = counters
        self._allowance = Allowance(REPORT_BURST_MAX, REPORT_PERIOD_NS)

    def note(self, bundle: Bundle, status: Status, now_ns: int, reason: Reason = Reason.NO_INFORMATION) -> None:
        """Something happened to a bundle: report it if the bundle asks for that."""
        if self.is_enabled and bundle.flags & _FLAGS[status]:
            self._report(bundle, status, now_ns, reason)

    def deleted(self, bundle: Bundle, now_ns: int, reason: Reason) -> None:
        """A bundle is given up before its end (RFC 9171 §5.10)."""
        self.note(bundle, Status.DELETED, now_ns, reason)

    def unsupported(self, bundle: Bundle, flags: int, now_ns: int) -> None:
        """A block with these flags cannot be processed here: report it if the block asks (RFC 9171 §5.6, step 4)."""
        if self.is_enabled and flags & _REPORT_BLOCK:
            self._report(bundle, Status.RECEIVED, now_ns, Reason.BLOCK_UNSUPPORTED)

    def take(self) -> list[Response]:
        """Reports since the last call, in order."""
        pending = self.pending
        if pending:
            self.pending = []
        return pending

    def _report(self, bundle: Bundle, status: Status, now_ns: int, reason: Reason) -> None:
        if bundle.flags & _ADMINISTRATIVE or bundle.report_to == DTN_NONE:
            return
        if not self._allowance.take(now_ns):
            self._counters.status_reports_suppressed_count += 1
            return
        self._counters.status_reports_sent_count += 1
        report = StatusReport(
            bundle.source,
            bundle.creation,
            ((status, self._time.dtn_ms(now_ns) if bundle.flags & _STATUS_TIME else None),),
            reason,
            (bundle.fragment_offset, len(bundle.payload)) if bundle.flags & _FRAGMENT else None,
        )
        lifetime_ms = min(bundle.lifetime_ms, REPORT_LIFETIME_MAX_MS)
        payload = encode_status_report(report)
        response = Response(bundle.report_to, 0, payload, lifetime_ms, PRIORITY_DEFAULT, True, _ADMINISTRATIVE)
        self.pending.append(response)
