"""Layouts of RGB-D folders that `tiekd data check` recognizes: the settings of `data.folder` and the largest depth, m."""

from typing import Any, NamedTuple


class FolderLayout(NamedTuple):
    """A usual layout. To add one: an entry of FOLDER_LAYOUTS."""

    settings: dict[str, Any]
    max_depth: float = 10.0


FOLDER_LAYOUTS: dict[str, FolderLayout] = {
    "BTS' NYU Depth v2": FolderLayout(
        {
            "name": "nyu",
            "images": "{split}/**/rgb_*.jpg",
            "depths": "{split}/**/sync_depth_*.png",
            "splits": ["sync", "official_splits/test"],
        }
    ),
    "7-Scenes": FolderLayout(
        {"name": "7-scenes", "images": "**/frame-*.color.*", "depths": "**/frame-*.depth.png", "invalid": [65535]}
    ),
    "TUM RGB-D": FolderLayout(
        {"name": "tum", "images": "**/rgb/1*.png", "depths": "**/depth/1*.png", "pair_by": "time", "depth_scale": 5000}
    ),
    "ScanNet": FolderLayout({"name": "scannet", "images": "**/color/*.jpg", "depths": "**/depth/*.png"}),
    "DIODE": FolderLayout(
        {
            "name": "diode",
            "images": "{split}/**/*.png",
            "depths": "{split}/**/*_depth.npy",
            "masks": "{split}/**/*_depth_mask.npy",
            "depth_scale": 1,
            "splits": ["train", "val"],
        },
        max_depth=50.0,
    ),
    "SUN RGB-D": FolderLayout(
        {
            "name": "sun-rgbd",
            "images": "**/image/*.jpg",
            "depths": "**/depth_bfx/*.png",
            "pair_by": "folder",
            "rotate_bits": 3,
            "group": "(.*)/[^/]+/image/",
        },
    ),
    "Virtual KITTI 2": FolderLayout(
        {
            "name": "vkitti2",
            "images": "**/frames/rgb/*/rgb_*.jpg",
            "depths": "**/frames/depth/*/depth_*.png",
            "depth_scale": 100,
            "invalid": [65535],
            "group": "Scene\\d+",
        },
        max_depth=80.0,
    ),
    "Ultralytics": FolderLayout(
        {"images": "images/{split}/**/*.*", "depths": "depth/{split}/**/*.png", "splits": ["train", "val"]}
    ),
    "Ultralytics, depth in m": FolderLayout(
        {"images": "images/{split}/**/*.*", "depths": "depth/{split}/**/*.npy", "depth_scale": 1, "splits": ["train", "val"]}
    ),
    "images and depth": FolderLayout({"images": "images/**/*.*", "depths": "depth/**/*.png"}),
}
