"""NYU Depth v2, as the lists of BTS and its followers lay it out.

root/nyu_train.txt                   image  ground truth  focal length; paths may begin with a slash
root/<scene>/rgb_*.jpg               RGB
root/<scene>/sync_depth_*.png        16-bit, value / 1000 = m

The scenes may also be in the folders in which BTS ships them: root/sync and root/official_splits/test.
"""

from tiekd.data.frame_source import Box, TrainRegion
from tiekd.data.layouts.split_list import Layout

NYU = Layout(
    root_holds="the split lists and a folder per scene with rgb_*.jpg and sync_depth_*.png (16-bit, value / 1000 = m)",
    example="/kitchen_0028b/rgb_00045.jpg /kitchen_0028b/sync_depth_00045.png 518.8579",
    other_image_folders=("official_splits/{split}", "sync", "{split}"),
    other_depth_folders=("official_splits/{split}", "sync", "{split}"),
    depth_scale=1000.0,
    train_region=TrainRegion((480, 640), Box(45, 43, 427, 565)),  # the frames have a white border
)
