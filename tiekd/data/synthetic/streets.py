"""Random streets, photographed from a car that drives along them."""

from collections.abc import Iterator

import numpy as np
from numpy.random import Generator

from tiekd.data.synthetic.render import Air, Light, Scene
from tiekd.data.synthetic.solids import Ball, Block, Ground, Post, Solid, Vector
from tiekd.data.synthetic.textures import Texture, by_facing, plain, rough, shade, street, tiles, windows

STREET_END = 130.0  # m; nothing stands beyond, which is far beyond what counts as valid
SUN_DISTANCE = 1e4  # m; far enough for parallel shadows
DRIVEN = 1.0  # m between frames


def outdoor(rng: Generator) -> Scene:
    """A street between houses, trees and walls, with cars, poles and people; the camera stands on a car."""
    half_width, pavement = rng.uniform(3.2, 5.0), rng.uniform(1.5, 3.5)
    verge = [(0.14, 0.22, 0.06), (0.24, 0.22, 0.12), (0.3, 0.29, 0.27)][rng.integers(3)]
    asphalt = shade(rng, (1, 1, 1), 0.1, 0.26, spread=0.05)
    ground = Ground(street(half_width, pavement, asphalt, verge, seed=rng.uniform(0, 9)))
    solids: list[Solid] = [ground, *_traffic(rng, half_width)]
    for side in (-1, 1):
        solids += _roadside(rng, side, half_width + pavement)
        solids += _on_pavement(rng, side, half_width + pavement / 2)
    if rng.random() < 0.4:
        end = rng.uniform(45, 100)
        solids.append(Block((0, 6, end + 6), (rng.uniform(10, 30), 6, 6), _house_front(rng), yaw=rng.uniform(-0.2, 0.2)))
    height, lateral, yaw = rng.uniform(1.5, 1.8), rng.uniform(-0.5, 0.5) * half_width, rng.normal(0, 0.03)
    pitches = rng.normal(-0.02, 0.012, size=64)  # a car nods a little from frame to frame

    def camera(frame: int) -> tuple[Vector, float, float]:
        return (lateral, height, DRIVEN * frame), yaw, pitches[frame % len(pitches)]

    return Scene(solids, *_daylight(rng), exposure=rng.uniform(0.8, 1.15), camera=camera)


def _daylight(rng: Generator) -> tuple[Light, Air]:
    """The sun somewhere above, or an overcast sky without much of it."""
    turn, elevation, overcast = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.2), rng.random() < 0.3
    sun = SUN_DISTANCE * np.array([np.cos(elevation) * np.sin(turn), np.sin(elevation), np.cos(elevation) * np.cos(turn)])
    strength, warmth = 0.25 if overcast else rng.uniform(0.9, 1.3), rng.uniform(0.85, 1.0)
    ambient = rng.uniform(0.7, 0.9) if overcast else rng.uniform(0.35, 0.5)
    light = Light(tuple(sun), (strength, strength * warmth**0.5, strength * warmth), (0.95 * ambient, ambient, 1.08 * ambient))
    blue = 0.0 if overcast else rng.uniform(0.3, 1.0)
    horizon, zenith = (0.75, 0.8 + 0.02 * blue, 0.84 + 0.08 * blue), (0.7 - 0.5 * blue, 0.74 - 0.3 * blue, 0.8)
    return light, Air(rng.uniform(90, 260), horizon, zenith)


def _traffic(rng: Generator, half_width: float) -> Iterator[Solid]:
    """Cars at both kerbs, ahead in the lane, and coming the other way."""
    for lane, gap in ((-half_width + 1.1, 18), (half_width - 1.1, 18), (0.5 * half_width, 60), (-0.4 * half_width, 60)):
        z = rng.uniform(6, 10) + rng.exponential(gap)
        while z < 80:
            yield from _car(rng, lane + rng.normal(0, 0.1), z, yaw=rng.normal(0, 0.03))
            z += 6.5 + rng.exponential(gap)


