"""Pictures of images: samples of a data set, and predictions to be judged."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mdtheory.core.text import printable

CELL, GAP, TEXT, PER_ROW = 84, 8, 15, 10  # pixels, and pictures in a row
MOST = 500
"""Pictures that one section shows."""
INK, GREY, PAPER, FRAME = "#222222", "#666666", "white", "#d55e00"


@dataclass(frozen=True)
class Card:
    """One picture with the words below it, ``framed`` or not. ``pixels``: uint8 (H, W, 3)"""

    pixels: np.ndarray
    caption: str = ""
    framed: bool = False


def contact_sheet(sections: Sequence[tuple[str, Sequence[Card]]]) -> bytes:
    """A PNG: every section a headline and rows of cards, the first ``MOST`` of them; no dates
    inside. What cannot be drawn of a text is an escape or a question mark.
    """
    sections = [_shown(title, cards) for title, cards in sections]
    captioned = any(card.caption for _, cards in sections for card in cards)
    pitch = CELL + (TEXT if captioned else 0) + GAP
    rows = [-(-len(cards) // PER_ROW) for _, cards in sections]
    height = GAP + sum(TEXT + GAP + pitch * n for n in rows)
    columns = max((min(len(cards), PER_ROW) for _, cards in sections), default=1)
    sheet = Image.new("RGB", (max(GAP + columns * (CELL + GAP), 420), height), PAPER)
    draw, top = ImageDraw.Draw(sheet), GAP
    head, small = _font(12), _font(10)
    for (title, cards), n in zip(sections, rows, strict=True):
        draw.text((GAP, top), _drawable(title), fill=INK, font=head)
        top += TEXT + GAP
        for index, card in enumerate(cards):
            left, upper = GAP + (index % PER_ROW) * (CELL + GAP), top + (index // PER_ROW) * pitch
            sheet.paste(
                Image.fromarray(card.pixels).resize((CELL, CELL), Image.Resampling.BILINEAR),
                (left, upper),
            )
            if card.framed:
                corners = (left - 3, upper - 3, left + CELL + 2, upper + CELL + 2)
                draw.rectangle(corners, outline=FRAME, width=3)
            words = _shortened(_drawable(printable(card.caption)), small)
            draw.text((left, upper + CELL + 1), words, fill=GREY, font=small)
        top += n * pitch
    png = io.BytesIO()
    sheet.save(png, format="PNG")
    return png.getvalue()


def _shown(title: str, cards: Sequence[Card]) -> tuple[str, Sequence[Card]]:
    title = printable(title)
    if len(cards) <= MOST:
        return title, cards
    return f"{title}: the first {MOST} of {len(cards)}", cards[:MOST]


def pixels_of(image: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] of shape (C, H, W), C = 1 (ink, drawn dark on light) or 3, as uint8 (H, W,
    3).
    """
    values = 1 - np.repeat(image, 3, axis=0) if len(image) == 1 else image
    return (values.transpose(1, 2, 0) * 255).round().astype(np.uint8)


def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(
        str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size
    )


def _drawable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _shortened(text: str, font: ImageFont.FreeTypeFont) -> str:
    if font.getlength(text) <= CELL:
        return text
    while text and font.getlength(text + "…") > CELL:
        text = text[:-1]
    return text + "…"
