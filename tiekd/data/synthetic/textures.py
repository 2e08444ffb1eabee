"""Surface colours of the rendered scenes, as functions of a place on a surface.

A texture finer than a pixel's footprint fades to its mean, as it does on a sensor; so its visible grain is a cue of depth.
Colours are linear RGB, 0 .. 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LATTICE = np.random.default_rng(0).random((64, 64), dtype=np.float32)


@dataclass(frozen=True)
class Surface:
    """Places on a solid's surface: unit normals [3, N] in the world, and two coordinates [N] in m along it."""

    normal: np.ndarray
    u: np.ndarray
    v: np.ndarray

    def at(self, places: np.ndarray) -> "Surface":
        """Some of the places."""
        return Surface(self.normal[:, places], self.u[places], self.v[places])


Texture = Callable[[Surface, np.ndarray], np.ndarray]  # (surface, footprint [N] m) -> colour [3, N]


def shade(rng: np.random.Generator, tint: tuple, darkest: float, lightest: float, spread: float = 0.12) -> tuple:
    """A random brightness of a tint whose channels vary by a share `spread`."""
    varied = np.asarray(tint) * rng.uniform(1 - spread, 1 + spread, 3)
    return tuple(np.clip(varied * rng.uniform(darkest, lightest), 0.01, 0.95))


def noise(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Smooth random values in 0 .. 1 with a grain of 1, repeating every 64."""
    column, row = np.floor(u), np.floor(v)
    across, down = u - column, v - row
    i, j = row.astype(np.int32) % 64, column.astype(np.int32) % 64
    below, right = (i + 1) % 64, (j + 1) % 64
    upper = LATTICE[i, j] * (1 - across) + LATTICE[i, right] * across
    lower = LATTICE[below, j] * (1 - across) + LATTICE[below, right] * across
    return upper * (1 - down) + lower * down


def grain(surface: Surface, footprint: np.ndarray, size: float, seed: float) -> np.ndarray:
    """Noise about 0 in -1 .. 1 at two scales, the larger `size` m."""
    u, v = surface.u / size + 7.3 * seed, surface.v / size + 3.1 * seed
    coarse = (2 * noise(u, v) - 1) * visible(size, footprint)
    fine = (2 * noise(4 * u, 4 * v) - 1) * visible(size / 4, footprint)
    return 0.6 * coarse + 0.4 * fine


def visible(size: float, footprint: np.ndarray) -> np.ndarray:
    """How much of a pattern with details of `size` m a pixel of `footprint` m still resolves, 0 .. 1."""
    return np.clip(2 - 2 * footprint / size, 0, 1)


def stripes(place: np.ndarray, period: float, width: float, footprint: np.ndarray) -> np.ndarray:
    """Coverage in 0 .. 1 by stripes of `width` m every `period` m, centred on 0; narrow ones fade into their mean."""
    from_centre = np.abs((place + period / 2) % period - period / 2)
    sharp = np.clip((width / 2 - from_centre) / footprint + 0.5, 0, 1) * np.minimum(1, width / footprint)
    fade = visible(period / 2, footprint)
    return sharp * fade + width / period * (1 - fade)


def plain(colour: tuple) -> Texture:
    """One colour."""

    def texture(surface: Surface, footprint: np.ndarray) -> np.ndarray:
        return np.broadcast_to(_mixed(colour), (3, len(footprint)))

    return texture


def rough(colour: tuple, size: float = 0.5, contrast: float = 0.3, seed: float = 0.0) -> Texture:
    """One colour with noise in its brightness."""

    def texture(surface: Surface, footprint: np.ndarray) -> np.ndarray:
        return _mixed(colour) * (1 + contrast * grain(surface, footprint, size, seed))

    return texture


def windows(wall: tuple, glass: tuple, storey: float, bay: float, seed: float) -> Texture:
    """A house front: a window per storey and bay on upright faces."""

    def texture(surface: Surface, footprint: np.ndarray) -> np.ndarray:
        upright = np.abs(surface.normal[1]) < 0.5
        rows = stripes(surface.v - 0.55 * storey, storey, 0.5 * storey, footprint)
        columns = stripes(surface.u - 0.5 * bay, bay, 0.55 * bay, footprint)
        share = rows * columns * upright
        plaster = _mixed(wall) * (1 + 0.25 * grain(surface, footprint, 1.5, seed))
        return plaster * (1 - share) + _mixed(glass) * share

    return texture


def planks(colour: tuple, width: float, seed: float) -> Texture:
    """Boards along v, each with its own brightness, with dark joints."""

    def texture(surface: Surface, footprint: np.ndarray) -> np.ndarray:
        board = np.floor(surface.u / width)
        own = (noise(board * 1.7 + 11 * seed, np.zeros_like(board)) - 0.5) * visible(width, footprint)
        joint = stripes(surface.u, width, 0.012, footprint)
        return _mixed(colour) * (1 + 0.5 * own + 0.15 * grain(surface, footprint, 0.3, seed)) * (1 - 0.6 * joint)

    return texture


def tiles(colour: tuple, joint: tuple, size: float, seed: float) -> Texture:
    """Square tiles of `size` m; also bricks, pavements and shelves, by size and colour."""

    def texture(surface: Surface, footprint: np.ndarray) -> np.ndarray:
        lines = np.maximum(stripes(surface.u, size, size / 12, footprint), stripes(surface.v, size, size / 12, footprint))
        return _mixed(colour) * (1 + 0.2 * grain(surface, footprint, size, seed)) * (1 - lines) + _mixed(joint) * lines

    return texture


def by_facing(upright: Texture, up: Texture, down: Texture) -> Texture:
    """One texture for walls, one for what faces up (a floor, a roof) and one for what faces down (a ceiling)."""

    def texture(surface: Surface, footprint: np.ndarray) -> np.ndarray:
        colour = np.empty((3, len(footprint)), np.float32)
        facing = np.rint(surface.normal[1])
        for part, direction in ((upright, 0), (up, 1), (down, -1)):
            here = facing == direction
            if here.any():
                colour[:, here] = part(surface.at(here), footprint[here])
        return colour

    return texture


def street(half_width: float, pavement: float, asphalt: tuple, verge: tuple, seed: float) -> Texture:
    """A road along z = v with lane marks, then `pavement` m of slabs on both sides, then a verge."""
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
    """Coverage in 0 .. 1 by a line of `width` m, at a distance from its middle."""
    return np.clip((width / 2 - np.abs(distance)) / footprint + 0.5, 0, 1) * np.minimum(1, width / footprint)


def _mixed(colour: tuple) -> np.ndarray:
    return np.asarray(colour, np.float32)[:, None]
