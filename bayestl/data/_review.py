"""A look at every picture before it is imported: which cannot be used, and which need something."""

from __future__ import annotations

import dataclasses
from itertools import chain
from typing import Any, NamedTuple

from bayestl.data._class_folders import ClassFolders
from bayestl.data._pictures import GRAY, TooLarge, as_rgb, described, is_palette, is_turned, opened

_SHOWN = 8


class Rules(NamedTuple):
    """What becomes of pictures that are not RGB; see :func:`folder`."""

    skip_bad: bool
    gray_to_rgb: bool
    palette_to_rgb: bool
    max_pixels: int


@dataclasses.dataclass(frozen=True)
class Review:
    """What there is to say of the pictures.

    Attributes:
        rules: what becomes of pictures that are not RGB.
        bad: names of those that cannot be used, and why.
        remedies: what would let some of them be used.
        turned: names of those that are to be turned before they are shown.
    """

    rules: Rules
    bad: dict[str, str]
    remedies: set[str]
    turned: list[str]

    @classmethod
    def of(cls, folders: ClassFolders, rules: Rules) -> Review:
        """Decode every picture, one at a time."""
        review = cls(rules, {}, set(), [])
        for name in chain.from_iterable(folders.names.values()):
            try:
                picture = opened(folders.read(name), rules.max_pixels)
            except TooLarge:
                review.bad[name] = f"has more than {rules.max_pixels:,} pixels"
                continue
            except ValueError:
                review.bad[name] = "cannot be decoded"
                continue
            review._look(name, picture)
        return review

    def _look(self, name: str, picture: Any) -> None:
        mode = picture.mode
        if is_turned(picture):
            self.turned.append(name)
        for applies, allowed, remedy in (
            (mode in GRAY, self.rules.gray_to_rgb, "make RGB of grayscale ones with gray_to_rgb=True"),
            (is_palette(picture), self.rules.palette_to_rgb, "make RGB of those with a palette by palette_to_rgb=True"),
        ):
            if applies and allowed:
                return
            if applies:
                self.remedies.add(remedy)
        if mode != "RGB":
            self.bad[name] = f"is {described(picture)}"

    def complaint(self, where: str, total: int) -> str:
        """The message about pictures that cannot be used."""
        listed = ", ".join(f"{name!r} {why}" for name, why in [*self.bad.items()][:_SHOWN])
        more = f" and {len(self.bad) - _SHOWN} more" if len(self.bad) > _SHOWN else ""
        ways = ["mend or remove them", "leave them out with skip_bad=True", *sorted(self.remedies)]
        advice = f"{', '.join(ways[:-1])}, or {ways[-1]}"
        return f"{len(self.bad)} of {total} pictures of {where} cannot be used: {listed}{more}; {advice}"

    def converted(self, encoded: bytes) -> bytes:
        """A picture as it is kept."""
        if not (self.rules.gray_to_rgb or self.rules.palette_to_rgb):
            return encoded
        return (
            encoded if opened(encoded, self.rules.max_pixels).mode == "RGB" else as_rgb(encoded, self.rules.max_pixels)
        )
