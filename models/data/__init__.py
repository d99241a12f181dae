"""From images at their source to batches in memory."""
