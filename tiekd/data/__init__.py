"""The data sets, and the inputs of a run: frames with ground truth, and the maps of a teacher.

inputs.py         the frames and maps of a run, and its identity, which depends on them
frame_source.py   Frame, FrameSource: the interface of every data set
layouts/          data sets on disk: KITTI, NYU Depth v2, any RGB-D folder
synthetic/        rendered data sets
teacher_maps/     the depth maps of a teacher, in a folder or in the run store
cache/            decoded frames and maps, in memory or packed in files; digests of input files
depth_range.py    whether depths can be in metres, and reach as far as the data
depth_files.py    depth maps of all formats; image_io.py: photos and 16-bit PNGs
dataset.py        DepthDataset and its samplers, for PyTorch
transforms.py     augmentation of image, ground truth and teacher map together
doctor.py         the dataset doctor
"""

from tiekd.data.frame_source import Frame, FrameSource, Split
from tiekd.data.inputs import (
    Inputs,
    check_ground_truth,
    check_inputs,
    check_maps,
    input_digests,
    inputs_key,
    open_frames,
    open_inputs,
)

__all__ = [
    "Frame",
    "FrameSource",
    "Inputs",
    "Split",
    "check_ground_truth",
    "check_inputs",
    "check_maps",
    "input_digests",
    "inputs_key",
    "open_frames",
    "open_inputs",
]
