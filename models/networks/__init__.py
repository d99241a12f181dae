"""Networks: EfficientNet and the related work, their counts, weights and export."""
