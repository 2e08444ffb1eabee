"""Random furnished rooms, with a camera that moves into the room."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from tiekd.data.synthetic.render import Atmosphere, Light, Scene
from tiekd.data.synthetic.solids import Cuboid, Cylinder, Solid, Sphere, Vector
from tiekd.data.synthetic.textures import Color, Texture, by_facing, plain, planks, random_color, random_shade, rough, tiles

N_PLACEMENTS = 24  # attempts to place a piece of furniture; many positions are occupied
STEP_LENGTH = 0.12  # m between frames
NO_ATMOSPHERE = Atmosphere(haze_length=1e6, horizon=(0, 0, 0), zenith=(0, 0, 0))


class Placement(NamedTuple):
    """The position of a piece of furniture."""

    x: float
    z: float
    side: int  # -1: near the left wall, 1: near the right wall
    ceiling: float  # m above the floor


def indoor(rng: Generator) -> Scene:
    """Compose a room seen from its back wall: furniture, a door or window, pictures, a lamp."""
    width, height, depth = rng.uniform(3.4, 7.0), rng.uniform(2.4, 3.0), rng.uniform(4.5, 9.5)
    room = Cuboid((0, height / 2, depth / 2), (width / 2, height / 2, depth / 2), _room_surfaces(rng), inside_out=True)
    x, eye = rng.uniform(-0.25, 0.25) * width, rng.uniform(1.25, 1.55)
    solids: list[Solid] = [room, *_on_walls(rng, width, height, depth), *_furniture(rng, width, height, depth, x)]
    lamp = (rng.uniform(-0.3, 0.3) * width, height - 0.35, rng.uniform(0.3, 0.7) * depth)
    warmth, ambient = rng.uniform(0.7, 1.0), rng.uniform(0.35, 0.6)
    light = Light(lamp, (0.6, 0.6 * warmth**0.5, 0.6 * warmth), (ambient, ambient * warmth**0.3, ambient * warmth**0.5))
    yaw, pitch = -0.5 * np.arctan2(x, depth) + rng.normal(0, 0.15), rng.uniform(-0.2, -0.08)
    turns = rng.normal(0, 0.03, size=64)

    def camera(frame: int) -> tuple[Vector, float, float]:
        return (x, eye, 0.3 + STEP_LENGTH * frame), yaw + turns[frame % len(turns)], pitch

    return Scene(solids, light, NO_ATMOSPHERE, exposure=rng.uniform(0.75, 1.1), camera=camera)


def _room_surfaces(rng: Generator) -> Texture:
    floor = [
        planks(_brown(rng), rng.uniform(0.08, 0.2), seed=rng.uniform(0, 9)),
        tiles(random_shade(rng, (1, 0.96, 0.9), 0.3, 0.75), (0.2, 0.2, 0.2), rng.uniform(0.25, 0.6), seed=rng.uniform(0, 9)),
        rough(random_shade(rng, (1, 0.9, 0.8), 0.1, 0.5, spread=0.3), 0.15, 0.5, seed=rng.uniform(0, 9)),
    ][rng.integers(3)]
    wall = rough(random_shade(rng, (1, 0.97, 0.92), 0.5, 0.9, spread=0.08), 0.8, 0.12, seed=rng.uniform(0, 9))
    return by_facing(wall, floor, plain((0.85, 0.85, 0.83)))


def _on_walls(rng: Generator, width: float, height: float, depth: float) -> Iterator[Solid]:
    """A door or window in the far wall, pictures on the side walls, skirting boards."""
    frame, leaf = rng.uniform(-0.3, 0.3) * width, _wood(rng)
    if rng.random() < 0.6:
        yield Cuboid((frame, 1.0, depth), (0.45, 1.0, 0.03), leaf)
    else:
        yield Cuboid((frame, 1.5, depth), (0.75, 0.65, 0.03), plain((0.9, 0.9, 0.88)))
        yield Cuboid((frame, 1.5, depth), (0.68, 0.58, 0.04), rough((0.6, 0.75, 0.95), 2.0, 0.2))
    for side in (-1, 1):
        yield Cuboid((side * width / 2, 0.05, depth / 2), (0.02, 0.05, depth / 2), leaf)
        for z in np.arange(rng.uniform(1.2, 2.5), depth - 0.6, 1.6):
            if rng.random() < 0.6:
                size = rng.uniform(0.2, 0.5, 2)
                picture = rough(random_color(rng, 0.1, 0.8), 0.15, 0.9, seed=rng.uniform(0, 9))
                yield Cuboid((side * width / 2, rng.uniform(1.4, 1.7), z), (0.03, size[0], size[1]), picture)
    yield Cuboid((0, 0.05, depth), (width / 2, 0.05, 0.02), leaf)


def _furniture(rng: Generator, width: float, height: float, depth: float, camera_x: float) -> Iterator[Solid]:
    """Pieces that do not overlap and do not block the camera."""
    occupied = [(camera_x, z, 0.5) for z in (0.3, 0.8, 1.3)]  # x, z, radius
    for _ in range(N_PLACEMENTS):
        make, radius, at_wall = PIECES[rng.integers(len(PIECES))]
        side = rng.choice([-1, 1])
        x = side * (width / 2 - radius) if at_wall else rng.uniform(-1, 1) * max(width / 2 - radius, 0)
        z = rng.uniform(1.0 + radius, depth - radius)
        if all(np.hypot(x - other_x, z - other_z) > radius + reach for other_x, other_z, reach in occupied):
            occupied.append((x, z, radius))
            yield from make(rng, Placement(x, z, side, height))


def _cupboard(rng: Generator, at: Placement) -> Iterator[Solid]:
    tall = rng.uniform(0.7, min(2.1, at.ceiling - 0.2))
    shelves = tiles(_brown(rng), (0.08, 0.06, 0.05), rng.uniform(0.35, 0.6), seed=rng.uniform(0, 9))
    yield Cuboid((at.x + at.side * 0.25, tall / 2, at.z), (0.24, tall / 2, rng.uniform(0.35, 0.5)), shelves)
    if tall < 1.3:
        yield Cylinder(at.x + at.side * 0.25, at.z, 0.07, tall, tall + 0.3, rough(random_color(rng, 0.1, 0.8)))


def _table(rng: Generator, at: Placement) -> Iterator[Solid]:
    wood, yaw, top = _wood(rng), rng.uniform(-0.4, 0.4), rng.uniform(0.45, 0.78)
    long, wide = rng.uniform(0.45, 0.65), rng.uniform(0.3, 0.45)
    yield Cuboid((at.x, top, at.z), (long, 0.025, wide), wood, yaw)
    for right in (-0.88, 0.88):
        for ahead in (-0.85, 0.85):
            foot_x, foot_z = _around(at, yaw, right * long, ahead * wide)
            yield Cylinder(foot_x, foot_z, 0.03, 0, top, wood)
    yield Sphere((at.x + rng.uniform(-0.2, 0.2), top + 0.11, at.z), 0.085, rough(random_color(rng, 0.05, 0.8), 0.1, 0.3))


def _chair(rng: Generator, at: Placement) -> Iterator[Solid]:
    fabric, yaw = rough(random_color(rng, 0.05, 0.7), 0.1, 0.3), rng.uniform(-np.pi, np.pi)
    yield Cuboid((at.x, 0.45, at.z), (0.23, 0.03, 0.23), fabric, yaw)
    back_x, back_z = _around(at, yaw, 0, 0.21)
    yield Cuboid((back_x, 0.75, back_z), (0.22, 0.28, 0.025), fabric, yaw)
    for right in (-0.2, 0.2):
        for ahead in (-0.2, 0.2):
            yield Cylinder(*_around(at, yaw, right, ahead), 0.02, 0, 0.45, plain((0.1, 0.1, 0.1)))


def _sofa(rng: Generator, at: Placement) -> Iterator[Solid]:
    fabric = rough(random_color(rng, 0.08, 0.6), 0.12, 0.35, seed=rng.uniform(0, 9))
    yield Cuboid((at.x, 0.22, at.z), (0.42, 0.22, 0.8), fabric)
    yield Cuboid((at.x + at.side * 0.34, 0.5, at.z), (0.1, 0.32, 0.8), fabric)
    for end in (-0.74, 0.74):
        yield Cuboid((at.x, 0.35, at.z + end), (0.42, 0.25, 0.1), fabric)


def _bed(rng: Generator, at: Placement) -> Iterator[Solid]:
    cover = rough(random_color(rng, 0.2, 0.8), 0.2, 0.4, seed=rng.uniform(0, 9))
    yield Cuboid((at.x, 0.15, at.z), (0.98, 0.15, 0.7), _wood(rng))
    yield Cuboid((at.x, 0.4, at.z), (0.95, 0.12, 0.68), cover)
    yield Cuboid((at.x + at.side * 0.7, 0.56, at.z), (0.18, 0.07, 0.45), plain((0.85, 0.85, 0.85)))


def _crate(rng: Generator, at: Placement) -> Iterator[Solid]:
    half = rng.uniform(0.12, 0.25, 3)
    yield Cuboid((at.x, half[1], at.z), (half[0], half[1], half[2]), _wood(rng), rng.uniform(-np.pi, np.pi))


def _ball(rng: Generator, at: Placement) -> Iterator[Solid]:
    radius = rng.uniform(0.1, 0.28)
    yield Sphere((at.x, radius, at.z), radius, rough(random_color(rng, 0.1, 0.9), 0.2, 0.4))


def _floor_lamp(rng: Generator, at: Placement) -> Iterator[Solid]:
    yield Cylinder(at.x, at.z, 0.025, 0, 1.4, plain((0.2, 0.2, 0.2)))
    yield Cylinder(at.x, at.z, 0.18, 1.3, 1.6, rough((0.9, 0.8, 0.6), 0.3, 0.1))


Piece = Callable[[Generator, Placement], Iterator[Solid]]
PIECES: list[tuple[Piece, float, bool]] = [  # constructor, radius of the floor area (m), whether it is at a wall
    (_cupboard, 0.5, True),
    (_cupboard, 0.5, True),
    (_sofa, 0.85, True),
    (_bed, 1.1, True),
    (_table, 0.75, False),
    (_chair, 0.35, False),
    (_chair, 0.35, False),
    (_crate, 0.35, False),
    (_ball, 0.28, False),
    (_floor_lamp, 0.2, True),
]


def _around(at: Placement, yaw: float, right: float, ahead: float) -> tuple[float, float]:
    """World x and z of a position relative to a piece that is rotated by `yaw`."""
    return at.x + np.cos(yaw) * right + np.sin(yaw) * ahead, at.z - np.sin(yaw) * right + np.cos(yaw) * ahead


def _wood(rng: Generator) -> Texture:
    return planks(_brown(rng), rng.uniform(0.1, 0.3), seed=rng.uniform(0, 9))


def _brown(rng: Generator) -> Color:
    return random_shade(rng, (1, 0.65, 0.4), 0.2, 0.75)
