# Copyright 2026 The pixelrefer_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Render a tabletop world with MuJoCo, with the exact mask of every object.

Objects are decorative geoms added to the scene of one compiled model, so that no world needs
a compilation of its own. Rendering uses OSMesa unless ``MUJOCO_GL`` says otherwise.
"""

from __future__ import annotations

import math
import os
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixelrefer_ros.simulation.world import CameraSpec, ThingSpec, WorldSpec

_GRIPPER = np.array([0.35, 0.36, 0.38, 1.0], np.float32)

# (builtin, rgb1, rgb2, repeat): plain, checked, and graded surfaces in wood, stone and cloth hues
_SURFACES = (
    ('flat', '.72 .55 .38', '.7 .5 .4', 1),
    ('flat', '.55 .38 .24', '.5 .4 .3', 1),
    ('flat', '.80 .79 .76', '.8 .8 .8', 1),
    ('flat', '.45 .47 .50', '.5 .5 .5', 1),
    ('flat', '.62 .68 .66', '.6 .7 .7', 1),
    ('flat', '.84 .76 .62', '.8 .8 .6', 1),
    ('checker', '.74 .70 .62', '.60 .56 .50', 6),
    ('checker', '.80 .80 .82', '.55 .56 .60', 10),
    ('checker', '.62 .46 .30', '.54 .40 .26', 8),
    ('checker', '.50 .54 .56', '.62 .64 .66', 14),
    ('checker', '.70 .62 .60', '.78 .72 .70', 4),
    ('gradient', '.80 .70 .55', '.55 .45 .34', 2),
    ('gradient', '.66 .68 .70', '.44 .46 .50', 3),
    ('gradient', '.60 .44 .32', '.74 .58 .44', 5),
    ('gradient', '.76 .76 .70', '.60 .62 .58', 1),
    ('flat', '.36 .33 .30', '.3 .3 .3', 1),
)
MATERIALS = len(_SURFACES)


def _model_xml(table_half: tuple[float, float], width: int, height: int, shadow: int) -> str:
    textures = ''.join(
        f'<texture name="t{i}" type="2d" builtin="{kind}" rgb1="{a}" rgb2="{b}" width="128" '
        f'height="128" mark="random" markrgb="{b}" random="{0.15 * (i % 3)}"/>'
        f'<material name="m{i}" texture="t{i}" texrepeat="{n} {n}" texuniform="false" '
        f'specular="0.1" shininess="0.1"/>'
        for i, (kind, a, b, n) in enumerate(_SURFACES)
    )
    return f"""
<mujoco>
  <statistic extent="0.7" center="0 0 0"/>
  <visual>
    <global offwidth="{width}" offheight="{height}" fovy="45"/>
    <quality shadowsize="{shadow}" offsamples="0" numslices="24" numstacks="12" numquads="1"/>
    <map znear="0.05" zfar="12" shadowclip="1.2" shadowscale="0.8"/>
  </visual>
  <asset>{textures}</asset>
  <worldbody>
    <light name="sun" type="directional" castshadow="true" pos="0 0 2"/>
    <light name="lamp" type="spot" castshadow="true" cutoff="70" exponent="2"/>
    <geom name="floor" type="plane" size="3 3 .1" pos="0 0 -.3" material="m0"/>
    <geom name="table" type="box" size="{table_half[0]} {table_half[1]} .012" pos="0 0 -.012"
          material="m1"/>
  </worldbody>
