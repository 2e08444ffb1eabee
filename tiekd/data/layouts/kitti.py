"""KITTI in the Eigen split, as the depth benchmark and its users lay it out.

root/kitti_eigen_train.txt                      image  ground truth or None  focal length
root/input/<date>/<drive>/image_02/data/*.png   RGB
root/gt_depth/<drive>/proj_depth/groundtruth/image_02/*.png   16-bit, value / 256 = m

The folders of KITTI's own archives and of BTS are found, too: images in root or root/raw, ground truth in
root/data_depth_annotated, with or without its folders train and val.
"""

from tiekd.data.layouts.split_list import Layout

KITTI = Layout(
    root_holds="the split lists, input/ (images) and gt_depth/ (16-bit depth PNGs, value / 256 = m)",
    example="2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000005.png "
    "2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000005.png 721.5377",
    image_folder="input",
    depth_folder="gt_depth",
    other_image_folders=("", "raw", "raw_data", "kitti_raw", "images"),
    other_depth_folders=(
        "data_depth_annotated",
        "data_depth_annotated/train",
        "data_depth_annotated/val",
        "gts",
        "train",
        "val",
        "",
    ),
    depth_scale=256.0,
    view_size=(352, 1216),
)
