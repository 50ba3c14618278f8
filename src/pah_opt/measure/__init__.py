"""Standard figures of a model: accuracy, latency, throughput, memory, energy, size and arithmetic."""
