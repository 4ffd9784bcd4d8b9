import os
import subprocess
import sys

import pytest
import torch

from trainers.latent_store import LatentStore


class Encoder:
    """Counts what it encodes: the position's square."""

    def __init__(self):
        self.encoded = []

    def __call__(self, positions):
        self.encoded += positions
        return [{"latents": torch.tensor([position**2])} for position in positions]


KEYS = [f"{position:032x}" for position in range(10)]


def values(batches):
    return [int(batch["latents"]) for batch in batches]


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_each_key_is_encoded_once_for_ever(tmp_path, at_once):
    encode = Encoder()
    assert values(LatentStore(tmp_path).fetch(KEYS[:4], encode, at_once)) == [0, 1, 4, 9]
    store = LatentStore(tmp_path)
    assert values(store.fetch(KEYS, encode, at_once)) == [position**2 for position in range(10)]
    assert sorted(encode.encoded) == list(range(10))
    assert (store.num_encoded, store.num_reused) == (6, 4)


def test_without_a_folder_everything_is_encoded_each_time_but_equal_pictures():
    encode, store = Encoder(), LatentStore()
    assert len(values(store.fetch([KEYS[0], KEYS[1], KEYS[0]], encode))) == 3
    assert len(encode.encoded) == 2
    store.fetch(KEYS[:2], encode)
    assert len(encode.encoded) == 4


def test_damaged_files_are_made_again_and_leave_no_temporary_files(tmp_path):
    LatentStore(tmp_path).fetch(KEYS, Encoder())
    files = sorted(tmp_path.rglob("*.safetensors"))
    files[0].write_bytes(b"")
    files[1].write_bytes(files[1].read_bytes()[:-3])
    files[2].unlink()
    encode = Encoder()
    assert values(LatentStore(tmp_path).fetch(KEYS, encode)) == [position**2 for position in range(10)]
    assert len(encode.encoded) == 3
    assert sorted(file for file in tmp_path.rglob("*") if file.is_file()) == files


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_no_error(tmp_path):
    tmp_path.chmod(0o500)
    assert values(LatentStore(tmp_path / "latents").fetch(KEYS, Encoder())) == [n**2 for n in range(10)]


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert values(LatentStore(tmp_path / "file").fetch(KEYS, Encoder())) == [n**2 for n in range(10)]


def test_processes_that_begin_together_share_the_work(tmp_path):
    script = """
import sys, time, torch
from pathlib import Path
from trainers.latent_store import LatentStore
def encode(positions):
    time.sleep(0.02)
    return [{"latents": torch.tensor([position**2])} for position in positions]
store = LatentStore(Path(sys.argv[1]))
sys.stdin.readline()
got = store.fetch([f"{n:032x}" for n in range(60)], encode, 2)
assert [int(one["latents"]) for one in got] == [n**2 for n in range(60)]
print(store.num_encoded)
"""
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdin=pipe, stdout=pipe, text=True)
        for _ in range(2)
    ]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert 60 <= sum(counts) <= 120  # each picture by one of them, or by both where they met
    assert len(list(tmp_path.rglob("*.safetensors"))) == 60