</mujoco>"""


def _gl_context(width: int, height: int) -> Any:
    """Return an offscreen OpenGL context: OSMesa, or what MUJOCO_GL asks for.

    MuJoCo itself reads MUJOCO_GL when it is first imported, which may be before anyone set it.
    """
    if os.environ.get('MUJOCO_GL', 'osmesa').lower() == 'osmesa':
        from mujoco.osmesa import GLContext
    else:
        from mujoco import GLContext
    return GLContext(width, height)


def _yaw(angle: float) -> NDArray[np.float64]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


class TabletopRenderer:
    """Draw worlds into (H, W, 3) uint8 images and (H, W) uint8 object-number images.

    One per process: a second OpenGL context after a freed one draws black. Close it when done.
    """

    def __init__(self, width: int = 256, height: int = 192, shadow: int = 256) -> None:
        """Compile the scene and make an offscreen context."""
        from pixelrefer_ros.simulation.world import TABLE_HALF

        self.width, self.height = width, height
        self._model = mujoco.MjModel.from_xml_string(_model_xml(TABLE_HALF, width, height, shadow))
        self._data = mujoco.MjData(self._model)
        mujoco.mj_forward(self._model, self._data)
        self._gl = _gl_context(width, height)
        self._gl.make_current()
        self._scene = mujoco.MjvScene(self._model, maxgeom=400)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._rect = mujoco.MjrRect(0, 0, width, height)

    def close(self) -> None:
        """Free the OpenGL context."""
        self._context.free()
        self._gl.free()

    def dress(self, world: WorldSpec) -> None:
        """Set table, floor and light to those of a world."""
        model = self._model
        floor, table = model.geom('floor').id, model.geom('table').id
        model.geom_matid[floor], model.geom_matid[table] = (
            world.floor_material, world.table_material)
        model.mat_rgba[world.floor_material] = (*world.floor_tint, 1)
        model.mat_rgba[world.table_material] = (*world.table_tint, 1)
        model.geom_pos[floor][2] = -world.floor_depth_m
        sun, lamp = model.light('sun').id, model.light('lamp').id
        lit, dark = (lamp, sun) if world.lamp else (sun, lamp)
        model.light_active[lit], model.light_active[dark] = True, False
        model.light_dir[lit] = world.light_dir
        model.light_diffuse[lit] = world.light_diffuse
        model.light_pos[lamp] = -1.7 * np.array(world.light_dir)
        model.vis.headlight.ambient[:] = world.ambient
        model.vis.headlight.diffuse[:] = 0.3
        mujoco.mj_forward(model, self._data)

    def render(
        self, world: WorldSpec, time_s: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw a dressed world at a time.

        Returns:
            The (H, W, 3) uint8 RGB image, and (H, W) uint8 with 0 for background and k + 1
            where object k is visible.
        """
        self._aim(world.camera.at(time_s))
        scene = self._scene
        mujoco.mjv_updateScene(self._model, self._data, self._option, None, self._camera,
                               mujoco.mjtCatBit.mjCAT_ALL, scene)
        parts = [0] * scene.ngeom
        for k, thing in enumerate(world.things):
            self._add_thing(thing, time_s)
            parts += [k + 1] * (scene.ngeom - len(parts))
            if thing.hand is not None:
                self._add_gripper(thing, time_s, thing.hand(time_s))
                parts += [0] * (scene.ngeom - len(parts))
        for i in range(scene.ngeom):
            scene.geoms[i].segid = i
        image = np.empty((self.height, self.width, 3), np.uint8)
        scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = False
        scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = False
        mujoco.mjr_render(self._rect, scene, self._context)
        mujoco.mjr_readPixels(image, None, self._rect, self._context)
        codes = np.empty((self.height, self.width, 3), np.uint8)
        scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = True
        scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        mujoco.mjr_render(self._rect, scene, self._context)
        mujoco.mjr_readPixels(codes, None, self._rect, self._context)
        # A pixel's code is segid + 1, 0 where nothing is drawn; OpenGL rows start at the bottom.
        flat = codes[::-1].astype(np.int64)
        segid = flat[..., 0] + 256 * flat[..., 1]
        numbers = np.array([0, *parts], np.uint8)[segid]
        return np.ascontiguousarray(image[::-1]), numbers

    def camera_position(self, camera: CameraSpec) -> NDArray[np.float64]:
        """Return where a still camera stands, (3,) in metres."""
        azimuth, elevation = map(math.radians, (camera.azimuth_deg, camera.elevation_deg))
        forward = np.array([math.cos(elevation) * math.cos(azimuth),
                            math.cos(elevation) * math.sin(azimuth), math.sin(elevation)])
        return np.array(camera.lookat) - camera.distance_m * forward

    def _aim(self, camera: CameraSpec) -> None:
        self._camera.azimuth = camera.azimuth_deg
        self._camera.elevation = camera.elevation_deg
        self._camera.distance = camera.distance_m
        self._camera.lookat[:] = camera.lookat

    def _geom(
        self,
        kind: mujoco.mjtGeom,
        size: tuple[float, float, float],
        position: NDArray[np.float64],
        rotation: NDArray[np.float64],
        rgba: NDArray[np.float32],
    ) -> None:
        geom = self._scene.geoms[self._scene.ngeom]
        mujoco.mjv_initGeom(geom, kind, np.array(size), position, rotation.ravel(), rgba)
        geom.specular, geom.shininess = 0.25, 0.4
        self._scene.ngeom += 1

    def _rod(
        self, radius: float, a: NDArray[np.float64], b: NDArray[np.float64],
        rgba: NDArray[np.float32],
    ) -> None:
        geom = self._scene.geoms[self._scene.ngeom]
        mujoco.mjv_initGeom(geom, mujoco.mjtGeom.mjGEOM_CAPSULE, np.zeros(3), np.zeros(3),
                            np.eye(3).ravel(), rgba)
        mujoco.mjv_connector(geom, mujoco.mjtGeom.mjGEOM_CAPSULE, radius, a, b)
        self._scene.ngeom += 1

    def _add_thing(self, thing: ThingSpec, time_s: float) -> None:
        kinds = mujoco.mjtGeom
        e, base = thing.extent_m, thing.position(time_s)
        rgba = np.array([*thing.rgb, 1], np.float32)
        turn = _yaw(thing.yaw_rad)

        def up(z: float) -> NDArray[np.float64]:
            return base + np.array([0, 0, z])

        if thing.shape == 'ball':
            self._geom(kinds.mjGEOM_SPHERE, (e / 2,) * 3, up(e / 2), turn, rgba)
        elif thing.shape == 'cube':
            h = e / (2 * 3**0.5) * 1.25
            self._geom(kinds.mjGEOM_BOX, (h, h, h), up(h), turn, rgba)
        elif thing.shape == 'cylinder':
            self._geom(kinds.mjGEOM_CYLINDER, (0.34 * e, e / 2, 0), up(e / 2), turn, rgba)
        elif thing.shape == 'bottle':
            e *= 1.25  # thin: taller for the same amount of picture
            self._geom(kinds.mjGEOM_CYLINDER, (0.19 * e, 0.30 * e, 0), up(0.30 * e), turn, rgba)
            self._geom(kinds.mjGEOM_ELLIPSOID, (0.19 * e, 0.19 * e, 0.14 * e), up(0.60 * e), turn,
                       rgba)
            self._geom(kinds.mjGEOM_CYLINDER, (0.07 * e, 0.18 * e, 0), up(0.82 * e), turn, rgba)
        elif thing.shape == 'mug':
            r, h = 0.33 * e, 0.40 * e
            self._geom(kinds.mjGEOM_CYLINDER, (r, h, 0), up(h), turn, rgba)
            inner = rgba.copy()
            inner[:3] = 0.35 * inner[:3] + 0.02
            self._geom(kinds.mjGEOM_CYLINDER, (0.82 * r, 0.004 * e, 0), up(2 * h), turn, inner)
            side = turn @ np.array([1.0, 0, 0])
            arc = [base + side * (r + 0.26 * e * math.sin(a))
                   + np.array([0, 0, h * (1 - 0.62 * math.cos(a))])
                   for a in np.linspace(0.15, math.pi - 0.15, 6)]
            for a, b in pairwise(arc):
                self._rod(0.055 * e, a, b, rgba)
        else:  # ring, lying flat
            r, tube = 0.36 * e, 0.14 * e
            points = [up(tube) + r * np.array([math.cos(a), math.sin(a), 0])
                      for a in np.linspace(0, 2 * math.pi, 15)]
            for a, b in pairwise(points):
                self._rod(tube, a, b, rgba)

    def _add_gripper(self, thing: ThingSpec, time_s: float, above_m: float) -> None:
        """Draw a two-finger hand that holds the object from above, and its arm."""
        top = {'ball': 1.0, 'cube': 0.72, 'cylinder': 1.0, 'bottle': 1.22, 'mug': 0.8,
               'ring': 0.28}[thing.shape] * thing.extent_m
        reach = {'ball': 0.5, 'cube': 0.40, 'cylinder': 0.36, 'bottle': 0.12, 'mug': 0.36,
                 'ring': 0.5}[thing.shape] * thing.extent_m + 0.006
        tip = thing.position(time_s) + np.array([0, 0, top + above_m])
        turn = _yaw(thing.yaw_rad)
        box = mujoco.mjtGeom.mjGEOM_BOX
        for sign in (-1, 1):
            side = turn @ np.array([0, sign * reach, 0])
            self._geom(box, (0.008, 0.004, 0.030), tip + side + np.array([0, 0, 0.008]), turn,
                       _GRIPPER)
        palm = tip + np.array([0, 0, 0.045])
        self._geom(box, (0.014, reach + 0.008, 0.010), palm, turn, _GRIPPER)
        self._rod(0.014, palm, palm + np.array([0, 0, 0.8]), _GRIPPER)
