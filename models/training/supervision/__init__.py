"""Supervision of a training job: progress, health, preemption, hang detection, fault injection."""
