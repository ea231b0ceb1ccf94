"""Recorded episodes on disk: a folder with `dataset.json` and Parquet files.

`DatasetWriter` writes such a folder episode by episode, and `Dataset` reads it as a stream, so that
neither needs memory for the whole. Every other module converts, checks or draws data sets with
these two.
"""

from rlcar.datasets.dataset import Dataset
from rlcar.datasets.description import Description, World
from rlcar.datasets.episode import Episode
from rlcar.datasets.writer import DatasetWriter

__all__ = ["Dataset", "DatasetWriter", "Description", "Episode", "World"]
