"""Data loading, from shards to batches: order, cache, decoding, augmentation."""
