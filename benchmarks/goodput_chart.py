"""The chart of `goodput.py`: goodput over bit error rate, as SVG written by hand."""

from math import log10
from typing import Final, NamedTuple

WIDTH: Final = 760
HEIGHT: Final = 420
LEFT: Final = 70
RIGHT: Final = 20
TOP: Final = 46
BOTTOM: Final = 60
DECADES: Final = (-8, -2)
COLOURS: Final = ("#c2410c", "#1d4ed8", "#15803d")


class Curve(NamedTuple):
    """One coding."""

    name: str
    measured: tuple[tuple[float, float], ...]
    """(bit error rate, share of the line rate)."""
    theory: tuple[tuple[float, float], ...]
    """The same, in theory."""


def _x(ber: float) -> float:
    low, high = DECADES
    return LEFT + (WIDTH - LEFT - RIGHT) * (log10(ber) - low) / (high - low)


def _y(share: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)


def _text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{text}</text>'


def write_chart(curves: list[Curve]) -> str:
    """The chart: dots measured, lines in theory."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(WIDTH / 2, 24, "Goodput of reliable bundles through bit errors", more='font-size="16"'),
    ]
    for percent in range(0, 101, 20):
        y = _y(percent / 100)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e5e7eb"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{percent} %", "end"))
    for decade in range(DECADES[0], DECADES[1] + 1):
        x = _x(10**decade)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#e5e7eb"/>')
        parts.append(_text(x, HEIGHT - BOTTOM + 18, f"10<tspan dy='-5' font-size='10'>{decade}</tspan>"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "bit error rate of the line"))
    parts.append(_text(16, HEIGHT / 2, "share of line rate", more=f'transform="rotate(-90 16 {HEIGHT / 2:.0f})"'))
    for number, (curve, colour) in enumerate(zip(curves, COLOURS, strict=False)):
        path = "L".join(f"{_x(ber):.1f} {_y(share):.1f}" for ber, share in curve.theory)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.2" opacity="0.7"/>')
        for ber, share in curve.measured:
            parts.append(f'<circle cx="{_x(ber):.1f}" cy="{_y(share):.1f}" r="4" fill="{colour}"/>')
        y = HEIGHT - BOTTOM - 20 - 22 * number
        parts.append(f'<circle cx="{LEFT + 16}" cy="{y - 4}" r="4" fill="{colour}"/>')
        parts.append(_text(LEFT + 28, y, f"{curve.name}: dots measured, line theory", "start"))
    return "\n".join([*parts, "</svg>", ""])
