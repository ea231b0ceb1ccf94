"""Other tools read the files of a data set unchanged, without our code."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import numpy as np
import pandas
import pyarrow.dataset
import pytest

from tests.datasets.recorded import PICTURES, make_episode, make_pictures, write

READER = Path(__file__).with_name("read_with_ray.py")


@pytest.fixture
def episodes():
    return [make_episode(length, seed) for seed, length in enumerate((20, 3, 14, 30))]


@pytest.fixture
def folder(tmp_path, episodes):
    write(tmp_path / "data", episodes, part_transitions=25)
    return tmp_path / "data"


def test_pandas_reads_every_column(folder, episodes):
    frame = pandas.concat([pandas.read_parquet(part) for part in sorted(folder.glob("*.parquet"))])
    assert len(frame) == 67
    second = frame[frame.eps_id == 2]
    np.testing.assert_array_equal(np.stack(second.obs), episodes[2].observation[:-1])
    np.testing.assert_array_equal(np.stack(second.new_obs), episodes[2].observation[1:])
    np.testing.assert_array_equal(np.stack(second.actions), episodes[2].action)
    np.testing.assert_array_equal(second.rewards, episodes[2].reward)
    assert set(second.policy) == {"driver 2"}
    returns = frame.groupby("eps_id").rewards.sum()
    np.testing.assert_allclose(returns, [episode.reward.sum() for episode in episodes], rtol=1e-5)


def test_duckdb_queries_all_parts(folder, episodes):
    rows = duckdb.sql(
        f"""SELECT policy, count(DISTINCT eps_id), count(*), sum(rewards), max(obs[6])
        FROM '{folder}/*.parquet' GROUP BY policy ORDER BY policy"""
    ).fetchall()
    assert [row[:3] for row in rows] == [
        ("driver 0", 2, 50),
        ("driver 1", 1, 3),
        ("driver 2", 1, 14),
    ]
    assert rows[1][3] == pytest.approx(episodes[1].reward.sum(), rel=1e-5)
    assert rows[1][4] == episodes[1].observation[:-1, 5].max()


def test_arrow_streams_the_parts(folder):
    data = pyarrow.dataset.dataset(folder, exclude_invalid_files=True, format="parquet")
    assert sum(batch.num_rows for batch in data.to_batches(columns=["rewards"])) == 67


def test_images_are_bytes_of_the_shape_in_the_file(tmp_path):
    episode = make_pictures(5)
    write(tmp_path / "data", [episode], PICTURES)
    (part,) = (tmp_path / "data").glob("*.parquet")
    schema = pyarrow.parquet.read_schema(part)
    assert schema.metadata[b"image_shape"] == b"[40, 36, 3]"
    (first, *_) = duckdb.sql(f"SELECT obs FROM '{part}' ORDER BY t").fetchall()
    pixels = np.frombuffer(first[0], np.uint8).reshape(40, 36, 3)
    np.testing.assert_array_equal(pixels, episode.observation[0])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("reader", ["data", "rllib"])
def test_ray_reads_the_parts(folder, reader):
    if reader == "rllib":
        # The extra `rllib` brings torch, which the development environment does not have.
        pytest.importorskip("torch", reason="RLlib needs the extra rllib")
    with tempfile.TemporaryDirectory(prefix="rl", dir="/tmp") as home:  # sockets need short paths
        environment = {"HOME": home, "RAY_TMPDIR": home, "RAY_AUTH_MODE": "disabled"}
        done = subprocess.run(
            [sys.executable, str(READER), reader, str(folder)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert "read 67 transitions" in done.stdout
