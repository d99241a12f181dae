"""NVIDIA DALI on the CPU: its webdataset reader, region-of-interest decoder and antialiased cubic resize.

``python -m benchmarks.rivals.dali_cubic FOLDER``. Delivers uint8 NHWC torch tensors. The decoder keeps DALI's
defaults, among them the plain (faster) upsampling of colour.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from benchmarks.rivals import clock


@pipeline_def(batch_size=clock.BATCH, num_threads=clock.WORKERS, device_id=None, prefetch_queue_depth=2)  # type: ignore[untyped-decorator]
def pipeline(shards: list[str], indices: list[str]) -> Any:
    """Images ``[S, S, 3]`` uint8 and the text of their labels, padded to equal length."""
    jpeg, label = fn.readers.webdataset(
        paths=shards, index_paths=indices, ext=["jpg", "cls"], random_shuffle=True, initial_fill=1000, name="reader"
    )
    images = fn.decoders.image_random_crop(jpeg, device="cpu", output_type=types.RGB)
    images = fn.resize(images, size=[clock.SIDE, clock.SIDE], interp_type=types.INTERP_CUBIC, antialias=True)
    images = fn.flip(images, horizontal=fn.random.coin_flip())
    return images, fn.pad(label, fill_value=ord(" "))


def batches(folder: Path) -> Iterator[int]:
    """Sizes of the batches that arrive, without end."""
    shards = sorted(folder.glob("train-*.tar"))
    indices = [str(folder / "dali" / f"{shard.stem}.idx") for shard in shards]
    pipe = pipeline([str(shard) for shard in shards], indices)
    for batch in DALIGenericIterator([pipe], ["images", "labels"]):  # endless without a size
        labels = [int(bytes(row)) for row in batch[0]["labels"].numpy()]
        assert len(labels) == clock.BATCH
        yield len(batch[0]["images"])


if __name__ == "__main__":
    clock.measure(batches(Path(sys.argv[1])))
    clock.finish()