def _car(rng: Generator, x: float, z: float, yaw: float) -> Iterator[Solid]:
    colour = shade(rng, (1, 1, 1), 0.03, 0.8) if rng.random() < 0.6 else tuple(rng.uniform(0.02, 0.6, 3))
    paint, dark = plain(colour), plain((0.03, 0.035, 0.04))
    yield Block((x, 0.25, z), (0.85, 0.25, 1.75), dark, yaw)  # wheels and sills
    if rng.random() < 0.15:
        yield Block((x, 1.4, z), (1.0, 1.1, 2.6), paint, yaw)  # a van
    else:
        yield Block((x, 0.66, z), (0.88, 0.32, 2.1), paint, yaw)
        yield Block((x, 1.22, z + 0.2), (0.74, 0.26, 1.15), by_facing(dark, paint, paint), yaw)


def _roadside(rng: Generator, side: int, from_middle: float) -> Iterator[Solid]:
    """A row of houses, walls with trees behind, or open land, each with its own share of gaps."""
    kind = rng.choice(["houses", "houses", "wall", "open"])
    setback = from_middle + rng.uniform(0.5, 5)
    if kind == "wall":
        height = rng.uniform(0.8, 2.6)
        bricks = tiles(shade(rng, (1, 0.55, 0.4), 0.3, 0.55), (0.45, 0.43, 0.4), 0.4, seed=rng.uniform(0, 9))
        yield Block((side * (setback + 0.15), height / 2, 60), (0.15, height / 2, 70), bricks)
    z = rng.uniform(-6, 10)
    while z < STREET_END:
        length, depth, height = rng.uniform(7, 18), rng.uniform(6, 12), rng.uniform(4, 14)
        if kind == "houses":
            away = setback + rng.uniform(0, 1.5)
            yield Block(
                (side * (away + depth / 2), height / 2, z + length / 2), (depth / 2, height / 2, length / 2), _house_front(rng)
            )
            z += length + (rng.uniform(2, 9) if rng.random() < 0.4 else 0.0)
        else:
            yield from _tree(rng, side * (setback + rng.uniform(1, 8)), z)
            z += rng.uniform(6, 18)


def _house_front(rng: Generator) -> Texture:
    wall = shade(rng, (1, 0.88, 0.75), 0.25, 0.8, spread=0.2)
    front = windows(
        wall, shade(rng, (0.8, 0.9, 1), 0.03, 0.15), rng.uniform(2.7, 3.4), rng.uniform(2.0, 3.5), seed=rng.uniform(0, 9)
    )
    roof = plain(shade(rng, (1, 0.5, 0.4), 0.2, 0.4))
    return by_facing(front, roof, roof)


def _on_pavement(rng: Generator, side: int, from_middle: float) -> Iterator[Solid]:
    """Street lamps or trees at even distances, and some people."""
    spacing, z = rng.uniform(12, 28), rng.uniform(2, 15)
    lamps, x = rng.random() < 0.6, side * from_middle
    while z < 90:
        if lamps:
            yield Post(x, z, 0.09, 0, 7, plain(shade(rng, (1, 1, 1), 0.15, 0.4)))
        else:
            yield from _tree(rng, x, z)
        z += spacing
    for z in rng.uniform(6, 45, rng.poisson(1.2)):
        yield from _person(rng, x + rng.normal(0, 0.4), z)


def _tree(rng: Generator, x: float, z: float) -> Iterator[Solid]:
    radius, trunk = rng.uniform(1.2, 2.6), rng.uniform(1.8, 3.2)
    leaves = rough(shade(rng, (0.6, 1, 0.3), 0.12, 0.28, spread=0.25), 0.7, 0.8, seed=rng.uniform(0, 9))
    yield Post(x, z, 0.16, 0, trunk + 0.5, plain((0.12, 0.09, 0.06)))
    yield Ball((x, trunk + 0.8 * radius, z), radius, leaves)
    yield Ball((x + rng.normal(0, 0.6), trunk + 1.5 * radius, z + rng.normal(0, 0.6)), 0.7 * radius, leaves)


def _person(rng: Generator, x: float, z: float) -> Iterator[Solid]:
    yield Post(x, z, 0.17, 0, 0.85, plain(tuple(rng.uniform(0.03, 0.3, 3))))
    yield Post(x, z, 0.24, 0.85, 1.5, plain(tuple(rng.uniform(0.05, 0.7, 3))))
    yield Ball((x, 1.64, z), 0.14, plain((0.5, 0.32, 0.24)))
