"""One task's answers as one page of HTML that opens offline: no script, nothing fetched."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from PIL import Image

from mdtheory.core.text import printable

SIDE = 112
"""Pixels of a picture on the page."""

STYLE = """
:root { color-scheme: light; --ink: #1d1d1f; --soft: #5b5b62; --line: #d8d8de; --bar: #3366aa; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0 auto; padding: 1.5rem;
  max-width: 75rem; background: #fff; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.caution { border-left: 4px solid #b35900; background: #fff5e8;
  padding: .6rem .9rem; margin: .6rem 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .8rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: .5rem; }
figure.wrong { border-color: #b3261e; }
img { width: 100%; max-width: 112px; display: block; image-rendering: pixelated; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.meter { background: #ececf1; height: 6px; border-radius: 3px; margin: .3rem 0; }
.meter i { display: block; height: 6px; border-radius: 3px; background: var(--bar); }
small { color: var(--soft); font-size: .8rem; } svg { max-width: 100%; height: auto; }
li { overflow-wrap: anywhere; }
""".strip()


@dataclass(frozen=True)
class AnswerCard:
    """One predicted image. ``pixels``: uint8 (H, W, 3); ``confidence`` in [0, 1]; ``others``: the
    further classes of its prediction set, None where there are no sets; ``truth``: '' where it is
    not known.
    """

    pixels: np.ndarray
    file: str
    predicted: str
    confidence: float
    others: Sequence[str] | None = None
    truth: str = ""


@dataclass(frozen=True)
class AnswerPage:
    """What the page shows, in its order. ``examples``: per class its pictures, uint8 (H, W, 3);
    ``seen`` and ``unseen``: losses after k = 0..K task steps.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    cautions: Sequence[str]
    answers: Sequence[AnswerCard]
    examples: Sequence[tuple[str, Sequence[np.ndarray]]]
    seen: Sequence[float]
    unseen: Sequence[float]
    unread: Sequence[tuple[str, str]] = field(default=())
    left_out: Sequence[str] = field(default=())

    def html(self) -> str:
        """The page as text; every foreign word in it is escaped."""
        facts = "".join(f"<dt>{_safe(k)}</dt><dd>{_safe(v)}</dd>" for k, v in self.facts)
        cautions = "".join(f'<p class="caution">{_safe(_capital(c))}.</p>' for c in self.cautions)
        parts = [
            f"<h1>{_safe(self.title)}</h1><dl>{facts}</dl>{cautions}",
            f'<h2>Answers</h2><div class="cards">{"".join(map(_answer, self.answers))}</div>',
            f"<h2>Examples</h2>{''.join(_class(name, own) for name, own in self.examples)}",
            f"<h2>Adaptation</h2>{_curve(self.seen, self.unseen)}",
        ]
        if self.unread or self.left_out:
            rows = [f"{file}: {why}" for file, why in self.unread]
            rows += [f"left out: {words}" for words in self.left_out]
            items = "".join(f"<li>{_safe(row)}</li>" for row in rows)
            parts.append(f"<h2>Files that were not used</h2><ul>{items}</ul>")
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{_safe(self.title)}</title><style>{STYLE}</style></head>"
            f"<body>{''.join(parts)}</body></html>\n"
        )


def _safe(text: str) -> str:
    return escape(printable(text), quote=True)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _picture(pixels: np.ndarray, alt: str) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{data}" alt="{_safe(alt)}">'


def _answer(card: AnswerCard) -> str:
    percent = f"{100 * card.confidence:.0f} %"
    lines = [f"<b>{_safe(card.predicted)}</b> {percent}"]
    lines.append(f'<div class="meter"><i style="width:{100 * card.confidence:.1f}%"></i></div>')
    if card.others is not None:
        others = ", ".join(card.others)
        lines.append(f"<div>or {_safe(others)}</div>" if others else "<div>alone in its set</div>")
    wrong = bool(card.truth) and card.truth != card.predicted
    if wrong:
        lines.append(f"<div>its folder says {_safe(card.truth)}</div>")
    lines.append(f"<small>{_safe(card.file)}</small>")
    mark = ' class="wrong"' if wrong else ""
    picture = _picture(card.pixels, f"predicted {card.predicted}")
    return f"<figure{mark}>{picture}<figcaption>{''.join(lines)}</figcaption></figure>"


def _class(name: str, own: Sequence[np.ndarray]) -> str:
    pictures = "".join(f"<figure>{_picture(p, f'example of {name}')}</figure>" for p in own)
    return f'<h3>{_safe(name)}</h3><div class="cards">{pictures}</div>'


def _curve(seen: Sequence[float], unseen: Sequence[float]) -> str:
    """The loss over the steps as a drawing; a number that is not finite is not drawn."""
    width, height, left, low, top = 560, 260, 56, 40, 16
    values = [v for v in (*seen, *unseen) if math.isfinite(v)]
    if not values:
        return "<p>No finite loss to draw.</p>"
    high, last = max(*values, 1e-9), max(len(seen) - 1, 1)

    def place(k: int, value: float) -> str:
        x = left + (width - left - 16) * k / last
        return f"{x:.1f},{height - low - (height - low - top) * value / high:.1f}"

    def line(points: Sequence[float], colour: str, dash: str) -> str:
        drawn = [place(k, v) for k, v in enumerate(points) if math.isfinite(v)]
        dots = "".join(
            f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="3" fill="{colour}"/>'
            for p in drawn
        )
        style = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        return f'<polyline points="{" ".join(drawn)}" {style}/>{dots}'

    ticks = "".join(
        f'<text x="{left - 8}" y="{place(0, v).split(",")[1]}" text-anchor="end" '
        f'dominant-baseline="middle">{v:.2g}</text>'
        for v in (0.0, high / 2, high)
    )
    steps = "".join(
        f'<text x="{place(k, 0).split(",")[0]}" y="{height - low + 20}" '
        f'text-anchor="middle">{k}</text>'
        for k in sorted({0, last // 2, last})
    )
    axes = f"M{left},{top}V{height - low}H{width - 16}"
    other = any(math.isfinite(v) for v in unseen)
    words = "Loss after each task step on the examples (blue)"
    words += ", and on examples held out from the adaptation (orange, dashed)." if other else "."
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{words}" font-size="13" font-family="system-ui, sans-serif" fill="#333">'
        f'<path d="{axes}" fill="none" stroke="#999"/>{ticks}{steps}'
        f'<text x="{(left + width) / 2:.0f}" y="{height - 4}" text-anchor="middle">task step</text>'
        f"{line(seen, '#3366aa', 'none')}{line(unseen, '#c8620b', '6 4') if other else ''}</svg>"
        f"<p>{words}</p>"
    )
