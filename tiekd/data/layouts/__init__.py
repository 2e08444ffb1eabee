"""Data sets on disk: those that split lists describe (kitti.py, nyu.py), and any RGB-D folder."""
