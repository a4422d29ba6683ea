"""Many edited runs as rows of few batches, on any executor, resumable."""
