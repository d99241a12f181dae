"""What watches a training: progress, health, preemption, hangs, injected faults."""
