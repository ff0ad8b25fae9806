"""A link between two interfaces: two directions that see each other, break and acquire together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique

from flightsw.errors import ConfigError
from flightsw.ports import Random
from hil.channel.direction import Direction
from hil.channel.impairments import Impairments
from hil.channel.visibility import SECOND_NS, Sight, Visibility


@unique
class LinkState(StrEnum):
    """State of a link. Words as in Yamcs (`org.yamcs.tctm.Link.Status`)."""

    OK = "OK"
    """Bits pass."""
    UNAVAIL = "UNAVAIL"
    """Wanted but not there: no line of sight, acquiring, or an end without power."""
    FAILED = "FAILED"
    """Broken by an outage."""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """State of a link at an instant, with the reason."""

    name: str
    state: LinkState
    detail: str
    predicted_aos_ns: int | None = None
    """When the ends are predicted to see each other next [ns]; while acquiring, when bits will pass. None when nothing
    is planned, and in an outage, whose end nobody in the field can predict."""


class Link:
    """Both directions between two ends, under one schedule of windows, outages and acquisitions.

    Args:
        name: name of the link, such as `isl-03-04`.
        forward: impairments from the first end to the second.
        random_for: gives the stream of a name.
        backward: impairments the other way, when they differ.
        range_km: range where nothing else is set [km].
        forward_name: what the first direction is called, such as `uplink`; its streams are `name/forward_name/...`.
        backward_name: what the second direction is called.

    Raises:
        ConfigError: an impairment is out of range, or the directions disagree on the acquisition, which they share.
    """

    def __init__(
        self,
        name: str,
        forward: Impairments,
        random_for: Callable[[str], Random],
        *,
        backward: Impairments | None = None,
        range_km: float = 0.0,
        forward_name: str = "forward",
        backward_name: str = "backward",
    ) -> None:
        self.name = name
        self.visibility = Visibility(name, random_for, range_km)
        backward = self._agreed(forward, backward)
        self.forward = Direction(f"{name}/{forward_name}", forward, random_for, self.visibility)
        self.backward = Direction(f"{name}/{backward_name}", backward, random_for, self.visibility)

    def set_impairments(self, forward: Impairments, backward: Impairments | None = None) -> None:
        """Change both directions for the frames sent from now on; `forward` serves both when alone.

        Raises:
            ConfigError: an impairment is out of range, or the directions disagree on the acquisition.
        """
        backward = self._agreed(forward, backward)
        self.forward.set_impairments(forward)
        self.backward.set_impairments(backward)

    def set_range(self, times_ns: Sequence[int], ranges_km: Sequence[float]) -> None:
        """See `Visibility.set_range`."""
        self.visibility.set_range(times_ns, ranges_km)

    def add_window(
        self, start_ns: int, end_ns: int, times_ns: Sequence[int] = (), ranges_km: Sequence[float] = ()
    ) -> None:
        """See `Visibility.add_window`."""
        self.visibility.add_window(start_ns, end_ns, times_ns, ranges_km)

    def add_outage(self, start_ns: int, end_ns: int) -> None:
        """See `Visibility.add_outage`."""
        self.visibility.add_outage(start_ns, end_ns)

    def status(self, now_ns: int) -> LinkStatus:
        """State at an instant, with the reason and the predicted AOS."""
        sight, until_ns = self.visibility.sight(now_ns), self.visibility.until_ns(now_ns)
        if sight is Sight.UP:
            return LinkStatus(self.name, LinkState.OK, "in view")
        if sight is Sight.OUTAGE:
            return LinkStatus(self.name, LinkState.FAILED, "outage")
        if sight is Sight.ACQUIRING:
            detail = f"acquiring for another {(until_ns - now_ns) / SECOND_NS:.1f} s"
            return LinkStatus(self.name, LinkState.UNAVAIL, detail, until_ns)
        aos_ns = self.visibility.next_aos_ns(now_ns)
        detail = "no contact planned" if aos_ns is None else f"AOS in {(aos_ns - now_ns) / SECOND_NS:.1f} s"
        return LinkStatus(self.name, LinkState.UNAVAIL, detail, aos_ns)

    def _agreed(self, forward: Impairments, backward: Impairments | None) -> Impairments:
        if backward is None:
            return forward
        if backward.acquisition_s != forward.acquisition_s:
            raise ConfigError(
                f"link {self.name}: `acquisition_s` is {list(forward.acquisition_s)} one way and "
                f"{list(backward.acquisition_s)} the other, expected the same: both ends acquire together"
            )
        return backward
