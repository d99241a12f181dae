"""What becomes of a trained network: versions, model cards, promotion, export, serving, retention."""
