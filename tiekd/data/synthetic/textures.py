"""Surface colors of the rendered scenes, as functions of a position on a surface.

A texture finer than the footprint of a pixel fades to its mean, as on a sensor, so its visible grain is a depth cue. Colors are
linear RGB, 0 .. 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LATTICE = np.random.default_rng(0).random((64, 64), dtype=np.float32)


@dataclass(frozen=True)
class Surface:
    """Points on the surface of a solid: unit normals [3, N] in world coordinates, and two surface coordinates [N] in m."""

    normal: np.ndarray
    u: np.ndarray
    v: np.ndarray

    def at(self, points: np.ndarray) -> "Surface":
        """Select some of the points."""
        return Surface(self.normal[:, points], self.u[points], self.v[points])


Color = tuple[float, float, float]
Texture = Callable[[Surface, np.ndarray], np.ndarray]  # (surface, footprint [N] m) -> color [3, N]


def random_shade(rng: np.random.Generator, tint: Color, darkest: float, lightest: float, spread: float = 0.12) -> Color:
    """Draw a brightness of a tint whose channels vary by the relative amount `spread`."""
    varied = np.asarray(tint) * rng.uniform(1 - spread, 1 + spread, 3)
    red, green, blue = np.clip(varied * rng.uniform(darkest, lightest), 0.01, 0.95)
    return red, green, blue


def random_color(rng: np.random.Generator, darkest: float, lightest: float) -> Color:
    """Draw a color with independent channels."""
    red, green, blue = rng.uniform(darkest, lightest, 3)
    return red, green, blue


def noise(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return smooth random values in 0 .. 1 with a grain size of 1 and a period of 64."""
    column, row = np.floor(u), np.floor(v)
    across, down = u - column, v - row
    i, j = row.astype(np.int32) % 64, column.astype(np.int32) % 64
    below, right = (i + 1) % 64, (j + 1) % 64
    upper = LATTICE[i, j] * (1 - across) + LATTICE[i, right] * across
    lower = LATTICE[below, j] * (1 - across) + LATTICE[below, right] * across
    return upper * (1 - down) + lower * down


def grain(surface: Surface, footprint: np.ndarray, size: float, seed: float) -> np.ndarray:
    """Return noise in -1 .. 1 at two scales, the larger `size` m."""
    u, v = surface.u / size + 7.3 * seed, surface.v / size + 3.1 * seed
    coarse = (2 * noise(u, v) - 1) * visible(size, footprint)
    fine = (2 * noise(4 * u, 4 * v) - 1) * visible(size / 4, footprint)
    return 0.6 * coarse + 0.4 * fine


def visible(size: float, footprint: np.ndarray) -> np.ndarray:
    """Return how well pixels of `footprint` m resolve a pattern with details of `size` m, 0 .. 1."""
    return np.clip(2 - 2 * footprint / size, 0, 1)


def stripes(position: np.ndarray, period: float, width: float, footprint: np.ndarray) -> np.ndarray:
    """Return the coverage, 0 .. 1, by stripes of `width` m every `period` m, centered on 0; narrow ones fade to their mean."""
    from_center = np.abs((position + period / 2) % period - period / 2)
    sharp = np.clip((width / 2 - from_center) / footprint + 0.5, 0, 1) * np.minimum(1, width / footprint)
    fade = visible(period / 2, footprint)
    return sharp * fade + width / period * (1 - fade)


def plain(color: Color) -> Texture:
    """One color."""

    def texture(surface: Surface, footprint: np.ndarray) -> np.ndarray:
        return np.broadcast_to(_column(color), (3, len(footprint)))

    return texture


def rough(color: Color, size: float = 0.5, contrast: float = 0.3, seed: float = 0.0) -> Texture:
    """One color with noise in its brightness."""

    def texture(surface: Surface, footprint: np.ndarray) -> np.ndarray:
        return _column(color) * (1 + contrast * grain(surface, footprint, size, seed))

    return texture


def windows(wall: Color, glass: Color, story: float, bay: float, seed: float) -> Texture:
    """A house front: a window per story and bay on vertical faces."""

    def texture(surface: Surface, footprint: np.ndarray) -> np.ndarray:
        upright = np.abs(surface.normal[1]) < 0.5
        rows = stripes(surface.v - 0.55 * story, story, 0.5 * story, footprint)
        columns = stripes(surface.u - 0.5 * bay, bay, 0.55 * bay, footprint)
        share = rows * columns * upright
        plaster = _column(wall) * (1 + 0.25 * grain(surface, footprint, 1.5, seed))
        return plaster * (1 - share) + _column(glass) * share

    return texture


def planks(color: Color, width: float, seed: float) -> Texture:
    """Boards along v of varying brightness, with dark joints."""

    def texture(surface: Surface, footprint: np.ndarray) -> np.ndarray:
        board = np.floor(surface.u / width)
        brightness = (noise(board * 1.7 + 11 * seed, np.zeros_like(board)) - 0.5) * visible(width, footprint)
        joint = stripes(surface.u, width, 0.012, footprint)
        return _column(color) * (1 + 0.5 * brightness + 0.15 * grain(surface, footprint, 0.3, seed)) * (1 - 0.6 * joint)

    return texture


def tiles(color: Color, joint: Color, size: float, seed: float) -> Texture:
    """Square tiles of `size` m; also used for bricks, pavements and shelves."""

    def texture(surface: Surface, footprint: np.ndarray) -> np.ndarray:
        lines = np.maximum(stripes(surface.u, size, size / 12, footprint), stripes(surface.v, size, size / 12, footprint))
        return _column(color) * (1 + 0.2 * grain(surface, footprint, size, seed)) * (1 - lines) + _column(joint) * lines

    return texture


def by_facing(upright: Texture, up: Texture, down: Texture) -> Texture:
    """One texture for vertical faces, one for faces up (floor, roof) and one for faces down (ceiling)."""

    def texture(surface: Surface, footprint: np.ndarray) -> np.ndarray:
        color = np.empty((3, len(footprint)), np.float32)
        facing = np.rint(surface.normal[1])
        for part, direction in ((upright, 0), (up, 1), (down, -1)):
            here = facing == direction
            if here.any():
                color[:, here] = part(surface.at(here), footprint[here])
        return color

    return texture


def street(half_width: float, pavement: float, asphalt: Color, verge: Color, seed: float) -> Texture:
    """A road along v with lane marks, then `pavement` m of slabs on both sides, then a verge."""
    road, beyond = rough(asphalt, 1.2, 0.3, seed), rough(verge, 0.8, 0.6, seed)
    slabs = tiles((0.42, 0.41, 0.39), (0.22, 0.22, 0.21), 1.0, seed)

    def texture(surface: Surface, footprint: np.ndarray) -> np.ndarray:
        from_middle = np.abs(surface.u)
        marks = _line(from_middle, 0.15, footprint) * (surface.v % 9.0 < 4.0)
        marks = np.maximum(marks, _line(from_middle - half_width + 0.35, 0.15, footprint))
        kerb = _line(from_middle - half_width, 0.25, footprint)
        lane = road(surface, footprint) * (1 - marks) + 0.8 * marks
        side = np.where(from_middle < half_width + pavement, slabs(surface, footprint), beyond(surface, footprint))
        return np.where(from_middle < half_width, lane, side) * (1 - kerb) + 0.5 * kerb

    return texture


def _line(distance: np.ndarray, width: float, footprint: np.ndarray) -> np.ndarray:
    """Coverage, 0 .. 1, by a line of `width` m, at a distance from its center."""
    return np.clip((width / 2 - np.abs(distance)) / footprint + 0.5, 0, 1) * np.minimum(1, width / footprint)


def _column(color: Color) -> np.ndarray:
    return np.asarray(color, np.float32)[:, None]
